"""What was said about each row: all that evaluation, reports and error pages need."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import write_text
from headstart.base.cells import NOT_UTF8, as_text, defused, restored
from headstart.base.display import display
from headstart.base.errors import DataError, Mismatch
from headstart.base.tables import csv_lines, unreadable_text

COLUMNS = ["path", "label", "predicted"]
SCORE = "score:"  # begins the name of a score's column, so a class may be called "path"
UNKNOWN = -1  # the label of a row whose class nobody told, or that no class here goes by


@dataclass(frozen=True, eq=False)
class Predictions:
    """Row i says of `ids[i]`, truly `classes[labels[i]]`, how probable each class is.

    answers: what was said of each row, where that is not simply the class of the highest score. It
    is all there is where nobody told probabilities: `scores` then have no columns, so that no
    number can be made of them. Raises Mismatch if the parts don't fit together.
    """

    ids: tuple[str, ...]
    scores: NDArray[np.float32]  # (N, C), rows sum to 1; or (N, 0), beside answers
    labels: NDArray[np.int64]  # (N,), -1 where unknown
    classes: tuple[str, ...]
    answers: NDArray[np.int64] | None = None  # (N,)

    def __post_init__(self) -> None:
        n, c = len(self.ids), len(self.classes)
        shapes = {(n, c)} if self.answers is None else {(n, c), (n, 0)}
        if self.scores.shape not in shapes or self.labels.shape != (n,):
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
        if self.answers is not None:
            _check_answers(self.answers, n, c)
        if self.scored:
            _check_probabilities(self.scores)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def scored(self) -> bool:
        """Whether there are probabilities, of which log loss and AUROC can be told."""
        return self.answers is None or self.scores.shape[1] > 0

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) what was answered: the class of the highest score, of equals the first."""
        if self.answers is not None:
            return self.answers
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
        answers = None if self.answers is None else self.answers[picked]
        return Predictions(ids, self.scores[picked], self.labels[picked], self.classes, answers)


def write_csv(predictions: Predictions, path: Path) -> None:
    """path,label,predicted and, if scored, a column score:CLASS a class; unknown labels are empty.

    Nine digits, from which `read_predictions` makes the same float32 again. A path or class that a
    spreadsheet would run as a formula has an apostrophe before it (`cells.defused`).
    """
    text = io.StringIO()
    returns = any("\r" in name for name in (*predictions.ids, *predictions.classes))
    writer = csv.writer(  # which, left to itself, does not quote a lone \r
        text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    )
    writer.writerow(COLUMNS + [SCORE + name for name in predictions.classes if predictions.scored])
    names = [*map(defused, predictions.classes), ""]  # so that -1 is the last
    rows = zip(
        predictions.ids, predictions.labels, predictions.predicted, predictions.scores, strict=True
    )
    for id, label, said, scores in rows:
        writer.writerow(
            [defused(id), names[label], names[said], *(f"{s:.9g}" for s in scores.tolist())]
        )
    write_text(path, text.getvalue())


def read_predictions(path: Path) -> Predictions:
    """What `write_csv` wrote, or a file made elsewhere, its columns in any order.

    path; label, empty where unknown; predicted; score:CLASS for each class. There may be no scores,
    or no `predicted`, which is then the class of the highest. Without scores the classes are those
    that the rows name, sorted. Names are those that a manifest's labels would be (`cells.as_text`).
    Raises DataError for anything else, naming the row, from 1.
    """
    header, lines = _table(path)
    _check_header(path, header)
    places = {name: i for i, name in enumerate(header)}
    ids = tuple(restored(row[places["path"]]) for row in lines)
    told = [restored(row[places["label"]]) for row in lines]
    said = None
    if "predicted" in places:
        said = [restored(row[places["predicted"]]) for row in lines]
    classes = tuple(name.removeprefix(SCORE) for name in header if name.startswith(SCORE))
    if not classes:
        names = {*map(as_text, (*told, *(said or [])))} - {""}
        classes = tuple(sorted(n for n in names if _whole(n) == n or _whole(n) not in names))
    tidy = _tidied(classes)
    number = {name: c for names in (tidy, classes) for c, name in enumerate(names)}
    labels = _numbers(path, "label", told, number | {"": UNKNOWN})
    answers = None if said is None else _numbers(path, "predicted", said, number)
    _check_unique(path, ids)
    scores = _scores(path, lines, [i for name, i in places.items() if name.startswith(SCORE)])
    if answers is not None and scores.shape[1] and (answers == scores.argmax(axis=1)).all():
        answers = None  # they say no more than the scores do
    return Predictions(ids, scores, labels, tidy, answers)


