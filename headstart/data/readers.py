"""Read folders and manifests as datasets."""

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any

from headstart.backbones.inputs import PATH, Encoded, Input
from headstart.base.cells import EMPTY, NOT_UTF8, NUMBER, as_label, as_text, path_text
from headstart.base.errors import DataError, MissingPackage, UnknownName
from headstart.base.location import Location
from headstart.base.tables import (
    DELIMITED,
    JSON_LINES,
    Cells,
    Columns,
    column_names,
    header_of,
    rows_of_table,
    unreadable_text,
)
from headstart.data.boxes.places import PictureIndex
from headstart.data.choosing import LABEL_NAMES, LabelColumns, TableColumns, choose, encoded
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.findings import EMPTY_CLASS
from headstart.data.folder_files import FolderFiles
from headstart.data.layouts import PART_WORDS, FolderLayout, layout_of, unlike_classes
from headstart.data.walking import Walk, about_links, display, walk
from headstart.data.zip_files import archive_of, walk_zip
from headstart.targets.classes import ClassTarget
from headstart.targets.soft_labels import SoftRow, soft_labels
from headstart.targets.supervision import HEAVIEST
from headstart.targets.target import Row, Target

PART_COLUMNS = ("part", "split", "subset", "fold")  # `part_columns` decides which are read
MANIFESTS = (*DELIMITED, ".parquet", ".pq", *JSON_LINES)
# What the columns of paths and of groups are called in tables of public data sets.
PATH_NAMES = (
    *("file_path", "filepath", "file_name", "filename", "file", "image_path", "image_file"),
    *("image_name", "image_id", "image", "images", "img_path", "img", "id_code", "image index"),
    *("picture", "photo", "id"),
)
GROUP_NAMES = ("patient_id", "patientid", "patient", "subject_id", "subject", "lesion_id")
WEIGHT = "weight"  # the column of case weights
OPTIONAL = (*PART_COLUMNS, "group", "stratum", WEIGHT)
ID = "id"  # the column of ids of rows that hold text
UNSUITED = "the column probability is not read: it is for labels of two classes"
WEIGHED = "the column weight says how much a row counts in training"
UNREADABLE = "cannot be read"
SHOWN = 40  # characters of a cell in a message
CLASSES = LabelColumns.own(ClassTarget)
LAYOUT = (
    "Expected one folder a class, DATA/<class>/<image>.jpg; or the same inside parts, "
    "DATA/train/<class>/<image>.jpg with val and test beside it; or a CSV or Parquet file "
    "with the columns path and label; or CIFAR-10 or the Oxford-IIIT pets as their archives unpack."
)


@dataclass(frozen=True)
class _Row:
    """One example; `asked` are the cells that the target reads, `where` is for messages.

    weight: None without a cell for it. shares: the cells with probabilities of classes.
    """

    id: str
    source: Path | str | Encoded | Location
    asked: Row
    part: str = ""
    group: str = ""
    stratum: str = ""
    where: str = ""
    weight: float | None = None
    shares: tuple[str, ...] = ()


class _FolderRows:
    """The examples of class folders, by column: there may be millions of them."""

    def __init__(self) -> None:
        self.ids, self.names, self.parts = list[str](), list[str](), list[str]()
        self.cells = list[Row]()  # one object for all rows of a class
        self.by_label = dict[str, Row]()

    def add(self, file: Path, label: str, part: str) -> None:
        """Add a file, relative to the folder."""
        name, id = file.as_posix(), display(file)
        self.names.append(name)
        self.ids.append(name if id == name else id)
        self.cells.append(self.by_label.setdefault(label, {"label": label}))
        self.parts.append(part)

    def dataset(self, root: Path, left_out: Iterable[LeftOut]) -> Dataset:
        target = CLASSES.kind.of(list(self.by_label.values()))
        return Dataset(
            ids=tuple(self.ids),
            sources=FolderFiles(root, tuple(self.names)),
            labels=encoded(target, self.cells, [""] * len(self.cells)),
            target=target,
            parts=_column(self.parts),
            left_out=tuple(left_out),
            choice=CLASSES.unread,
        )


def read_folder(root: Path, input: Input[Any]) -> Dataset:
    """Read one folder per class, or parts (train, val, test) of class folders.

    root: the folder, or a ZIP archive of it. Raises DataError for no examples and for an ambiguous
    layout (`layouts.layout_of`).
    """
    root = root.resolve()
    root, listing = walk_zip(root) if root.is_file() else (root, walk(root))
    faults = {file: why for file in listing.files if (why := _unusable(input, root / file))}
    examples = (file for file in listing.files if _may_be_example(file, faults.get(file), input))
    try:
        layout = layout_of(examples, listing.folders)
    except DataError as error:
        raise DataError(f"{error}{_about_tables(root, input)}") from None
    found, left_out = _FolderRows(), [*listing.left_out, *layout.left_out]
    for file in listing.files:
        place, fault = layout.base(file), faults.get(file, "")
        if fault == input.unmeant:
            left_out.append(LeftOut(display(file), fault, expected=True))
        elif place in layout.unlabelled:
            continue  # counted in `layout.left_out`
        elif place is None:
            why = fault or "not in one of the parts train, val and test"
            left_out.append(LeftOut(display(file), why))
        elif fault or len(file.parts) <= len(place) + 1:
            announced = _class_of(file, place) if fault and not fault.startswith(UNREADABLE) else ""
            why = fault or f"{one_of(input)} in no class folder"
            left_out.append(LeftOut(display(file), why, label=announced))
        else:
            found.add(file, _class_of(file, place), layout.parts[place])
    if not found.names:
        others = about_links(left_out) + _about_announced(left_out)
        raise DataError(
            f"No {input.noun} of a class were found under {display(root)}.{others} {LAYOUT}"
            f"{_about_tables(root, input)}"
        )
    names = set(found.by_label)
    if unlike_classes(names) and (tables := _about_tables(root, input)):
        raise DataError(
            f"Class folders are named by their classes; {display(root)} has its {input.noun} in "
            f"{' and '.join(sorted(names)[:3])}.{tables}"
        )
    return found.dataset(root, [*left_out, *_empty_classes(listing, found.by_label, layout)])


def read_manifest(path: Path, input: Input[Any], target: str = "") -> Dataset:
    """Read the examples listed in a CSV or Parquet file.

    Columns: path (absolute, relative to the manifest's folder, or the end of the only such path in
    it, under one of PATH_NAMES; or the input's own column), label (or those of another target, see
    `choosing.choose`, or probabilities, see `soft_labels`), and
    optionally part (train, val, test; see `part_columns`), group (rows of one group stay in one
    part), stratum, weight (a number from 0 on, by which the row counts in the loss of training; an
    empty cell is 1) and id. Missing files are in `left_out`. target: its kind, "" if the columns
    decide.

    Raises DataError for missing columns, wrong cells, repeated paths, or if no file exists.
    """

    written = _other_names(header_of(path, (input.column,)), input)
    example = written.get(input.column, input.column)

    def folded(needed: Sequence[str]) -> set[str]:
        names = column_names(path, [written.get(name, name) for name in needed])
        return names | {own for own, there in written.items() if there in names}

    def cells(wanted: Callable[[str], bool]) -> Mapping[str, Sequence[object]]:
        if input.column not in folded((input.column,)):
            return {}  # the message on what is missing names all columns
        names = tuple(filter(wanted, header_of(path, (example,))))
        rows = records_of(path, Columns((example,), names)) if len(names) > 1 else []
        return {name: [row[name] for _, row in rows] for name in names}

    known = (*OPTIONAL, ID, *written.values())
    label = choose(TableColumns(input.column, known, folded, cells), target)
    columns = Columns((input.column, *label.needed), (*OPTIONAL, ID), written)
    other = [f"the column {there} is read as {own}" for own, there in written.items()]
    label = replace(label, unread="; ".join(filter(None, (*other, label.unread))))
    return listed(path, records_of(path, columns), input, label)


def _other_names(header: Sequence[str], input: Input[Any]) -> dict[str, str]:
    """Return what the columns `path` and `group` are called in a table that has no column `path`.

    {} for a table that has it, and for one without any of PATH_NAMES.
    """
    names = {name.strip().casefold() for name in header}
    path = next((name for name in PATH_NAMES if name in names), "")
    if input.column != PATH or PATH in names or not path:
        return {}
    group = next((name for name in GROUP_NAMES if name in names), "")
    return {PATH: path} | ({"group": group} if group and "group" not in names else {})


def read_records(
    records: Sequence[Cells], name: str, input: Input[Any], target: str = ""
) -> Dataset:
    """Read examples from rows in memory, as `read_manifest` does from a file.

    records: cells by column; the input's own column holds a path, relative to the current folder,
    or an example in memory. name: of the whole, for messages.
    """
    rows = [{str(column): cell for column, cell in row.items()} for row in records]
    order = list(dict.fromkeys(column for row in rows for column in row))
    folded = {column.strip().casefold() for column in order}

    def cells(wanted: Callable[[str], bool]) -> Mapping[str, Sequence[object]]:
        return {column: [row.get(column) for row in rows] for column in filter(wanted, order)}

    known = TableColumns(input.column, (*OPTIONAL, ID), lambda needed: folded, cells)
    label = choose(known, target)
    path, columns = Path(name), Columns((input.column, *label.needed), (*OPTIONAL, ID))
    places = columns.placed(path, order)
    named = [{n: row.get(order[at]) for n, at in places.items()} for row in rows]
    return listed(path, list(enumerate(named, 1)), input, label)


def listed(
    path: Path, records: Sequence[tuple[int, Cells]], input: Input[Any], label: LabelColumns
) -> Dataset:
    """Return the dataset of the rows of a manifest, each with its number.

    The input's own column holds a path, a text, or a `Location`.
    """
    columns, unused = part_columns([cells for _, cells in records])
    why = "the column {!r} names no parts (train, val, test): not used"
    left_out = [LeftOut(display(path), why.format(name), expected=True) for name in unused]
    rows = list[_Row]()
    listed, folder = dict[str, int](), _Pictures(path.parent.resolve(), input)
    for number, cells in records:
        where = f"{display(path)}, row {number}"
        part = part_cell(cells, columns, where)
        id, source = _example(path, folder, input, number, cells, where)
        blank = label.kind.blank or label.soft is not None
        asked = {n: text_cell(cells, c, where, blank=blank) for c, n in label.names.items()}
        group, stratum = (text_cell(cells, name, where) for name in ("group", "stratum"))
        weight, soft = _weight(cells, where), label.soft.columns if label.soft else ()
        shares = tuple(text_cell(cells, column, where, blank=True) for column in soft)
        row = _Row(id, source, asked, part, group, stratum, where, weight, shares)
        if not isinstance(row.source, Path) or _is_file(row.source):
            _refuse_again(path, row, number, listed, input)
            rows.append(row)
        else:
            why = "listed in the manifest, but no such file"
            label_of = row.asked.get("label", "")
            left_out.append(LeftOut(row.id, why, label=label_of, missing=True))
    if not records:
        raise DataError(f"{display(path)} must list {input.noun}, a row each; it has no rows.")
    if not rows:
        raise DataError(
            f"{display(path)} lists {len(records)} files and none of them is there. Its paths are "
            f"relative to {display(folder.root)}, or absolute."
        )
    return _dataset(rows, left_out, label)


def records_of(path: Path, columns: Columns) -> list[tuple[int, Cells]]:
    """Return the rows of a manifest: a CSV, JSON Lines or Parquet file; each with its number."""
    return list(rows_of_table(path, columns))


def _refuse_again(
    path: Path, row: _Row, number: int, listed: dict[str, int], input: Input[Any]
) -> None:
    """Add an example and its row number to `listed`; raise DataError if it is there already."""
    if (first := listed.setdefault(row.id, number)) != number:
        each = "lists a picture once" if input.column == PATH else "has each id once"
        raise DataError(
            f"A manifest {each}; in {display(path)} '{display(row.id)}' appears more than "
            f"once, in rows {first} and {number}. Take one of them out."
        )


def one_of(input: Input[Any]) -> str:
    """Return an example of this kind with its article: "an image", "a text"."""
    noun = input.noun.removesuffix("s")
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # an impossible name, such as one with a NUL
        return False


def _dataset(
    rows: list[_Row], left_out: Iterable[LeftOut], label: LabelColumns = CLASSES
) -> Dataset:
    read = _labels(rows, label)
    weighed = any(row.weight is not None for row in rows)
    return Dataset(
        ids=tuple(row.id for row in rows),
        sources=tuple(row.source for row in rows),
        labels=read.labels,
        target=read.target,
        parts=_column(row.part for row in rows),
        groups=_column(row.group for row in rows),
        strata=_column(row.stratum for row in rows),
        left_out=tuple(left_out),
        choice="; ".join(filter(None, (read.choice, WEIGHED if weighed else ""))),
        weights=tuple(1.0 if row.weight is None else row.weight for row in rows if weighed),
        soft=read.soft,
    )


@dataclass(frozen=True)
class _Labels:
    """The labels of rows as their target encodes them, and probabilities in their place or ()."""

    target: Target
    labels: tuple[Any, ...]
    choice: str
    soft: tuple[tuple[float, ...], ...] = ()


def _labels(rows: Sequence[_Row], label: LabelColumns) -> _Labels:
    choice = label.unread
    if label.soft:
        cells = (SoftRow(row.asked.get("label", ""), row.shares, row.where) for row in rows)
        if read := soft_labels(label.soft, list(cells)):
            remark = "; ".join(filter(None, (label.soft.about(read.target), choice)))
            return _Labels(read.target, read.labels, remark, read.soft)
        choice = "; ".join(filter(None, (UNSUITED, choice)))
        if row := next((row for row in rows if not row.asked["label"]), None):
            raise DataError(f"{row.where}: the label {EMPTY}. Fill it in or take the row out.")
    asked = [row.asked for row in rows]
    target = label.kind.of(asked)
    return _Labels(target, encoded(target, asked, [row.where for row in rows]), choice)


def _column(values: Iterable[str]) -> tuple[str, ...]:
    """Return the values, or () if all are empty."""
    column = tuple(values)
    return column if any(column) else ()


def _class_name(folder: str) -> str:
    r"""Return the class name of a folder; bytes that are not UTF-8 become \xNN."""
    return as_text(display(Path(folder)) if NOT_UTF8.search(folder) else folder) or folder


def _class_of(file: Path, place: tuple[str, ...]) -> str:
    """Return the class of a file below `place`, "" for a file in no class folder."""
    return _class_name(file.parts[len(place)]) if len(file.parts) > len(place) + 1 else ""


def _unusable(input: Input[Any], file: Path) -> str:
    """Return why a file can't be an example, or ""."""
    try:
        return input.why_not(file)
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror or error}"
    except DataError as error:  # of a member of an archive
        return str(error) if _is_named_as_example(file, input) else f"{UNREADABLE}: {error}"


def _is_named_as_example(file: Path, input: Input[Any]) -> bool:
    return file.suffix.lower() in input.suffixes


