"""Read an index, the Parquet file that `headstart index` writes, as a dataset.

An index lists where examples lie, by the columns id, source, offset, size, column, label, part,
group, stratum and etag; see `base.location.Location`. A source is a path relative to the index's
folder or absolute, or a URL.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, input_class
from headstart.base.arrow_files import need_pyarrow
from headstart.base.cells import as_label, as_text
from headstart.base.display import display, displayed
from headstart.base.errors import DataError
from headstart.base.lazy_sequence import LazySequence, Rows
from headstart.base.location import WHOLE, Location, is_url
from headstart.base.tables import Cells, MissingColumn, column_names, parquet_cells, parquet_file
from headstart.data.choosing import LabelColumns, TableColumns, choose
from headstart.data.dataset import Dataset
from headstart.data.readers import OPTIONAL, PART_COLUMNS, WEIGHT, listed, part_cell
from headstart.targets.classes import ClassTarget

MARK = b"headstart"  # the key of an index's facts among a Parquet file's metadata
VERSION = 1
ENDINGS = (".parquet", ".pq")
PLACE = ("id", "source", "offset", "size", "column", "etag")  # columns of where an example lies
SLICE = 16_384  # rows that are written at once
READ = 2048  # rows of places that are read at once: a decoded slice takes 1 kB a row


@dataclass(frozen=True)
class IndexFacts:
    """The facts in an index's metadata. input: the kind of its examples."""

    input: str
    version: int = VERSION

    def packed(self) -> dict[bytes, bytes]:
        """Return the metadata of the Parquet file."""
        return {MARK: json.dumps({"index": self.version, "input": self.input}).encode()}

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes] | None) -> "IndexFacts | None":
        """Return the facts in a Parquet file's metadata, None if it is no index."""
        try:
            plain = json.loads((metadata or {})[MARK])
            return cls(str(plain["input"]), int(plain["index"]))
        except (KeyError, ValueError, TypeError):
            return None


def facts_of(path: Path) -> IndexFacts | None:
    """Return the facts of an index, None for any other file.

    Raises DataError for an index of a later version.
    """
    if path.suffix.lower() not in ENDINGS or not path.is_file():
        return None
    with parquet_file(path) as file:
        facts = IndexFacts.of(file.schema_arrow.metadata)
    if facts and facts.version > VERSION:
        raise DataError(
            f"{display(path)} is an index of version {facts.version}, and this release reads up to "
            f"{VERSION}. Update Headstart, or run headstart index again."
        )
    return facts


class Locations(LazySequence[Location]):
    """Where the examples of a dataset lie, as columns: a Location is made when it is asked for.

    ids: of the rows, shared with the dataset. numbers: the columns offset and size, (N,) int64.
    texts: the columns source, column and etag, each an Arrow array, dictionary-encoded if its texts
    repeat. root: of relative sources.
    """

    def __init__(
        self,
        ids: tuple[str, ...],
        numbers: Mapping[str, NDArray[np.int64]],
        texts: Mapping[str, Any],
        root: Path,
    ) -> None:
        self.ids, self.numbers, self.texts, self.root = ids, numbers, texts, root

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, row: int) -> Location:
        text = {name: column[row].as_py() or "" for name, column in self.texts.items()}
        source = text["source"]
        if not is_url(source):
            source = str(self.root / displayed(source))
        offset, size = (int(self.numbers[name][row]) for name in ("offset", "size"))
        return Location(self.ids[row], source, offset, size, text["column"], text["etag"])

    def take(self, rows: Rows) -> "Locations":
        picked = np.asarray(rows, np.int64)
        return Locations(
            tuple(self.ids[i] for i in picked),
            {name: column[picked] for name, column in self.numbers.items()},
            {name: column.take(_arrow(picked)) for name, column in self.texts.items()},
            self.root,
        )


def _arrow(numbers: NDArray[np.int64]) -> Any:
    return need_pyarrow("Reading an index").array(numbers)


def read_index(path: Path, input: Input[Any] | None, kind: str = "") -> Dataset:
    """Return the rows of an index as a dataset, with labels of a kind of target; "" follows it.

    input: the kind of examples asked for; None for that of the index. Raises DataError if these
    differ, and for missing or wrong labels.
    """
    facts = facts_of(path)
    assert facts is not None
    own = input or input_class(facts.input)()
    if (own.examples or own.kind) != facts.input:
        raise DataError(
            f"{display(path)} lists examples of the kind {facts.input!r}; asked for are "
            f"{own.noun}. Name another index."
        )
    places = locations(path)
    if not places:
        raise DataError(f"{display(path)} must list {own.noun}, a row each; it has no rows.")
    label = choose(_columns_of(path), kind)
    there = column_names(path, ())
    if missing := [name for name in label.needed if name.casefold() not in there]:
        raise _unlabelled(path, missing, own)
    if label.kind is ClassTarget and label.soft is None and _is_plain(path):
        return _of_classes(path, places, own, label)
    records = list(_records(path, places, own, label))
    return replace(listed(path, records, own, label), input=own)


