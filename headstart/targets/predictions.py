"""Predictions: ids, answers and labels, written to and read from CSV or Parquet."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import writing
from headstart.base.cells import NOT_UTF8, as_text, defused, restored
from headstart.base.display import display
from headstart.base.errors import DataError, Mismatch
from headstart.base.notebook import data_frame, html_table
from headstart.base.tables import (
    csv_lines,
    header_of,
    parquet_columns,
    parquet_height,
    unreadable_text,
    write_parquet_columns,
)
from headstart.targets.classes import (
    SCORE,
    UNKNOWN,
    ClassTarget,
    as_target,
    class_names,
    improbable,
    predicted,
    scored,
)
from headstart.targets.plan import TargetPlan
from headstart.targets.registry import TARGETS
from headstart.targets.target import Array, Labels, Outputs, Target

FEW = 6  # answers that the text of predictions names
MOST = 20  # rows that a notebook shows
BLOCK = 1024  # rows written at a time: as texts they need many times their memory
COLUMNS = ["path", "label", "predicted"]
CSV, PREDICTIONS = "predictions.csv", "predictions.parquet"  # in the folder of a run
PARQUET = (".parquet", ".pq")
MANY_ROWS, MANY_CELLS = 100_000, 10_000_000  # of more, predictions are written as Parquet
FOLD = "fold"  # the column of a cross-validated run: which model answered, from 1


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Predictions:
    """Row i holds the answers for the example `ids[i]` with the label `labels[i]`.

    outputs: the answers by name, first axis N; see the target. For classes the constructor also
    takes scores (N, C), class names as `target`, and `answers` (N,) where the answer is not always
    the class of the highest score. Raises Mismatch if shapes or types do not agree.

    region: columns of the labels that are not ruled out for each row, such as the ends of an
    interval; {} for a model without limits. doubts: why the model does not answer a row, "" if it
    does; () for a model without limits.
    left_out: the unreadable examples, which have no row, with `path` and `reason`.

    >>> scores = np.array([[0.9, 0.1]], np.float32)
    >>> Predictions(("a.png",), scores, np.array([0]), ("cat", "dog")).names
    ('cat',)
    """

    ids: tuple[str, ...]
    outputs: Outputs
    labels: Labels
    target: Target
    region: Mapping[str, Array]
    doubts: tuple[str, ...]
    left_out: tuple[Any, ...]

    def __init__(
        self,
        ids: tuple[str, ...],
        outputs: Outputs | Array,
        labels: Labels,
        target: Target | tuple[str, ...],
        answers: Array | None = None,
        *,
        region: Mapping[str, Array] | None = None,
        doubts: tuple[str, ...] = (),
        left_out: tuple[Any, ...] = (),
    ) -> None:
        named = {"scores": outputs} if isinstance(outputs, np.ndarray) else dict(outputs)
        named |= {} if answers is None else {"answers": answers}
        fields = {"ids": ids, "outputs": named, "labels": labels, "target": as_target(target)}
        fields |= {"region": region or {}, "doubts": doubts, "left_out": left_out}
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        if {len(ids)} != {len(labels), *map(len, named.values())}:
            sizes = ", ".join(f"{len(values)} {name}" for name, values in named.items())
            raise Mismatch(
                f"Predictions hold a label and an answer for each row; got {len(ids)} ids, "
                f"{len(labels)} labels and {sizes}."
            )
        self.target.check(named, labels)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) whether the label is known."""
        return self.target.known(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The answer of each row as text: a class, or "unknown" if the model doubts it."""
        columns = self.target.columns(self.outputs)
        answers = map(str, columns[next(iter(columns))].tolist())
        doubts = self.doubts or ("",) * len(self)
        return tuple("unknown" if d else a for a, d in zip(answers, doubts, strict=True))

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: path, the answer, its score and reason, and all columns.

        The answer is a class or several names, "unknown" if the model doubts it, or a number, which
        stays one then.
        """
        columns = dict(self.target.columns(self.outputs))
        name, answers = next(iter(columns.items()))
        own = answers if answers.dtype.kind in "iuf" else self.names
        frame: dict[str, Any] = {"path": self.ids, name: own}
        if self.classes and self.scored:
            frame["score"] = self.scores.max(axis=1)
        if any(self.doubts):
            frame["reason"] = self.doubts
        if self.known.any():
            frame["label"] = self.target.decode(self.labels)
        columns |= self.region
        return data_frame(frame | {n: v for n, v in columns.items() if n not in frame})

    def __repr__(self) -> str:
        counts = Counter(self.names).most_common(FEW)
        more = ", …" if len(set(self.names)) > FEW else ""
        lost = f"; {len(self.left_out):,} left out" if self.left_out else ""
        shown = ", ".join(f"{name} {n:,}" for name, n in counts)
        return f"Predictions({len(self):,} rows: {shown}{more}{lost})"

    def _repr_html_(self) -> str:
        scores = self.scores.max(axis=1) if self.classes and self.scored else ()
        shown = [f"{score:.3f}" for score in scores] or [""] * len(self)
        rows = list(zip(self.ids, self.names, shown, strict=True))
        lost = [(str(item.path), "left out", str(item.reason)) for item in self.left_out]
        more = [(f"… {len(rows) - MOST:,} more", "", "")] if len(rows) > MOST else []
        return html_table([*rows[:MOST], *more, *lost[:MOST]], ("path", "predicted", "score"))

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Predictions":
        """Return the predictions of these rows, in this order."""
        picked = np.asarray(rows, dtype=np.int64)
        ids = tuple(self.ids[i] for i in picked)
        outputs = {name: values[picked] for name, values in self.outputs.items()}
        region = {name: values[picked] for name, values in self.region.items()}
        doubts = tuple(self.doubts[i] for i in picked) if self.doubts else ()
        labels = self.labels[picked]
        more: dict[str, Any] = {"region": region, "doubts": doubts, "left_out": self.left_out}
        return Predictions(ids, outputs, labels, self.target, **more)

    # ------------------------------------------------------------ of classes
    @property
    def classes(self) -> tuple[str, ...]:
        return class_names(self.target)

    @property
    def scores(self) -> NDArray[np.float32]:
        """(N, C) class probabilities; (N, 0) where only answers are known."""
        return self.outputs["scores"]

    @property
    def answers(self) -> NDArray[np.int64] | None:
        return self.outputs.get("answers")

    @property
    def scored(self) -> bool:
        """Whether there are probabilities, which log loss and AUROC need."""
        return scored(self.outputs)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) predicted classes."""
        return predicted(self.outputs)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) whether the predicted class is right; False where the label is unknown."""
        return self.predicted == self.labels