def _may_be_example(file: Path, fault: str | None, input: Input[Any]) -> bool:
    """Return whether a file counts where the class folders are looked for.

    fault: why it can't be an example, None without one. What can't be read and is not named as an
    example, such as an encrypted README of an archive, does not count.
    """
    if fault is None or fault == input.unmeant:
        return fault is None
    return _is_named_as_example(file, input) or not fault.startswith(UNREADABLE)


def _about_announced(left_out: Iterable[LeftOut]) -> str:
    """Return a sentence on the examples that can't be used, or ""."""
    announced = [item for item in left_out if item.label]
    if not announced:
        return ""
    first = announced[0]
    return f" {len(announced)} files there are not read; the first: {first.path} ({first.reason})."


def _about_tables(root: Path, input: Input[Any]) -> str:
    """Return a sentence, after a blank, on tables in a folder that list labelled pictures."""
    if archive := archive_of(root / "x"):
        return f" Unpack {display(archive)} if a table in it holds the labels, and give the table."
    named = [path for path in sorted(root.iterdir()) if _lists_labels(path, input)]
    if not named:
        return ""
    shown = " or ".join(display(path) for path in named[:2])
    return f" A table there lists pictures with labels: give it in place of the folder, {shown}."


def _lists_labels(path: Path, input: Input[Any]) -> bool:
    """Return whether a file is a table of pictures with more than one other column or a label."""
    if input.column != PATH or path.suffix.lower() not in MANIFESTS or not path.is_file():
        return False
    try:
        header = [name.strip().casefold() for name in header_of(path, (PATH,))]
    except (DataError, MissingPackage):
        return False
    paths = {PATH, *PATH_NAMES}.intersection(header)
    labels = {"label", "labels", "value", *LABEL_NAMES}.intersection(header)
    return bool(paths) and (bool(labels) or len(header) > 2)


def _empty_classes(listing: Walk, used: Collection[str], layout: FolderLayout) -> Iterator[LeftOut]:
    for folder in listing.folders:
        place = layout.base(folder)
        if place is None or place in layout.unlabelled:
            continue
        if len(folder.parts) == len(place) + 1 and _class_name(folder.name) not in used:
            yield LeftOut(display(folder), EMPTY_CLASS, expected=True)


def part_columns(rows: Sequence[Cells]) -> tuple[list[str], list[str]]:
    """Return the filled PART_COLUMNS that name the part of a row, and the other filled ones.

    `part` always does; `split` unless all cells are numbers; `subset` and `fold`, which have other
    meanings too, if a cell is the name of a part.
    """
    used, unused = list[str](), list[str]()
    for name in PART_COLUMNS:
        texts = {_lower(cells.get(name)) for cells in rows} - {""}
        numbers = all(NUMBER.fullmatch(text) for text in texts)
        named = any(text in PART_WORDS for text in texts)
        if texts:
            names_parts = name == "part" or named or (name == "split" and not numbers)
            (used if names_parts else unused).append(name)
    return used, unused


def _lower(cell: object) -> str:
    """Return a cell as text in lower case, "?" if it is not text."""
    try:
        return as_text(cell).lower()
    except DataError:
        return "?"


def part_cell(cells: Cells, columns: Sequence[str], where: str) -> str:
    """Return the part that a row names, or ""; DataError for an unknown part or two parts."""
    parts = dict[str, str]()
    for column in columns:
        if name := text_cell(cells, column, where).lower():
            if name not in PART_WORDS:
                raise DataError(f"{where}: {UnknownName(column, name, PART_WORDS)}")
            parts[column] = PART_WORDS[name]
    if len(set(parts.values())) > 1:
        both = " and ".join(f"{column} is {part}" for column, part in parts.items())
        raise DataError(f"{where}: a row is in one part, but {both}. Take one of the columns out.")
    return next(iter(parts.values()), "")