def locations(path: Path) -> Locations:
    """Return where the examples of an index lie."""
    ids, numbers = list[str](), {name: list[NDArray[np.int64]]() for name in ("offset", "size")}
    texts = {name: list[Any]() for name in ("source", "column", "etag")}
    arrow = need_pyarrow("Reading an index")
    with parquet_file(path) as file:
        for batch in file.iter_batches(READ, columns=list(PLACE), use_threads=False):
            ids += batch.column("id").to_pylist()
            for name, held in numbers.items():
                held.append(np.asarray(batch.column(name).fill_null(WHOLE), np.int64))
            for name, chunks in texts.items():
                chunks.append(_coded_if_repeated(batch.column(name)))
    return Locations(
        tuple(ids),
        {name: np.concatenate([np.zeros(0, np.int64), *held]) for name, held in numbers.items()},
        {name: _joined(arrow, chunks) for name, chunks in texts.items()},
        path.parent.resolve(),
    )


def _coded_if_repeated(column: Any) -> Any:
    """Return texts dictionary-encoded where that takes less memory, as of the names of shards."""
    coded = column.dictionary_encode()
    return coded if 2 * len(coded.dictionary) <= len(column) else column


def _joined(arrow: Any, chunks: Sequence[Any]) -> Any:
    """Return chunks of texts as one array: dictionary-encoded if all of them are."""
    if all(arrow.types.is_dictionary(chunk.type) for chunk in chunks):
        kind = arrow.dictionary(arrow.int32(), arrow.string())
        return arrow.chunked_array(chunks, kind).unify_dictionaries().combine_chunks()
    plain = (c.dictionary_decode() if arrow.types.is_dictionary(c.type) else c for c in chunks)
    return arrow.chunked_array(plain, arrow.string()).combine_chunks()


def _columns_of(path: Path) -> TableColumns:
    """Return the columns of an index that may hold labels, beside those with another meaning."""

    def cells(wanted: Any) -> Mapping[str, Sequence[object]]:
        with parquet_file(path) as file:
            names = tuple(filter(wanted, file.schema_arrow.names))
        rows = [row for _, row in parquet_cells(path, names)] if names else []
        return {name: [row[name] for row in rows] for name in names}

    return TableColumns("source", (*OPTIONAL, *PLACE), partial(column_names, path), cells)


def _unlabelled(path: Path, missing: Sequence[str], input: Input[Any]) -> MissingColumn:
    return MissingColumn(
        f"{display(path)} needs the column {' and '.join(missing)} to learn from or to judge by, "
        f"and lists {input.noun} without labels. Index them in folders, one a class."
    )


def _is_plain(path: Path) -> bool:
    """Return whether rows have, beside their labels, only what every index has."""
    return not {*PART_COLUMNS[1:], WEIGHT} & column_names(path, ())


def _of_classes(path: Path, places: Locations, input: Input[Any], label: LabelColumns) -> Dataset:
    """Return rows of classes, column by column."""
    (name,) = label.names
    coded = _coded(path, name)
    numbers = np.asarray(coded.indices.fill_null(-1), np.int64)
    if len(blank := np.flatnonzero(numbers < 0)) == len(numbers):
        raise _unlabelled(path, [name], input)
    if len(blank):
        raise DataError(
            f"{display(path)}, row {blank[0] + 1}: the {name} is empty. Fill it in or take the row "
            f"out."
        )
    names = [_class_of(path, name, value) for value in coded.dictionary.to_pylist()]
    target = ClassTarget(tuple(sorted(set(names))))
    code = [target.names.index(one) for one in names]
    columns = {own: _texts(path, column) for own, column in _FACTS.items()}
    columns["parts"] = _texts(path, "part", partial(_part_of, path))
    return Dataset(
        places.ids,
        places,
        tuple(code[number] for number in numbers),
        target,
        input=input,
        choice=label.unread,
        **columns,
    )


_FACTS = {"groups": "group", "strata": "stratum"}  # of a dataset, of an index


def _class_of(path: Path, column: str, value: object) -> str:
    try:
        return as_label(value)
    except DataError as error:
        raise DataError(f"{display(path)}: the {column} {error}. Change it.") from error


def _coded(path: Path, name: str) -> Any:
    """Return a column of texts, dictionary-encoded."""
    arrow = need_pyarrow("Reading an index")
    with parquet_file(path) as file:
        written = file.schema_arrow.names
        own = next(each for each in written if each.strip().casefold() == name.casefold())
        column = file.read(columns=[own]).column(0)
    if not arrow.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return column.unify_dictionaries().combine_chunks()


def _part_of(path: Path, value: object) -> str:
    return part_cell({"part": value}, ["part"], display(path))


def _texts(path: Path, name: str, read: Callable[[object], str] = as_text) -> tuple[str, ...]:
    """Return a column of short texts, () if all are empty; equal texts are one object."""
    coded = _coded(path, name)
    values = [read(value) for value in coded.dictionary.to_pylist()]
    if not any(values):
        return ()
    numbers = np.asarray(coded.indices.fill_null(len(values)), np.int64)
    known = [*values, ""]
    return tuple(known[number] for number in numbers)


def _records(
    path: Path, places: Locations, input: Input[Any], label: LabelColumns
) -> Iterator[tuple[int, Cells]]:
    """Yield the rows as those of a manifest, whose examples are locations."""
    there = column_names(path, ())
    names = tuple(name for name in (*label.needed, *OPTIONAL) if name.casefold() in there)
    for (number, cells), place in zip(parquet_cells(path, names), places, strict=True):
        yield number, {input.column: place, **cells}
