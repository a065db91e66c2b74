"""Metrics of several labels per row. Drop rows with unknown labels first.

`scores` are (N, L) probabilities, `y` and `called` (N, L) whether a row has, or is given, a label.
A metric that no row determines is NaN; means over labels leave out labels that no row has.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.targets.metrics import Counts, Floats

Bools = NDArray[np.bool_]
Statistic = Callable[[NDArray[np.int64]], float]  # of row numbers, which may repeat
FEWEST = 5  # rows with a label from which its threshold is chosen


@dataclass(frozen=True, eq=False)
class RankedRows:
    """The rows sorted by one label's score, so that a resample of rows needs no sorting."""

    order: NDArray[np.int64]  # (N,) row numbers, the highest score first
    own: NDArray[np.float64]  # (N,) 1 where the row has the label, in this order
    last: NDArray[np.int64]  # places of the last row of each score: ties are one step

    @classmethod
    def of(cls, scores: Floats, y: Bools) -> "RankedRows":
        order = np.argsort(-scores, kind="stable")
        steps = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        return cls(order, y[order].astype(np.float64), steps[: len(order)])

    def average_precision(self, weights: Counts) -> float:
        """Return the mean precision at each step of recall; weights: (N,) by row number.

        The sum of (R_k - R_k-1) P_k over the distinct scores, as scikit-learn's
        `average_precision_score`; NaN if no row has the label.
        """
        w = weights[self.order].astype(np.float64)
        right, seen = np.cumsum(w * self.own)[self.last], np.cumsum(w)[self.last]
        if not len(right) or right[-1] == 0:
            return float("nan")
        precision = right / np.where(seen > 0, seen, 1.0)
        return float(np.sum(np.diff(right, prepend=0.0) * precision) / right[-1])


def ranked(scores: Floats, y: Bools) -> list[RankedRows]:
    """Return the ranking by each label."""
    return [RankedRows.of(scores[:, c], y[:, c]) for c in range(y.shape[1])]


def mean_average_precision(rankings: list[RankedRows], n: int) -> Statistic:
    """Return the statistic of n rows: the mean of the labels' average precisions."""

    def of(rows: NDArray[np.int64]) -> float:
        weights = np.bincount(rows, minlength=n)
        return mean_of(np.array([r.average_precision(weights) for r in rankings]))

    return of


def average_precision(ranking: RankedRows, n: int) -> Statistic:
    return mean_average_precision([ranking], n)


def f1_micro(called: Bools, y: Bools) -> Statistic:
    """Return the statistic of rows: F1 of all labels together, 2 TP / (2 TP + FP + FN)."""
    hits, both = 2.0 * (called & y).sum(axis=1), (called.sum(axis=1) + y.sum(axis=1)).astype(float)

    def of(rows: NDArray[np.int64]) -> float:
        return float(hits[rows].sum() / total) if (total := both[rows].sum()) else float("nan")

    return of


def f1_macro(called: Bools, y: Bools) -> Statistic:
    """Return the statistic of rows: the mean F1 of the labels that a row has."""
    hits, both = 2.0 * (called & y), called.astype(np.float64) + y

    def of(rows: NDArray[np.int64]) -> float:
        weights = np.bincount(rows, minlength=len(y)).astype(np.float64)
        there, total = weights @ y, weights @ both
        return mean_of(np.where(there > 0, weights @ hits / np.maximum(total, 1.0), np.nan))

    return of


def jaccard(called: Bools, y: Bools) -> NDArray[np.float64]:  # (N,)
    """Return each row's share of right labels among those that it has or is given; 1 for none."""
    either = (called | y).sum(axis=1)
    return np.where(either > 0, (called & y).sum(axis=1) / np.maximum(either, 1), 1.0)


def best_threshold(scores: Floats, y: Bools) -> float:
    """Return the threshold with the highest F1 of one label; ties go to the one nearest to 0.5.

    scores, y: (N,) of rows that the model was not fitted on. A row is given the label if its score
    is the threshold or more. The threshold is 0.5 if fewer than FEWEST rows have the label.
    """
    if y.sum() < FEWEST:
        return 0.5
    values, place = np.unique(scores.astype(np.float64), return_inverse=True)
    own = np.bincount(place, weights=y)[::-1]  # by distinct score, the highest first
    every = np.bincount(place).astype(np.float64)[::-1]
    f1 = 2 * np.cumsum(own) / (np.cumsum(every) + y.sum())
    upper = values[::-1]
    lower = np.append(upper[1:], min(0.0, upper[-1]))  # any threshold above `lower` calls the same
    middle = (upper + lower) / 2
    middle = np.where((lower < 0.5) & (upper >= 0.5), 0.5, middle)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middle[best][np.abs(middle[best] - 0.5).argmin()])


def mean_of(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN, NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