@dataclass(frozen=True)
class _Pictures:
    """The pictures of a manifest's folder, which is listed when a path of the manifest is wrong."""

    root: Path
    input: Input[Any]

    @cached_property
    def index(self) -> PictureIndex:
        return PictureIndex.of(self.root, self.input)

    def spelled(self, text: str) -> Path:
        """Return the path of a picture relative to the folder, as `spelled` or by its end.

        A path that is absolute on another machine is that of a picture whose end agrees.
        """
        path = spelled(self.root, text)
        if _is_file(self.root / path):
            return path
        absolute = path.is_absolute() or PureWindowsPath(text.strip()).is_absolute()
        found = self.index.moved(text) if absolute else self.index.named(text)
        return found or path


def _example(
    path: Path, folder: _Pictures, input: Input[Any], number: int, cells: Cells, where: str
) -> tuple[str, Path | str | Encoded | Location]:
    """Return the id and the source of a row: a file, relative to `folder`, a text, in memory, or
    where it lies."""
    example = cells.get(input.column)
    if isinstance(example, Location):
        return example.id, example
    if input.column != PATH:
        return text_cell(cells, ID, where) or str(number), _content(cells, input, where)
    if isinstance(example, Encoded):
        id = text_cell(cells, ID, where) or str(number)
        return id, Encoded(id, example.data)
    if isinstance(example, os.PathLike):
        cells = {**cells, PATH: os.fspath(example)}
    elif not (example is None or isinstance(example, str | bytes)):
        id = text_cell(cells, ID, where) or str(number)
        try:
            return id, Encoded(id, input.encode(example))
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    text = text_cell(cells, PATH, where)
    try:
        relative = folder.spelled(text)
    except DataError as error:
        raise DataError(
            f"{where}: the path {text[:SHOWN]!r} is not one picture's; {error}."
        ) from None
    if NOT_UTF8.search(text) and not _is_file(folder.root / relative):
        raise unreadable_text(path)
    return display(relative), folder.root / relative


def _content(cells: Cells, input: Input[Any], where: str) -> str:
    """Return an example that its row holds as text, with its line breaks; an empty one is left to
    the check of the data, which names it."""
    try:
        return as_text(cells.get(input.column))
    except DataError as error:
        raise DataError(f"{where}: the {input.column} {error}.") from error


def text_cell(cells: Cells, column: str, where: str, *, blank: bool = False) -> str:
    """Return a cell of a manifest as text; a DataError names its row and column.

    blank: whether a label may be empty.
    """
    if blank and _lower(cells.get(column)) == "":
        return ""
    read = path_text if column == "path" else as_text if column in (*OPTIONAL, ID) else as_label
    try:
        text = read(cells.get(column))
    except DataError as error:
        remedy = "Fill it in" if str(error) == EMPTY else "Change it"
        raise DataError(f"{where}: the {column} {error}. {remedy} or take the row out.") from error
    if column == "path" and not text.strip():
        raise DataError(f"{where}: the path {EMPTY}. Fill it in or take the row out.")
    return text


def _weight(cells: Cells, where: str) -> float | None:
    """Return the case weight of a row, None without one; DataError unless it is 0 or more."""
    text = text_cell(cells, WEIGHT, where)
    if not text:
        return None
    weight = float(text) if NUMBER.fullmatch(text) else -1.0
    if not 0 <= weight <= HEAVIEST:
        raise DataError(
            f"{where}: the {WEIGHT} is a number from 0 to {HEAVIEST:g}, by which the row counts in "
            f"training; got {text[:SHOWN]!r}. Change it, or leave it empty for 1."
        )
    return weight


def spelled(folder: Path, text: str) -> Path:
    """Return the first spelling whose file exists: as given, stripped, with slashes; NFC or NFD."""
    bare = text.strip()
    for base in dict.fromkeys((text, bare, bare.replace("\\", "/"))):
        for spelling in (base, *(unicodedata.normalize(form, base) for form in ("NFC", "NFD"))):
            path = Path(os.path.normpath(spelling))
            if _is_file(folder / path):
                return path
    return Path(os.path.normpath(bare))
