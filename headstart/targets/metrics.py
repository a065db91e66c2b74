"""Classification metrics of arrays. Drop rows with unknown labels (-1) first.

`scores` are (N, C) probabilities, `labels` and `predicted` (N,) class numbers, and `confusion` is
(C, C): the number of rows of class i predicted as j. A metric without rows is NaN; averages over
classes leave out classes without rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import UnknownName

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
ClassWeights = Literal["none", "balanced"] | Mapping[str, float]  # a weight by the class's name
Counts = NDArray[np.number[Any]]  # expected counts may be fractions
CELLS = 2**20  # numbers of a block of rows, 8 MiB
LEAST = float(np.finfo(np.float32).eps)  # log losses clip probabilities at this


def wilson_bounds(share: Any, n: Any, z: float) -> tuple[Any, Any]:
    """Return Wilson's score interval (1927) of shares of n rows, at z standard deviations."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def softmax(logits: Floats, kind: type = np.float64) -> NDArray[Any]:  # (N, C) -> (N, C)
    """Return probabilities computed in double precision, as numbers of `kind`.

    Rows are taken a block at a time: with thousands of classes the steps between take more memory
    than the logits.
    """
    out: NDArray[Any] = np.empty(logits.shape, kind)
    for some in row_blocks(logits):
        rows = logits[some]
        exps = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
        out[some] = exps / exps.sum(axis=1, keepdims=True)
    return out


def row_blocks(values: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of the rows of (N, C) values, each of about CELLS cells."""
    size = max(1, CELLS // max(1, values.shape[1]))
    yield from (slice(start, start + size) for start in range(0, len(values), size))


def accuracy(scores: Floats, labels: Ints) -> float:
    return float(np.mean(scores.argmax(axis=1) == labels)) if len(labels) else np.nan


def balanced_accuracy(confusion: Counts) -> float:
    """Return the mean recall of the classes."""
    return _mean(recalls(confusion))


def macro_f1(confusion: Counts) -> float:
    """Return the mean F1 of the classes."""
    return _mean(f1s(confusion))


def log_losses(scores: Floats, labels: Ints) -> NDArray[np.float64]:  # (N,)
    """Return -log of the probability of each row's class in nats, at most -log(LEAST) = 15.9."""
    own = scores[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(own, LEAST))


def log_loss(scores: Floats, labels: Ints) -> float:
    """Return the mean of `log_losses`."""
    return _mean(log_losses(scores, labels))


def confusion(predicted: Ints, labels: Ints, classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix.

    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    cells = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def recalls(confusion: Counts) -> NDArray[np.float64]:  # (C,)
    """Return TP / (TP + FN) of each class."""
    return _share(confusion.diagonal(), confusion.sum(axis=1))


def f1s(confusion: Counts) -> NDArray[np.float64]:  # (C,)
    """Return 2 TP / (2 TP + FP + FN) of each class; NaN for a class without rows."""
    n = confusion.sum(axis=1)
    f1 = _share(2 * confusion.diagonal(), n + confusion.sum(axis=0))
    return np.where(n > 0, f1, np.nan)


@dataclass(frozen=True, eq=False)
class Ranking:
    """How one class's score ranks the class's rows above the other rows.

    own: whether a row is of the class. placements: for a row of the class, the share of the other
    rows that score lower; for another row, the share of the class's rows that score higher; ties
    count half (DeLong, DeLong, Clarke-Pearson 1988).
    """

    own: NDArray[np.bool_]  # (N,)
    placements: NDArray[np.float64]  # (N,)

    @property
    def auroc(self) -> float:
        return float(self.placements[self.own].mean())


def ranked_columns(scores: Floats, labels: Ints) -> list[int]:
    """Return the classes that have a ranking: with positive and negative rows; of two classes the
    last."""
    counts = np.bincount(labels, minlength=scores.shape[1])
    columns = range(scores.shape[1]) if scores.shape[1] > 2 else [scores.shape[1] - 1]
    return [c for c in columns if 0 < counts[c] < len(labels)]


def rankings(scores: Floats, labels: Ints) -> Iterator[Ranking]:
    """Yield the ranking of each of the `ranked_columns`."""
    for c in ranked_columns(scores, labels):
        own = labels == c
        yield Ranking(own, _placements(scores[:, c], own))


def weight_of_classes(
    how: ClassWeights,
    y: NDArray[np.int64],
    classes: Sequence[str],
    case: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return (C,) class weights, whose mean over rows is 1.

    how: "balanced" gives all classes with rows the same total weight; a mapping gives weights by
    class name, 1 for the others, and UnknownName if a name is not in `classes`. case: (N,) case
    weights, by which rows are counted; None for 1 each.
    """
    counts = np.bincount(y, case, minlength=len(classes))
    rows = float(counts.sum())
    if how == "none":
        return np.ones(len(classes))
    if isinstance(how, Mapping):
        for name in how.keys() - set(classes):
            raise UnknownName("class that has a weight", name, classes)
        weights = np.array([float(how.get(name, 1.0)) for name in classes])
        return weights * rows / float(counts @ weights) if rows else weights
    there = counts > 0
    return np.where(there, rows / (there.sum() * np.where(there, counts, 1.0)), 1.0)


def _placements(scores: Floats, own: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of the other rows below each own row, and of own rows above each other row.

    Only the own rows, often few, are sorted: the others are looked up among them.
    """
    placements = np.empty(len(scores))
    values, back = np.unique(scores[own], return_inverse=True)
    others, n_own, n_others = scores[~own], int(own.sum()), int((~own).sum())
    above, reached = (np.searchsorted(values, others, side=side) for side in ("right", "left"))
    below, up_to = (
        np.cumsum(np.bincount(place, minlength=len(values) + 1))[: len(values)]
        for place in (above, reached)
    )
    placements[own] = ((below + up_to) / 2)[back] / n_others
    counts = np.concatenate([[0], np.cumsum(np.bincount(back, minlength=len(values)))])
    placements[~own] = 1.0 - (counts[above] + counts[reached]) / 2 / n_own
    return placements


def midranks(values: Floats) -> NDArray[np.float64]:
    """Return ranks from 1; ties share the mean of their ranks.

    >>> midranks(np.array([5.0, 1.0, 5.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _share(part: Counts, whole: Counts) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan
