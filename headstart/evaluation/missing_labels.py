"""Objects of a run's rows that were probably never labelled: the content of insights.json."""

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.base.values import Record
from headstart.evaluation.missing_boxes import LISTED, likely_missing
from headstart.targets.boxes import BoxesTarget
from headstart.targets.predictions import Predictions


@dataclass(frozen=True)
class MissingLabel(Record):
    """A confident detection where no box is labelled. label: its class. box: corners in pixels of
    the upright example."""

    path: str
    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class MissingLabels(Record):
    """rows: the likeliest ones in `of` examples."""

    of: int
    rows: tuple[MissingLabel, ...]


def missing_labels(parts: Sequence[Predictions], most: int = LISTED) -> MissingLabels:
    """Return the likeliest objects without a label among detections that reach their threshold.

    parts: of rows that the model has not learned from; see `likely_missing`.
    """
    rows = [row for part in parts for row in _of_part(part, most)]
    known = sum(int(part.known.sum()) for part in parts)
    return MissingLabels(known, tuple(sorted(rows, key=lambda row: -row.score)[:most]))


def _of_part(predictions: Predictions, most: int) -> list[MissingLabel]:
    target = predictions.target
    assert isinstance(target, BoxesTarget)
    found = likely_missing(target.kept(predictions.outputs), predictions.labels, most)
    rows = list[MissingLabel]()
    for one in found:
        a, b, c, d = (round(side, 3) for side in one.corners)
        name, score = target.names[one.label], round(one.score, 6)
        rows.append(MissingLabel(predictions.ids[one.row], name, score, (a, b, c, d)))
    return rows