def write_csv(predictions: Predictions, path: Path, folds: Sequence[int] = ()) -> None:
    """Write path, label (empty if unknown) and the target's columns of answers as CSV.

    folds: a last column of a cross-validated run, one per row.

    The columns of classes are `predicted` and, if scored, score:CLASS for each class. Numbers have
    nine digits, from which `read_predictions` restores the same float32. Texts that a spreadsheet
    would run as formulas get an apostrophe (`cells.defused`).
    """
    columns, labels = _written(predictions, folds)
    header = [*COLUMNS[:2], *columns]
    returns = any("\r" in name for name in (*header, *predictions.ids, *predictions.classes))
    with writing(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
        writer = csv.writer(  # QUOTE_MINIMAL does not quote a lone \r
            text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
        )
        writer.writerow(header)
        for start in range(0, len(predictions), BLOCK):
            rows = slice(start, start + BLOCK)
            texts = (map(defused, column[rows]) for column in (predictions.ids, labels))
            cells = (_cells(column[rows]) for column in columns.values())
            writer.writerows(zip(*texts, *cells, strict=True))
        text.detach()  # flushes, and leaves the file open


def _written(
    predictions: Predictions, folds: Sequence[int]
) -> tuple[dict[str, Array], Sequence[str]]:
    """Return the columns of answers, and the labels as texts."""
    columns = {**predictions.target.written(predictions.outputs), **predictions.region}
    columns |= {FOLD: np.array(folds)} if len(folds) else {}
    return columns, predictions.target.decode(predictions.labels)


def write_parquet(predictions: Predictions, path: Path, folds: Sequence[int] = ()) -> None:
    """Write the columns of `write_csv` as Parquet, numbers as they are and texts not defused.

    Raises MissingPackage without pyarrow.
    """
    columns, labels = _written(predictions, folds)
    texts = {"path": predictions.ids, "label": labels}
    plain = {name: _plain_column(column) for name, column in columns.items()}
    write_parquet_columns(path, texts | plain)


def _plain_column(column: Array) -> Array | list[str]:
    return column if column.dtype.kind in "iuf" else [joined_names(v) for v in column.tolist()]


def write_predictions(
    predictions: Predictions, folder: Path, folds: Sequence[int] = ()
) -> tuple[Path, str]:
    """Write FOLDER/predictions.csv, or of very many rows or cells predictions.parquet.

    Returns the path, and a sentence if there are many but pyarrow is missing, else "".
    """
    rows, columns = len(predictions), 3 + predictions.target.outputs
    if rows <= MANY_ROWS and rows * columns <= MANY_CELLS:
        write_csv(predictions, folder / CSV, folds)
        return folder / CSV, ""
    if find_spec("pyarrow") is not None:
        write_parquet(predictions, folder / PREDICTIONS, folds)
        return folder / PREDICTIONS, ""
    write_csv(predictions, folder / CSV, folds)
    size = (folder / CSV).stat().st_size
    return folder / CSV, (
        f"{rows:,} rows of {columns:,} columns are a CSV file of {size / 1e6:,.0f} MB; with "
        f'pyarrow (pip install "headstart[parquet]") they are written as Parquet'
    )


def predictions_file(run: Path) -> Path:
    """Return the file with the predictions of a run, which may not exist."""
    return run / PREDICTIONS if (run / PREDICTIONS).exists() else run / CSV


def _cells(column: Array) -> Iterable[str]:
    """Yield the cells of a column of answers (N,), numbers or texts."""
    if column.dtype.kind == "f":
        return (f"{value:.9g}" for value in column.tolist())
    return (defused(joined_names(value)) for value in column.tolist())


def joined_names(value: Any) -> str:
    """Return a cell of a column of texts, or of tuples of names, which are joined by "|"."""
    return "|".join(value) if isinstance(value, tuple) else str(value)


def read_predictions(
    path: Path, target: Target | str | None = None, *, ordered: str = ""
) -> Predictions:
    """Read predictions from a file of `write_predictions` or of another tool, columns in any order.

    target: the name of another kind is enough if the columns show the rest; None is classes, whose
    columns are path, label (empty if unknown), predicted, and score:CLASS for each class. Scores or
    `predicted` may be missing: `predicted` is then the class of the highest score, and without
    scores the classes are the names in the rows, sorted. Names are normalized like a manifest's
    labels (`cells.as_text`). ordered: of grades, their names from the lowest on, as in TargetPlan;
    "" for the order of the columns.

    Raises DataError, with the row number from 1, for a file without this format.
    """
    table = _table(path)
    header = table.header
    _check_once(path, header)
    if isinstance(target, str):
        kind = TARGETS[target or ClassTarget.kind]
        target = None if kind is ClassTarget else kind.of_columns(header)
        if ordered and target is not None:
            target = target.planned(TargetPlan(target.kind, ordered))
    if target is not None and not isinstance(target, ClassTarget):
        return _answers_to(target, path, table)
    _check_header(path, header)
    answered = "predicted" in header
    paths, label_names, *answer_columns = table.texts(COLUMNS if answered else COLUMNS[:2])
    ids, answer_names = tuple(paths), answer_columns[0] if answered else []
    classes = tuple(name.removeprefix(SCORE) for name in header if name.startswith(SCORE))
    if not classes:
        names = {*map(as_text, (*label_names, *answer_names))} - {""}
        classes = tuple(sorted(n for n in names if _whole(n) == n or _whole(n) not in names))
    tidy = _tidied(classes)
    number = {name: c for names in (tidy, classes) for c, name in enumerate(names)}
    labels = _numbers(path, "label", label_names, number | {"": UNKNOWN})
    answers = _numbers(path, "predicted", answer_names, number) if answered else None
    _check_unique(path, ids)
    scores = table.scores([name for name in header if name.startswith(SCORE)])
    if answers is not None and scores.shape[1] and (answers == scores.argmax(axis=1)).all():
        answers = None  # redundant: the scores give the same answers
    return Predictions(ids, scores, labels, tidy, answers)


def is_cross_validated(path: Path) -> bool:
    """Return whether a file of predictions has the column of a cross-validated run."""
    if path.suffix.lower() in PARQUET:
        return FOLD in header_of(path, ())
    with open(path, encoding="utf-8", newline="") as f:
        return FOLD in next(csv.reader(f), [])


def _answers_to(target: Target, path: Path, table: "_Table") -> Predictions:
    """Return the predictions of a target that is not of classes."""
    if missing := {"path", "label"} - set(table.header):
        raise DataError(f"{display(path)} is not a file of predictions: no column {min(missing)}.")
    columns = dict(zip(table.header, table.texts(table.header), strict=True))
    ids, labels = tuple(columns.pop("path")), columns.pop("label")
    region = {n: _column(columns.pop(n)) for n in target.region_names if n in columns}
    _check_unique(path, ids)
    answers = target.answers(columns)
    return Predictions(ids, answers, target.parse(labels), target, region=region)


def _column(cells: list[str]) -> Array:
    """Return the column that `_cells` wrote: numbers, or else tuples of names."""
    try:
        return np.array(cells, np.float64)
    except ValueError:
        column = np.empty(len(cells), object)
        column[:] = [tuple(cell.split("|")) if cell else () for cell in cells]
        return column


def _tidied(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names normalized like a manifest's, unless two would become equal."""
    tidy = tuple(as_text(name) or name for name in classes)
    return tidy if len(set(tidy)) == len(classes) else classes


class _Table(Protocol):
    """The columns of a file of predictions; a name in `header` may be there twice."""

    @property
    def header(self) -> list[str]: ...
    def texts(self, names: Sequence[str]) -> list[list[str]]: ...  # a list for each column
    def scores(self, names: Sequence[str]) -> NDArray[np.float32]: ...  # (N, len(names))


@dataclass(frozen=True, eq=False)
class _CsvTable:
    path: Path
    header: list[str]
    lines: list[list[str]]

    def texts(self, names: Sequence[str]) -> list[list[str]]:
        places = map(self.header.index, names)
        return [[restored(row[place]) for row in self.lines] for place in places]

    def scores(self, names: Sequence[str]) -> NDArray[np.float32]:
        return _scores(self.path, self.lines, [self.header.index(name) for name in names])


@dataclass(frozen=True, eq=False)
class _ParquetTable:
    path: Path
    header: list[str]

    def texts(self, names: Sequence[str]) -> list[list[str]]:
        return [_texts(column) for _, column in parquet_columns(self.path, names)]

    def scores(self, names: Sequence[str]) -> NDArray[np.float32]:
        scores = np.empty((parquet_height(self.path), len(names)), np.float32)
        for i, (name, column) in enumerate(parquet_columns(self.path, names)):
            if column.dtype.kind not in "iuf":
                raise DataError(
                    f"{display(self.path)}: scores are numbers, and the column {name!r} holds "
                    f"others."
                )
            scores[:, i] = column
        if names and (wrong := improbable(scores)) is not None:
            raise _improbable(self.path, wrong, scores)
        return scores


def _texts(column: Array) -> list[str]:
    """Return the cells of a column as those of a CSV file: a missing one, which is NaN among
    numbers, is empty."""
    if column.dtype == np.float64:
        return [as_text(value) for value in column.tolist()]
    if column.dtype.kind == "f":
        return ["" if value != value else f"{value:.9g}" for value in column.tolist()]
    return ["" if value is None else str(value) for value in column.tolist()]


def _table(path: Path) -> _Table:
    """Return the named columns of a CSV or Parquet file; rows of a CSV have the same length."""
    if path.suffix.lower() in PARQUET:
        return _ParquetTable(path, [name for name in header_of(path, ()) if name != FOLD])
    try:
        header, *lines = [row for _, row in csv_lines(path, ("path", "label"))] or [[]]
    except OSError as error:
        raise DataError(f"{display(path)} is no file that can be read: {error}.") from error
    if any(NOT_UTF8.search(cell) for row in (header, *lines) for cell in row):
        raise unreadable_text(path)
    header = [plain if (plain := name.strip().casefold()) in COLUMNS else name for name in header]
    for i, row in enumerate(lines, start=1):
        if len(row) != len(header):
            raise DataError(
                f"{display(path)}: row {i} does not fit the {len(header)} columns; it has "
                f"{len(row)}: {row[:3]} and so on."
            )
    named = [p for p, name in enumerate(header) if name.strip()]  # pandas' index has none
    named = [p for p in named if header[p] != FOLD]
    return _CsvTable(path, [header[p] for p in named], [[row[p] for p in named] for row in lines])


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


def _check_once(path: Path, header: Sequence[str]) -> None:
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
    """Return the index of the first repeated name (never 0), or None."""
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
    """Return the class name that `name` stands for: itself, or normalized like a label."""
    tidy = as_text(name) if name not in number else name
    return tidy if tidy in number else _whole(tidy)


def _whole(name: str) -> str:
    """Return "3" for "3.0", which tools write for 3 in a column where a value is missing."""
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", name)


def _scores(path: Path, lines: list[list[str]], places: list[int]) -> NDArray[np.float32]:
    """Return (N, C) scores, (N, 0) if no column holds scores."""
    scores = np.empty((len(lines), len(places)))
    for i, row in enumerate(lines):
        try:
            scores[i] = [float(row[place]) for place in places]
        except ValueError as error:
            raise DataError(
                f"{display(path)}: row {i + 1} has a score that is not a number: {error}."
            ) from error
    if places and (wrong := improbable(scores)) is not None:
        raise _improbable(path, wrong, scores)
    return scores.astype(np.float32)


def _improbable(path: Path, row: int, scores: Array) -> DataError:
    return DataError(
        f"{display(path)}: the scores of a row are probabilities and sum to 1; row {row + 1} has "
        f"{scores[row]}."
    )
