"""Classification metrics with their effective sample sizes.

A share of rows has Wilson's interval. So has a metric between 0 and 1 that is not a share
(balanced accuracy, macro F1, AUROC), at its *effective* sample size: the number of rows at which a
share of the same value has the same variance (Korn and Graubard 1998; Franco, Little, Louis, Slud
2019). Variances hold the class counts fixed, as a stratified split does. Unlike a bootstrap
percentile, Wilson's interval does not shrink to a point when there is no error.
"""

import numpy as np
from numpy.typing import NDArray

from headstart.targets.metrics import (
    Floats,
    Ints,
    balanced_accuracy,
    f1s,
    macro_f1,
    ranked_columns,
    rankings,
)
from headstart.targets.target import Share


def balanced_accuracy_metric(table: NDArray[np.int64]) -> Share | None:
    if not (n := table.sum(axis=1)).any():
        return None
    likely = _smoothed(table)
    worth = np.diag(1.0 / (np.maximum(n, 1) * (n > 0).sum()))
    size = effective_size(balanced_accuracy(likely), _table_variance(likely, worth))
    return Share(balanced_accuracy(table), int(n.sum()), size)


def macro_f1_metric(table: NDArray[np.int64]) -> Share | None:
    """Return macro F1, its variance by the delta method (as in Takahashi et al. 2022).

    A row of class i predicted as j moves the mean by [2 (i = j) - F1_j] / (n_j + m_j) / K, where
    n_j rows are of class j and m_j are predicted as j.
    """
    if not (n := table.sum(axis=1)).any():
        return None
    likely = _smoothed(table)
    called = np.maximum(n + likely.sum(axis=0), 1e-9)
    worth = (2 * np.eye(len(n)) - np.nan_to_num(f1s(likely))) / called / (n > 0).sum()
    worth[:, n == 0] = 0.0
    size = effective_size(macro_f1(likely), _table_variance(likely, worth))
    return Share(macro_f1(table), int(n.sum()), size)


def auroc_metric(scores: Floats, labels: Ints) -> Share | None:
    """Return the mean AUROC of the classes; the rankings are made one after the other."""
    columns = ranked_columns(scores, labels)
    if not columns:
        return None
    values, sizes, worth = list[float](), list[float](), np.zeros(len(labels))
    for r in rankings(scores, labels):
        values.append(r.auroc)
        own, others = int(r.own.sum()), int((~r.own).sum())
        worth += r.placements / np.where(r.own, own, others) / len(columns)
        sizes.append(4 * own * others / (own + others + 2))
    value = float(np.mean(values))
    return Share(value, len(labels), _auroc_size(sizes, worth, labels, value))


def class_cells(
    table: NDArray[np.int64], c: int
) -> tuple[int, Share | None, Share | None, Share | None]:
    """Return the rows of class c, its precision, recall and F1; None where undefined."""
    return cells_of(int(table[c].sum()), int(table[:, c].sum()), int(table[c, c]))


def cells_of(
    n: int, called: int, right: int
) -> tuple[int, Share | None, Share | None, Share | None]:
    """Return rows, precision, recall and F1 of a class, as `class_cells` does.

    n: rows of the class. called: rows that are predicted as the class, `right` of them rightly.
    """
    if n == 0:
        return 0, None, None, None
    either = n + called - right
    return n, _share(right, called), Share(right / n, n), Share(right / either, either, scale=_f1)


def _share(right: int, n: int) -> Share | None:
    return Share(right / n, n) if n else None


def _f1(j: float) -> float:
    """Return F1 of the Jaccard index TP / (TP + FP + FN); increasing, so that it maps intervals."""
    return 2 * j / (1 + j)


def _smoothed(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the table with two right and two wrong rows added per class, row sums kept.

    No variance is then 0 for lack of errors (Agresti and Coull 1998).
    """
    n, classes = table.sum(axis=1, keepdims=True), len(table)
    more = np.full((classes, classes), 2 / max(classes - 1, 1))
    np.fill_diagonal(more, 2)
    return (table + more) * n / (n + more.sum(axis=1, keepdims=True))


def effective_size(value: float, variance: float) -> float:
    """Return the number of rows at which a share of this value has this variance."""
    return value * (1 - value) / variance if variance > 0 else np.inf


def _table_variance(table: NDArray[np.float64], worth: NDArray[np.float64]) -> float:
    """Return the variance of the sum of `worth` (C, C), each table row a multinomial draw."""
    n = table.sum(axis=1)
    share = table / np.maximum(n, 1e-9)[:, None]
    means = (share * worth).sum(axis=1)
    return float((n * ((share * worth**2).sum(axis=1) - means**2)).sum())


def _auroc_size(
    sizes: list[float], worth: NDArray[np.float64], labels: Ints, value: float
) -> float:
    """Return the effective size of the AUROC, by DeLong's placements summed over the classes.

    Their variance is too small for few rows, and 0 for a perfect ranking. So it is averaged, with
    the weight of the rarest class's rows, with the variance of nearly perfect curves of exponential
    scores (Hanley and McNeil 1982), with the weight of 4 rows; an AUROC of 0 or 1 takes the latter.

    sizes: of each class. worth: (N,) the placements of each row, summed over the classes.
    """
    usual = min(len(sizes) ** 2 / float((1.0 / np.array(sizes)).sum()), len(labels))
    if value in (0.0, 1.0):
        return usual
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    spread = fewest * _variance_of_sum(worth, labels) + 4 * value * (1 - value) / usual
    return effective_size(value, spread / (fewest + 4))


def _variance_of_sum(worth: NDArray[np.float64], labels: Ints) -> float:
    """Return the variance of the sum of `worth` (N,) over samples with fixed class counts."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.unique(labels, return_counts=True)[1])[:-1]
    groups = np.split(worth[order], ends)
    return float(sum(len(g) * g.var(ddof=1) for g in groups if len(g) > 1))
