"""Precision by recall of each class of boxes, with bands by bootstrap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record
from headstart.evaluation.evaluation import TAILS, drawn, units_of
from headstart.targets.box_matching import RECALLS, ClassMatches
from headstart.targets.boxes import BoxesTarget
from headstart.targets.predictions import Predictions

RESAMPLES, FEWEST = 400, 50  # samples of the bootstrap; of many detections fewer
SORTED = 50_000_000  # detections in all samples of a class
EVERY = 2  # of the 101 recalls that a curve keeps
DIGITS = 4


@dataclass(frozen=True)
class PrecisionCurve(Record):
    """Precision by recall of one class, at an overlap of half.

    boxes: the number to find. reached: the recall of the points. precision: the highest at it or a
    higher recall, 0 where there is none. low, high: its 95 % band, pointwise. at: recall and
    precision at the class's threshold; () without one, or without a detection that reaches it.
    """

    name: str
    boxes: int
    reached: tuple[float, ...]
    precision: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    at: tuple[float, ...] = ()


def precision_curves(
    predictions: Predictions, groups: Sequence[str] = (), seed: int = 0
) -> tuple[PrecisionCurve, ...]:
    """Return a curve for each class that has boxes.

    groups: a name for each row, of which the bootstrap draws whole groups; () to draw rows.

    >>> precision_curves(predictions, splits.groups_of(predictions.ids))  # doctest: +SKIP
    """
    target, y = predictions.target, predictions.labels
    assert isinstance(target, BoxesTarget)
    scored, units = target.scored(predictions.outputs, y), units_of(groups)
    at = dict(_at_thresholds(predictions))
    found = list[PrecisionCurve]()
    for c, (name, matches) in enumerate(zip(target.names, scored.matches, strict=True)):
        first = replace(matches, hits=matches.hits[:1], misses=matches.misses[:1], known={})
        curve = first.curve()
        if curve is None:
            continue
        rng, n = np.random.default_rng([seed, c]), len(y)
        samples = max(FEWEST, min(RESAMPLES, SORTED // max(1, len(first.rows))))
        counts = (np.bincount(rows, minlength=n) for rows in drawn(rng, n, samples, units))
        low, high = _band(first, curve, counts)
        reached, own, least, most = map(_rounded, (RECALLS, curve, low, high))
        boxes = int(first.totals.sum())
        found.append(PrecisionCurve(name, boxes, reached, own, least, most, at.get(c, ())))
    return tuple(found)


def _band(
    matches: ClassMatches, curve: NDArray[np.float64], counts: Iterator[NDArray[np.int64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the band; samples without a box to find are left out."""
    each = [own for own in map(matches.curve, counts) if own is not None]
    low, high = np.quantile(each, TAILS, axis=0) if each else (curve, curve)
    return low, high


def _at_thresholds(predictions: Predictions) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Yield the number of each class with recall and precision at its threshold."""
    target, rows = predictions.target, np.arange(len(predictions))
    assert isinstance(target, BoxesTarget)
    if not target.thresholds:
        return
    judged = target.scored(predictions.outputs, predictions.labels).judged
    kept = judged.reaching(target.thresholds)
    for c in range(len(target.names)):
        precision, reached, _ = (share(rows) for share in judged.of_class(c, kept))
        if np.isfinite([precision, reached]).all():
            yield c, (round(reached, DIGITS), round(precision, DIGITS))


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(v), DIGITS) for v in values[::EVERY])
