"""How good heads are with K examples of each class, over draws of the examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.values import Record
from headstart.heads.families import solve_head
from headstart.heads.head import FeatureRows, Rows, some_of
from headstart.heads.specs import HeadSpec

RowsDraw = tuple[FeatureRows, FeatureRows]  # rows to learn from, and rows to judge by


@dataclass(frozen=True)
class HeadSpread(Record):
    """A metric of one head over the draws. sd: with draws - 1."""

    mean: float
    sd: float
    least: float
    most: float


@dataclass(frozen=True)
class FewShots(Record):
    """Heads fitted on `shots` rows of each class, `draws` times, and judged on other rows.

    metric: that is compared. rows: judged in a draw. heads: by family. best: of the highest mean.
    """

    shots: int
    draws: int
    metric: str
    rows: int
    heads: dict[str, HeadSpread]
    best: str


def few_shots(
    specs: Sequence[HeadSpec],
    draws: Sequence[RowsDraw],
    shots: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FewShots:
    """Fit every head on each draw, and measure the target's first metric on the draw's other rows.

    Ties go to the head named first.
    """
    target = draws[0][0].target
    metric = next(iter(target.shown), target.merit_name)
    values: dict[str, list[float]] = {spec.family: [] for spec in specs}
    for done, (train, rest) in enumerate(draws):
        progress(done, len(draws))
        for spec in specs:
            values[spec.family].append(_measured(spec, train, rest, metric))
    progress(len(draws), len(draws))
    heads = {name: _spread(found) for name, found in values.items()}
    best = max(heads, key=lambda name: heads[name].mean)
    return FewShots(shots, len(draws), metric, len(draws[0][1].y), heads, best)


def _measured(spec: HeadSpec, train: FeatureRows, rest: FeatureRows, metric: str) -> float:
    """Return the metric on `rest` of a head fitted on `train`; NaN if it is undefined there."""
    target = train.target.fitted(train.y)
    rows = Rows(train.x, train.y, target, supervision=train.supervision)
    found = solve_head(spec, rows, some_of(rows, np.zeros(0, np.int64)))
    target = found.target or target
    answers = target.activate(found.head.raw(rest.x))
    measured = target.metrics(answers, rest.y)[metric]
    return float("nan") if measured is None else float(measured.value)


def _spread(values: Sequence[float]) -> HeadSpread:
    known = np.array([value for value in values if np.isfinite(value)] or [0.0])
    sd = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return HeadSpread(float(known.mean()), sd, float(known.min()), float(known.max()))


def few_shots_rows(found: FewShots) -> list[tuple[str, ...]]:
    """Return a table to print: a header, then one row per head, the best one marked."""
    metric = found.metric.replace("_", " ")
    rows: list[tuple[str, ...]] = [("head", f"mean {metric}", "deviation", "least", "most", "")]
    for name, own in found.heads.items():
        numbers = (f"{value:.3f}" for value in (own.mean, own.sd, own.least, own.most))
        rows.append((name, *numbers, "kept" if name == found.best else ""))
    return rows
