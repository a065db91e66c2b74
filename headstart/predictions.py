"""What was said about each row: all that evaluation, reports and error pages need."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.atomic import write_text
from headstart.errors import DataError, Mismatch

COLUMNS = ["path", "label", "predicted"]
SCORE = "score:"  # begins the name of a score's column, so a class may be called "path"
UNKNOWN = -1  # the label of a row whose class nobody told, or that no class here goes by


@dataclass(frozen=True, eq=False)
class Predictions:
    """Row i says of `ids[i]`, truly `classes[labels[i]]`, how probable each class is.

    Raises Mismatch if the parts don't fit together.
    """

    ids: tuple[str, ...]
    scores: NDArray[np.float32]  # (N, C), rows sum to 1
    labels: NDArray[np.int64]  # (N,), -1 where unknown
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n, c = len(self.ids), len(self.classes)
        if self.scores.shape != (n, c) or self.labels.shape != (n,):
            raise Mismatch(
                f"Predictions hold a label a row and a score a class, for {n} ids and {c} classes; "
                f"got labels {self.labels.shape} and scores {self.scores.shape}."
            )
        if self.scores.dtype != np.float32 or self.labels.dtype != np.int64:
            raise Mismatch(
                f"Scores are float32 and labels int64; got {self.scores.dtype} and "
                f"{self.labels.dtype}. Convert them with .astype."
            )
        if len(set(self.classes)) < c:
            raise Mismatch(f"Every class has a name of its own; got {self.classes}.")
        if n and not UNKNOWN <= self.labels.min() <= self.labels.max() < c:
            raise Mismatch(f"A label is from 0 to {c - 1}, or -1 if unknown; got {self.labels}.")
        _check_probabilities(self.scores)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the class of the highest score; of equals the first."""
        return self.scores.argmax(axis=1) if len(self) else np.zeros(0, np.int64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) never where the label is unknown."""
        return self.predicted == self.labels

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) where the label is known."""
        return self.labels != UNKNOWN

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Predictions":
        """Only these rows, in this order."""
        picked = np.asarray(rows, dtype=np.int64)
        ids = tuple(self.ids[i] for i in picked)
        return Predictions(ids, self.scores[picked], self.labels[picked], self.classes)


def write_csv(predictions: Predictions, path: Path) -> None:
    """path,label,predicted and a column score:CLASS a class; an unknown label is empty.

    Nine digits, from which `read_csv` makes the same float32 again.
    """
    text = io.StringIO()
    returns = any("\r" in name for name in (*predictions.ids, *predictions.classes))
    writer = csv.writer(  # which, left to itself, does not quote a lone \r
        text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    )
    writer.writerow([*COLUMNS, *(SCORE + name for name in predictions.classes)])
    names = [*predictions.classes, ""]  # so that -1 is the last
    rows = zip(
        predictions.ids, predictions.labels, predictions.predicted, predictions.scores, strict=True
    )
    for id, label, said, scores in rows:
        writer.writerow([id, names[label], names[said], *(f"{s:.9g}" for s in scores.tolist())])
    write_text(path, text.getvalue())


def read_csv(path: Path) -> Predictions:
    """What `write_csv` wrote. Raises DataError for anything else."""
    with open(path, encoding="utf-8", newline="") as f:
        header, *lines = list(csv.reader(f)) or [[]]
    if header[:3] != COLUMNS or not all(name.startswith(SCORE) for name in header[3:]):
        raise DataError(
            f"{path} is not a file of predictions: its columns should be path, label, predicted "
            f"and then score:CLASS for each class; got {', '.join(header) or 'none'}."
        )
    classes = tuple(name.removeprefix(SCORE) for name in header[3:])
    number = {"": UNKNOWN} | {name: c for c, name in enumerate(classes)}
    for i, row in enumerate(lines, start=1):
        if len(row) != len(header) or row[1] not in number:
            raise DataError(f"{path}: row {i} does not fit the columns; it is {row[:3]} and so on.")
    return _parsed(path, lines, classes, number)


def _parsed(
    path: Path, lines: list[list[str]], classes: tuple[str, ...], number: dict[str, int]
) -> Predictions:
    try:
        scores = np.array([row[3:] for row in lines], dtype=np.float64).astype(np.float32)
    except ValueError as error:
        raise DataError(f"{path} has a score that is not a number: {error}.") from error
    labels = np.array([number[row[1]] for row in lines], dtype=np.int64)
    ids = tuple(row[0] for row in lines)
    return Predictions(ids, scores.reshape(len(lines), len(classes)), labels, classes)


def _check_probabilities(scores: NDArray[np.float32]) -> None:
    """Raises Mismatch unless each row is of probabilities (which NaN is not)."""
    sums = scores.sum(axis=1, dtype=np.float64)
    wrong = ~(np.abs(sums - 1.0) < 1e-3) | ~(scores >= 0).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise Mismatch(
            f"The scores of a row are probabilities and sum to 1; row {row} has {scores[row]}."
        )