def _tidied(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes as a manifest would name them, if no two of them are one then."""
    tidy = tuple(as_text(name) or name for name in classes)
    return tidy if len(set(tidy)) == len(classes) else classes


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows below them, each as long."""
    try:
        header, *lines = [row for _, row in csv_lines(path, ("path", "label"))] or [[]]
    except OSError as error:
        raise DataError(f"{display(path)} is no file that can be read: {error}.") from error
    if any(NOT_UTF8.search(cell) for row in (header, *lines) for cell in row):
        raise unreadable_text(path)
    header = [plain if (plain := name.strip().casefold()) in COLUMNS else name for name in header]
    lines = _fitting(path, header, lines)
    named = [place for place, name in enumerate(header) if name.strip()]  # pandas' index has none
    return [header[p] for p in named], [[row[p] for p in named] for row in lines]


def _fitting(path: Path, header: list[str], lines: list[list[str]]) -> list[list[str]]:
    """The same rows; raises DataError for one that is not as long as the header."""
    for i, row in enumerate(lines, start=1):
        if len(row) != len(header):
            raise DataError(
                f"{display(path)}: row {i} does not fit the {len(header)} columns; it has "
                f"{len(row)}: {row[:3]} and so on."
            )
    return lines


def _check_header(path: Path, header: list[str]) -> None:
    scores = [name for name in header if name.startswith(SCORE)]
    strange = [name for name in header if name not in COLUMNS and name not in scores]
    answered = scores or "predicted" in header
    if strange or {"path", "label"} - set(header) or not answered or SCORE in scores:
        raise DataError(
            f"{display(path)} is not a file of predictions: its columns are path, label, predicted "
            f"and score:CLASS for each class, without which predicted is needed; got "
            f"{', '.join(map(repr, header)) or 'none'}."
        )
    if twice := _first_repeated(header):
        raise DataError(
            f"{display(path)} has two columns named {header[twice]!r}: leave one of them out."
        )


def _check_unique(path: Path, ids: Sequence[str]) -> None:
    if twice := _first_repeated(ids):
        raise DataError(
            f"{display(path)}: a path has one row, but row {twice + 1} is of {ids[twice]!r}, as is "
            f"row {ids.index(ids[twice]) + 1}: leave one of them out."
        )


def _first_repeated(names: Sequence[str]) -> int | None:
    """The place of the first name that was there before; never 0."""
    seen = set[str]()
    for i, name in enumerate(names):
        if name in seen:
            return i
        seen.add(name)
    return None


def _numbers(
    path: Path, column: str, names: list[str], number: Mapping[str, int]
) -> NDArray[np.int64]:
    spelled = [_known(name, number) for name in names]
    for i, name in enumerate(names, start=1):
        if spelled[i - 1] not in number:
            known = ", ".join(repr(n) for n in list(number)[:10] if n)
            raise DataError(
                f"{display(path)}: row {i} does not fit: its {column} is {name!r}, and the classes "
                f"are {known}{' and so on' if len(number) > 10 else ''}."
            )
    return np.array([number[name] for name in spelled], dtype=np.int64)


def _known(name: str, number: Mapping[str, int]) -> str:
    """A name as the classes have it: as it is, or else as a manifest's label would be."""
    tidy = as_text(name) if name not in number else name
    return tidy if tidy in number else _whole(tidy)


def _whole(name: str) -> str:
    """Return "3" for "3.0", which tools write for 3 in a column where a value is missing."""
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", name)


def _scores(path: Path, lines: list[list[str]], places: list[int]) -> NDArray[np.float32]:
    """(N, C), or (N, 0) where no column holds scores."""
    scores = np.empty((len(lines), len(places)))
    for i, row in enumerate(lines):
        try:
            scores[i] = [float(row[place]) for place in places]
        except ValueError as error:
            raise DataError(
                f"{display(path)}: row {i + 1} has a score that is not a number: {error}."
            ) from error
    if places and (wrong := _improbable(scores)) is not None:
        raise DataError(
            f"{display(path)}: the scores of a row are probabilities and sum to 1; row "
            f"{wrong + 1} has {scores[wrong]}."
        )
    return scores.astype(np.float32)


def _check_probabilities(scores: NDArray[np.float32]) -> None:
    if (row := _improbable(scores)) is not None:
        raise Mismatch(
            f"The scores of a row are probabilities and sum to 1; row {row} has {scores[row]}."
        )


def _improbable(scores: NDArray[np.floating]) -> int | None:
    """The first row that is not of probabilities (which NaN is not)."""
    sums = scores.sum(axis=1, dtype=np.float64)
    wrong = ~(np.abs(sums - 1.0) < 1e-3) | ~(scores >= 0).all(axis=1)
    return int(wrong.argmax()) if wrong.any() else None


def _check_answers(answers: NDArray[np.int64], n: int, classes: int) -> None:
    if answers.shape != (n,) or answers.dtype != np.int64:
        raise Mismatch(
            f"There is one answer a row, an int64; got {answers.shape} of {answers.dtype} for "
            f"{n} rows."
        )
    if n and not 0 <= answers.min() <= answers.max() < classes:
        raise Mismatch(f"An answer is a class, from 0 to {classes - 1}; got {answers}.")
