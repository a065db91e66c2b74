"""Rows to look at again: labels that are likely wrong, and outliers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record
from headstart.features.extract import FeatureTable
from headstart.heads.fit import out_of_fold
from headstart.heads.head import blocks
from headstart.heads.nearest import unit
from headstart.heads.specs import LogisticSpec
from headstart.models.distance import NEIGHBOUR, distance_of_kth

SUSPECTS, OUTLIERS = 24, 12  # rows that are named
BLOCK = 512  # rows compared with all others at once


@dataclass(frozen=True)
class Mistake(Record):
    """A row whose label is likely wrong. score: of the class that is suggested instead."""

    path: str
    label: str
    suggested: str
    score: float


@dataclass(frozen=True)
class Mistakes(Record):
    """found: suspects among the `of` rows that could be judged. rows: the likeliest of them."""

    found: int
    of: int
    rows: tuple[Mistake, ...]


@dataclass(frozen=True)
class Outlier(Record):
    """A row far from all others. nearest: the path of the row that is least far."""

    path: str
    label: str
    distance: float
    nearest: str


def mistakes(l2: float, table: FeatureTable, seed: int = 0) -> Mistakes | None:
    """Rows whose label is likely wrong, the likeliest first; None if no fold can judge."""
    scores = out_of_fold(LogisticSpec(l2=(l2,)), table, np.random.default_rng(seed))
    judged = np.flatnonzero(~np.isnan(scores).any(axis=1))
    if not len(judged):
        return None
    suspects = suspicious(scores[judged], table.y[judged])
    rows = tuple(_mistake(table, row, scores[row]) for row in judged[suspects[:SUSPECTS]])
    return Mistakes(len(suspects), len(judged), rows)


def _mistake(table: FeatureTable, row: int, scores: NDArray[Any]) -> Mistake:
    label, suggested = table.classes[table.y[row]], table.classes[int(scores.argmax())]
    return Mistake(table.ids[row], label, suggested, float(scores.max()))


def suspicious(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Which rows confident learning calls mislabelled, the likeliest first.

    scores: (N, C), of heads that were not fitted on the row. Rows that score for a class as much as
    its own do on average are counted as truly of it, by what they are labelled; of each label as
    many rows are suspected as that says are of another class, those that score most for it beside
    their own (Northcutt, Jiang, Chuang 2021, Confident learning, eq. 1-3, pruned by noise rate).
    """
    expected, found = noise(scores, labels), np.zeros(len(labels), bool)
    for label, other in zip(*np.nonzero(expected), strict=True):
        rows = np.flatnonzero((labels == label) & (scores.argmax(axis=1) != label))
        more = scores[rows, other] - scores[rows, label]
        found[rows[np.argsort(-more, kind="stable")[: expected[label, other]]]] = True
    order = np.argsort(margins(scores, labels), kind="stable")
    return order[found[order]]


def noise(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.int64]:  # (C, C)
    """How many rows of each label are likely of another class; 0 on the diagonal."""
    classes = scores.shape[1]
    sizes = np.bincount(labels, minlength=classes)
    usual = [scores[labels == c, c].mean() if sizes[c] else np.inf for c in range(classes)]
    sure = np.where(scores >= usual, scores, -1.0)
    counted = sure.max(axis=1) > 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], sure.argmax(axis=1)[counted]), 1)
    joint *= (sizes / np.maximum(joint.sum(axis=1), 1))[:, None]  # those not counted are alike
    np.fill_diagonal(joint, 0)
    return np.rint(joint).astype(np.int64)


def margins(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[Any]:  # (N, C) -> (N,)
    """How much more a row's own class scores than the best of the others."""
    own = scores[np.arange(len(labels)), labels]
    others = scores.copy()
    others[np.arange(len(labels)), labels] = -1.0
    return own - others.max(axis=1)


def outliers(table: FeatureTable) -> tuple[Outlier, ...] | None:
    """The rows farthest from all others, the farthest first; None for too few rows."""
    if len(table.y) <= NEIGHBOUR + 1:
        return None
    x, away, nearest = unit(table.x), np.empty(len(table.y)), np.empty(len(table.y), np.intp)
    for rows in blocks(len(x), BLOCK):
        alike = x[rows] @ x.T
        alike[np.arange(len(alike)), np.arange(rows.start, rows.stop)] = -np.inf
        nearest[rows], away[rows] = alike.argmax(axis=1), distance_of_kth(alike, NEIGHBOUR)
    return tuple(
        Outlier(
            table.ids[row], table.classes[table.y[row]], float(away[row]), table.ids[nearest[row]]
        )
        for row in np.argsort(-away, kind="stable")[:OUTLIERS]
    )
