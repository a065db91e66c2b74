"""Which detections are wrong and why, and what each kind of error costs.

The kinds are those of Bolya, Foley, Hays, Hoffman 2020, TIDE: A general toolbox for identifying
object detection errors, section 3, with its limits of the intersection over union: FOREGROUND and
BACKGROUND. N is the number of examples, D of detections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.targets.box_matching import (
    MAX_DETECTIONS,
    ClassMatches,
    Detections,
    Flags,
    matched_boxes,
)
from headstart.targets.box_values import BoxLabels, ExampleBoxes, overlaps

Numbers = NDArray[np.int64]
Statistic = Callable[[Numbers], float]  # of numbers of examples, with repetitions
FOREGROUND, BACKGROUND = 0.5, 0.1
# class: a detection overlaps a box of another class by FOREGROUND. location: it overlaps a box of
# its class by BACKGROUND, but not by FOREGROUND. both: it overlaps so a box of another class.
# duplicate: a detection of a higher score has its box already. background: it overlaps no box by
# BACKGROUND. missed: a box about which no detection is right, or would be with another class or
# place.
KINDS = ("class", "location", "both", "duplicate", "background", "missed")
CLASS, LOCATION, BOTH, DUPLICATE, NOTHING, MISSED = range(len(KINDS))
RIGHT, PASSED = -1, -2  # a right detection, and one of a crowd or difficult box
MEANT = (RIGHT, CLASS, LOCATION)  # of detections that have, or nearly have, a box


@dataclass(frozen=True, eq=False)
class JudgedBoxes:
    """The detections of N examples by falling score, and what each is.

    rows, corners, scores, labels, kinds: (D,), corners (D, 4); kinds are RIGHT, PASSED or numbers
    in KINDS. boxes: (D,) the number in `truth.boxes` of the box that a detection of a kind
    in MEANT is about, else -1.
    """

    truth: BoxLabels
    classes: int
    rows: Numbers
    corners: NDArray[np.floating]
    scores: NDArray[np.float64]
    labels: Numbers
    kinds: Numbers
    boxes: Numbers

    @classmethod
    def of(cls, truth: BoxLabels, found: Sequence[Detections], classes: int) -> "JudgedBoxes":
        """Judge detections by the true boxes; no detection is cut off by its score."""
        parts = [_judged(truth[i], one) for i, one in enumerate(found)]
        sizes = [len(order) for order, *_ in parts]
        rows = np.repeat(np.arange(len(found)), np.array(sizes, np.int64))
        whole = [_taken(one, order) for one, (order, *_) in zip(found, parts, strict=True)]
        scores = np.concatenate([np.zeros(0), *(one.scores for one in whole)])
        corners = np.concatenate([np.zeros((0, 4)), *(one.corners for one in whole)])
        nothing = np.zeros(0, np.int64)
        kinds = np.concatenate([nothing, *(part[1] for part in parts)])
        own = np.concatenate([nothing, *(part[2] for part in parts)])
        own = np.where(own >= 0, own + truth.offsets[rows], -1)
        by = np.argsort(-scores, kind="stable")
        labels = np.concatenate([nothing, *(one.labels for one in whole)])
        each: Any = (values[by] for values in (rows, corners, scores, labels, kinds, own))
        return cls(truth, classes, *each)

    def reaching(self, thresholds: Sequence[float]) -> Flags:
        """Return (D,) which detections reach the threshold of their class."""
        return np.asarray(self.scores >= np.array([*thresholds, np.inf])[self.labels])

    def missed(self, kept: Flags) -> Flags:
        """Return (M,) which boxes are missed, if only some detections count."""
        about = self.boxes[kept & np.isin(self.kinds, MEANT)]
        lost = ~self.truth.boxes.ignored
        lost[about] = False
        return lost

    def of_class(self, c: int, kept: Flags) -> tuple[Statistic, Statistic, Statistic]:
        """Return precision, recall and F1 of a class, if only some detections count; NaN where
        nothing is divided by."""
        own, n, truth = kept & (self.labels == c), len(self.truth), self.truth
        asked = ~truth.boxes.ignored & (truth.boxes.labels == c)
        right, given, there = (
            np.bincount(rows, minlength=n)
            for rows in (
                self.rows[own & (self.kinds == RIGHT)],
                self.rows[own & (self.kinds >= RIGHT)],
                truth.rows[asked],
            )
        )
        return _share(right, given), _share(right, there), _share(2 * right, given + there)

    def by_row(self, kept: Flags) -> Numbers:
        """Return (N, 6) the errors of each kind in each example, if only some detections count."""
        counts = np.zeros((len(self.truth), len(KINDS)), np.int64)
        own = kept & (self.kinds >= 0)
        np.add.at(counts, (self.rows[own], self.kinds[own]), 1)
        np.add.at(counts[:, MISSED], self.truth.rows[self.missed(kept)], 1)
        return counts

    def cost(self, kind: int) -> float:
        """Return how much the mean average precision at FOREGROUND would gain without a kind of
        error: detections are set right, or else left out; missed boxes are not asked for."""
        return self._precision(kind) - self._plain

    @cached_property
    def _plain(self) -> float:
        return self._precision(None)

    def _precision(self, fixed: int | None) -> float:
        labels, kinds, asked = self.labels.copy(), self.kinds.copy(), ~self.truth.boxes.ignored
        if fixed == MISSED:
            asked &= ~self.missed(np.ones(len(kinds), bool))
        elif fixed is not None:
            wrong = kinds == fixed
            kinds[wrong] = PASSED
            first = self._first(np.flatnonzero(wrong & (self.boxes >= 0)))
            kinds[first] = RIGHT
            labels[first] = self.truth.boxes.labels[self.boxes[first]]
        return _mean_precision(self, labels, kinds, asked)

    def _first(self, wrong: Numbers) -> Numbers:
        """Return the first of these detections about each box that no detection has."""
        free = wrong[~np.isin(self.boxes[wrong], self.boxes[self.kinds == RIGHT])]
        return free[np.unique(self.boxes[free], return_index=True)[1]]


def _share(part: Numbers, whole: Numbers) -> Statistic:
    def statistic(rows: Numbers) -> float:
        total = whole[rows].sum()
        return float(part[rows].sum() / total) if total else np.nan

    return statistic


def _mean_precision(judged: JudgedBoxes, labels: Numbers, kinds: Numbers, asked: Flags) -> float:
    truth, values = judged.truth, list[float]()
    for c in range(judged.classes):
        own, mine = labels == c, asked & (truth.boxes.labels == c)
        totals = np.bincount(truth.rows[mine], minlength=len(truth))
        hits, misses = (kinds[own] == RIGHT)[None], (kinds[own] >= 0)[None]
        value = ClassMatches(judged.rows[own], hits, misses, totals).average_precision()
        values += [] if value is None else [float(value[0])]
    return float(np.mean(values)) if values else 0.0


def _judged(boxes: ExampleBoxes, found: Detections) -> tuple[Numbers, Numbers, Numbers]:
    """Return the order of the detections of one example, their kinds, and the boxes they mean."""
    order = _scored(found)
    corners = np.asarray(found.corners[order], np.float64)
    labels = found.labels[order].astype(np.int64)
    has = _matches(boxes, corners, labels)
    shares = overlaps(corners, boxes.corners, boxes.crowd)
    shares = np.where(boxes.ignored, 0.0, shares)
    alike = labels[:, None] == boxes.labels[None]
    own, other = (_best(np.where(mask, shares, 0.0)) for mask in (alike, ~alike))
    kinds = np.select(
        [
            np.append(boxes.ignored, False)[has],
            has >= 0,
            own[1] >= FOREGROUND,
            other[1] >= FOREGROUND,
            own[1] >= BACKGROUND,
            other[1] >= BACKGROUND,
        ],
        [PASSED, RIGHT, DUPLICATE, CLASS, LOCATION, BOTH],
        NOTHING,
    )
    about = [kinds == RIGHT, kinds == CLASS, kinds == LOCATION]
    meant = np.select(about, [has, other[0], own[0]], -1)
    return order, kinds.astype(np.int64), meant.astype(np.int64)


def _taken(found: Detections, order: Numbers) -> Detections:
    return Detections(found.corners[order], found.scores[order], found.labels[order])


def _scored(found: Detections) -> Numbers:
    """Return the detections that are scored, as `match` orders them: by falling score."""
    order = np.argsort(-np.asarray(found.scores, np.float64), kind="stable")
    seen, kept = dict[int, int](), list[int]()
    for d in order.tolist():
        c = int(found.labels[d])
        seen[c] = seen.get(c, 0) + 1
        kept += [d] if seen[c] <= MAX_DETECTIONS else []
    return np.array(kept, np.int64)


def _matches(boxes: ExampleBoxes, corners: NDArray[np.float64], labels: Numbers) -> Numbers:
    """Return (D,) the box that each detection has, -1 for none."""
    has = np.full(len(labels), -1)
    for c in np.unique(labels).tolist():
        given, mine = np.flatnonzero(labels == c), np.flatnonzero(boxes.labels == c)
        own = boxes.take(mine)
        of = matched_boxes(own, own.ignored, corners[given], np.array([FOREGROUND]))[0]
        has[given] = np.where(of >= 0, np.append(mine, -1)[of], -1)
    return has


def _best(shares: NDArray[np.float64]) -> tuple[Numbers, NDArray[np.float64]]:
    """Return for each row of (D, M) the place and the value of the largest number."""
    if not shares.shape[1]:
        return np.full(len(shares), -1), np.zeros(len(shares))
    return shares.argmax(axis=1), shares.max(axis=1)
