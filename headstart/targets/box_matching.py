"""Match detections to true boxes as COCO's evaluation does, in NumPy.

The rules are those of pycocotools 2.0 (`COCOeval`): in each example and class, detections by
falling score take the free box that they overlap most; a test holds the two equal. T is the number
of thresholds of overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart.targets.box_values import BoxLabels, ExampleBoxes, areas, overlaps

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the intersection over union
MAX_DETECTIONS = 300  # of an example that are scored in each class, those of the highest scores
RECALLS = np.linspace(0, 1, 101)  # at which precision is read
WHOLE = (0.0, 1e10)  # square pixels, COCO's range of "all" sizes


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes that a model gives for one example: corners (D, 4), scores (D,), labels (D,)."""

    corners: NDArray[np.floating]
    scores: NDArray[np.floating]
    labels: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The detections of one class in all N examples, by falling score.

    rows: (D,) the example of each. hits, misses: (T, D) whether it is right, or wrong; neither for
    one that is ignored. totals: (N,) boxes to find in each example. known: figures by the
    counts of a sample.
    """

    rows: NDArray[np.int64]
    hits: Flags
    misses: Flags
    totals: NDArray[np.int64]
    known: dict[bytes, tuple[Doubles | None, Doubles | None]] = field(default_factory=dict)

    def average_precision(self, counts: NDArray[np.int64] | None = None) -> Doubles | None:
        """Return (T,) the mean precision at the 101 RECALLS; None without a box to find.

        counts: (N,) how many times each example counts, in a bootstrap.
        """
        return self._figures(counts)[0]

    def recall(self, counts: NDArray[np.int64] | None = None) -> Doubles | None:
        """Return (T,) the share of boxes that a detection finds; None without a box to find."""
        return self._figures(counts)[1]

    def curve(self, counts: NDArray[np.int64] | None = None) -> Doubles | None:
        """Return (101,) the highest precision at each of the RECALLS or a higher one, at the first
        threshold of overlap; 0 where no such recall is reached, None without a box to find."""
        total = self.totals.sum() if counts is None else self.totals @ counts
        if not total:
            return None
        weights = np.ones(len(self.rows)) if counts is None else counts[self.rows].astype(float)
        hits = np.cumsum(self.hits[0] * weights)
        seen = np.cumsum((self.hits[0] | self.misses[0]) * weights)
        precision = hits / (seen + np.spacing(1))
        values = _read(hits[None] / total, precision[None])[0]
        return np.pad(values, (0, len(RECALLS) - len(values)))

    def _figures(self, counts: NDArray[np.int64] | None) -> tuple[Doubles | None, Doubles | None]:
        """Return average precision and recall; remembered, since each metric asks for a sample."""
        key = b"" if counts is None else counts.tobytes()
        if key not in self.known:
            self.known[key] = self._computed(counts)
        return self.known[key]

    def _computed(self, counts: NDArray[np.int64] | None) -> tuple[Doubles | None, Doubles | None]:
        total = self.totals.sum() if counts is None else self.totals @ counts
        if not total:
            return None, None
        weights = np.ones(len(self.rows)) if counts is None else counts[self.rows].astype(float)
        at, judged, of = self._columns
        hits = np.cumsum(self.hits[:, at] * weights[at], axis=1)
        seen = np.cumsum(judged * weights, axis=1)[:, at][of]
        recall = hits[:, -1] / total if len(at) else np.zeros(len(hits))
        return _average(hits / total, hits / (seen + np.spacing(1))), recall

    @cached_property
    def _columns(self) -> tuple[NDArray[np.intp], Flags, NDArray[np.intp]]:
        """The detections that are right at some threshold, where precision has its peaks.

        And which detections are right or wrong: the distinct rows, and which of them each of the T
        thresholds has; with nothing ignored there is one.
        """
        judged, of = np.unique(self.hits | self.misses, axis=0, return_inverse=True)
        return np.flatnonzero(self.hits.any(axis=0)), judged, of.reshape(-1)


def _average(recall: Doubles, precision: Doubles) -> Doubles:
    """Return (T,) the mean over RECALLS of the highest precision at that recall or a higher one."""
    return np.array([own.sum() / len(RECALLS) for own in _read(recall, precision)])


def _read(recall: Doubles, precision: Doubles) -> list[Doubles]:
    """Return, for each threshold, the precisions at the RECALLS that are reached."""
    best, found = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1], list[Doubles]()
    for r, p in zip(recall, best, strict=True):
        at = np.searchsorted(r, RECALLS)
        found.append(p[at[at < len(p)]])
    return found


def match(
    truth: BoxLabels,
    found: Sequence[Detections],
    classes: int,
    sizes: tuple[float, float] = WHOLE,
    *,
    most: int = MAX_DETECTIONS,
    thresholds: Doubles = THRESHOLDS,
) -> tuple[ClassMatches, ...]:
    """Return the matches of each class; no detection is cut off by its score.

    sizes: the least and the largest area of the boxes to find, in square pixels; others are
    ignored, and so are unmatched detections of other areas. most: detections per example and class.
    """
    examples = [truth[i] for i in range(len(truth))]
    return tuple(_of_class(examples, found, c, sizes, most, thresholds) for c in range(classes))


def _of_class(
    examples: Sequence[ExampleBoxes],
    found: Sequence[Detections],
    c: int,
    sizes: tuple[float, float],
    most: int,
    thresholds: Doubles,
) -> ClassMatches:
    empty = np.zeros((len(thresholds), 0), bool)
    scores, rows = [np.zeros(0)], [np.zeros(0, np.int64)]
    hits, misses = [empty], [empty]
    totals = np.zeros(len(examples), np.int64)
    for i, (boxes, detections) in enumerate(zip(examples, found, strict=True)):
        own, given = boxes.take(boxes.labels == c), np.flatnonzero(detections.labels == c)
        ignored = own.ignored | ~_within(own.areas, sizes)
        totals[i] = int((~ignored).sum())
        if not len(given):
            continue
        order = given[np.argsort(-detections.scores[given], kind="stable")][:most]
        corners = np.asarray(detections.corners[order], np.float64)
        of = matched_boxes(own, ignored, corners, thresholds)
        matched = of >= 0
        passed = matched & np.append(ignored, False)[of]
        passed |= ~matched & ~_within(areas(corners), sizes)
        scores.append(np.asarray(detections.scores[order], np.float64))
        rows.append(np.full(len(order), i))
        hits.append(matched & ~passed)
        misses.append(~matched & ~passed)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return ClassMatches(
        np.concatenate(rows)[order],
        np.concatenate(hits, axis=1)[:, order],
        np.concatenate(misses, axis=1)[:, order],
        totals,
    )


def _within(sizes: Doubles, limits: tuple[float, float]) -> Flags:
    return np.asarray((sizes >= limits[0]) & (sizes <= limits[1]))


def matched_boxes(
    own: ExampleBoxes, ignored: Flags, corners: Doubles, thresholds: Doubles = THRESHOLDS
) -> NDArray[np.int64]:
    """Return (T, D) the number of the box that each detection of one class has, -1 for none.

    own: the boxes of the class, of which `ignored` are not to be found. corners: by falling score.
    A box is taken once, but a crowd or difficult box any number of times; boxes to find come before
    ignored ones, and among equal overlaps the last box is taken.
    """
    of = np.full((len(thresholds), len(corners)), -1)
    shares = overlaps(corners, own.corners, own.crowd)
    least = np.minimum(thresholds, 1 - 1e-10)
    taken = np.zeros((len(thresholds), len(own)), bool)
    every = np.arange(len(thresholds))
    for d in np.flatnonzero((shares >= least.min()).any(axis=1)).tolist():
        free = (shares[d] >= least[:, None]) & (~taken | own.ignored)
        for kind in (~ignored, ignored):
            offered = np.where(free & kind, shares[d], -1.0)
            best = len(own) - 1 - offered[:, ::-1].argmax(axis=1)
            got = (offered[every, best] >= 0) & (of[:, d] < 0)
            taken[every[got], best[got]] = True
            of[got, d] = best[got]
    return of
