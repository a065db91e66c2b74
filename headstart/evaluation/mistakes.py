"""Rows to review: labels that are likely wrong, and outliers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record
from headstart.features.extract import FeatureTable
from headstart.heads.fit import answers_out_of_fold, out_of_fold
from headstart.heads.head import FeatureRows, blocks
from headstart.heads.nearest import unit
from headstart.heads.specs import HeadSpec, LogisticSpec
from headstart.models.distance import NEIGHBOUR, distance_of_kth

SUSPECTS, OUTLIERS = 24, 12  # rows listed
BLOCK = 512  # rows compared with all others at once


@dataclass(frozen=True)
class Mistake(Record):
    """A row whose label is likely wrong. score: of the suggested class."""

    path: str
    label: str
    suggested: str
    score: float


@dataclass(frozen=True)
class Mistakes(Record):
    """found: suspects among the `of` rows with out-of-fold scores. rows: the likeliest ones."""

    found: int
    of: int
    rows: tuple[Mistake, ...]


@dataclass(frozen=True)
class RowError(Record):
    """A row whose label is far from the answer of a head that was fitted without the row."""

    path: str
    label: str
    answer: str


@dataclass(frozen=True)
class RowErrors(Record):
    """rows: those with the largest losses among `of` rows with out-of-fold answers."""

    of: int
    rows: tuple[RowError, ...]


@dataclass(frozen=True)
class Outlier(Record):
    """A row far from all others. nearest: the path of the nearest row."""

    path: str
    label: str
    distance: float
    nearest: str


def mistakes(
    l2: float, table: FeatureTable, seed: int = 0, rows: FeatureRows | None = None
) -> Mistakes | None:
    """Find rows whose label is likely wrong, likeliest first; None if no row has a fold's score.

    rows: those of the table with other columns, on which heads are fitted.
    """
    scores = out_of_fold(LogisticSpec(l2=(l2,)), rows or table, np.random.default_rng(seed))
    judged = np.flatnonzero(~np.isnan(scores).any(axis=1))
    if not len(judged):
        return None
    suspects = suspicious(scores[judged], table.y[judged])
    listed, best, top = judged[suspects[:SUSPECTS]], scores.argmax(axis=1), scores.max(axis=1)
    found = (
        Mistake(table.ids[i], table.classes[table.y[i]], table.classes[best[i]], float(top[i]))
        for i in listed
    )
    return Mistakes(len(suspects), len(judged), tuple(found))


def row_errors(
    spec: HeadSpec, table: FeatureTable, seed: int = 0, rows: FeatureRows | None = None
) -> RowErrors | None:
    """Find the rows farthest from the answers of a head fitted without them; None for few rows.

    spec: of a head that is fitted without epochs, with a single setting. rows: as for `mistakes`.
    """
    answers = answers_out_of_fold(spec, rows or table, np.random.default_rng(seed))
    if answers is None:
        return None
    whole = [~np.isnan(v.reshape(len(v), -1).astype(float)).any(axis=1) for v in answers.values()]
    asked = np.flatnonzero(np.all(whole, axis=0) & table.target.known(table.y))
    own = table.target.activate(np.zeros((0, table.target.outputs), np.float32))
    held = {name: values[asked].astype(own[name].dtype) for name, values in answers.items()}
    losses = table.target.row_losses(held, table.y[asked])
    answered = next(iter(table.target.columns(held).values()))
    labels = table.target.decode(table.y[asked])
    return RowErrors(
        len(asked),
        tuple(
            RowError(table.ids[asked[i]], labels[i], _text(answered[i]))
            for i in np.argsort(-losses, kind="stable")[:SUSPECTS]
        ),
    )


def _text(answer: Any) -> str:
    plain = answer.item() if hasattr(answer, "item") else answer
    return f"{plain:.4g}" if isinstance(plain, float) else str(plain)


def suspicious(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the rows that confident learning calls mislabelled, likeliest first.

    scores: (N, C) out-of-fold probabilities. For each pair (label, other class), `noise` estimates
    how many rows are mislabelled; as many rows are suspected: those with the largest score of the
    other class minus that of the label (Northcutt, Jiang, Chuang 2021, Confident learning,
    eq. 1-3, pruned by noise rate).
    """
    expected, found = noise(scores, labels), np.zeros(len(labels), bool)
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    wrong = wrong[np.argsort(labels[wrong], kind="stable")]
    ends = np.searchsorted(labels[wrong], np.arange(scores.shape[1] + 1))
    for label, other in zip(*np.nonzero(expected), strict=True):
        rows = wrong[ends[label] : ends[label + 1]]
        more = scores[rows, other] - scores[rows, label]
        found[rows[np.argsort(-more, kind="stable")[: expected[label, other]]]] = True
    order = np.argsort(margins(scores, labels), kind="stable")
    return order[found[order]]


def noise(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.int64]:  # (C, C)
    """Estimate how many rows of each label (first axis) are of each other class (second axis)."""
    classes = scores.shape[1]
    sizes = np.bincount(labels, minlength=classes)
    usual = [scores[labels == c, c].mean() if sizes[c] else np.inf for c in range(classes)]
    sure = np.where(scores >= usual, scores, -1.0)
    counted = sure.max(axis=1) > 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], sure.argmax(axis=1)[counted]), 1)
    joint *= (sizes / np.maximum(joint.sum(axis=1), 1))[:, None]  # extrapolate to uncounted rows
    np.fill_diagonal(joint, 0)
    return np.rint(joint).astype(np.int64)


def margins(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[Any]:  # (N, C) -> (N,)
    """Return the score of each row's label minus the best score of another class."""
    own = scores[np.arange(len(labels)), labels]
    others = scores.copy()
    others[np.arange(len(labels)), labels] = -1.0
    return own - others.max(axis=1)


def outliers(table: FeatureTable, most: int = 0, seed: int = 0) -> tuple[Outlier, ...] | None:
    """Find the rows farthest from all others, farthest first; None for too few rows.

    most: rows looked at, drawn at random; 0 for all. The work grows with their square.
    """
    if len(table.y) <= NEIGHBOUR + 1:
        return None
    picked = np.arange(len(table.y))
    if 0 < most < len(picked):
        picked = np.sort(np.random.default_rng(seed).permutation(picked)[:most])
    x, away, nearest = unit(table.x[picked]), np.empty(len(picked)), np.empty(len(picked), np.intp)
    for rows in blocks(len(x), BLOCK):
        alike = x[rows] @ x.T
        alike[np.arange(len(alike)), np.arange(rows.start, rows.stop)] = -np.inf
        nearest[rows], away[rows] = alike.argmax(axis=1), distance_of_kth(alike, NEIGHBOUR)
    labels, ids = table.target.decode(table.y[picked]), [table.ids[row] for row in picked]
    return tuple(
        Outlier(ids[row], labels[row], float(away[row]), ids[nearest[row]])
        for row in np.argsort(-away, kind="stable")[:OUTLIERS]
    )
