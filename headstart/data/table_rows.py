"""Rows of Parquet and Arrow tables that hold examples, as those of an index."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.arrow_files import ARROW, field_of, mapped_table, need_pyarrow
from headstart.base.cells import as_text
from headstart.base.display import display
from headstart.base.errors import DataError, UnknownName
from headstart.base.location import (
    WHOLE,
    Location,
    is_url,
    mark_of_table,
    open_source,
    stamp_of,
)
from headstart.base.tables import values_of
from headstart.data.dataset import LeftOut
from headstart.data.gathering import Row, parts_of
from headstart.data.index_file import PLACE, SLICE
from headstart.data.layouts import PART_WORDS
from headstart.data.readers import ID, OPTIONAL
from headstart.targets.registry import TARGETS
from headstart.targets.soft_labels import PREFIX, PROBABILITY

LABEL = "label"  # the column of an index
MEANT = (*PLACE, *OPTIONAL)  # columns of an index with another meaning than labels
BYTES, PATH_FIELD = "bytes", "path"  # fields of a struct that holds a file
USUAL = ("image", "img", "picture", "photo", "bytes", "content", "data", "jpg", "jpeg", "png")
STATE, SPLITS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"  # of `datasets`


@dataclass(frozen=True)
class TableShard:
    """A table with examples. name: relative to the data. part: of all its rows, or ""."""

    name: str
    source: str
    part: str = ""


@dataclass(frozen=True)
class ExampleColumns:
    """The columns of a table that are read.

    example: with the bytes or the text, "image.bytes" for a field. kind: of input. label: the
    column that is the label, "" for none. names: of the classes that its numbers stand for. kept:
    columns that mean the same in a manifest. spread: columns of 0 and 1, one per label.
    """

    example: str
    kind: str
    label: str = ""
    names: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()

    @property
    def copied(self) -> tuple[str, ...]:
        """The columns that an index has under the same names."""
        return (*self.kept, *self.spread)

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of an index that hold labels of these rows."""
        whole = {TARGETS[kind].reads[0] for kind in TARGETS.names()}
        own = (name for name in self.kept if name in whole or _is_probability(name))
        return (*([LABEL] if self.label else []), *own, *self.spread)


@dataclass
class TableReader:
    """Reads the rows of tables of one kind. column, label: the user's choice, "" for the usual."""

    column: str = ""
    label: str = ""
    left_out: list[LeftOut] = field(default_factory=list)

    def columns(self, shards: Iterable[TableShard]) -> dict[TableShard, ExampleColumns]:
        """Return the columns that are read of each table, by the tables' schemas; a table that
        can't be read is left out, and named.

        Raises DataError if no column of the first table is plainly that of the examples.
        """
        found = dict[TableShard, ExampleColumns]()
        for shard in shards:
            with self._named(shard, raised=not found), closing(_opened(shard.source)) as table:
                own = columns_of(table.schema, shard, self.column, self.label)
                _check_kind(own, found.values(), shard)
                found[shard] = own if own.labels else _with_spread(own, table)
        return found

    def rows(
        self, tables: Mapping[TableShard, ExampleColumns], *, alone: bool
    ) -> Iterator[list[Row]]:
        """Yield the rows of an index, slice by slice; a damaged table is left out, and named.

        alone: whether the data is one table, whose rows are named by their numbers alone.
        """
        repeated = self._repeated(tables)
        for shard, columns in tables.items():
            prefix = "" if alone else f"{Path(shard.name).with_suffix('').as_posix()}/"
            with self._named(shard):
                yield from _rows_of(shard, columns, prefix, repeated)

    def _repeated(self, tables: Mapping[TableShard, ExampleColumns]) -> set[str]:
        """Return the ids that occur in several tables."""
        named = [shard for shard, columns in tables.items() if ID in columns.kept]
        seen, twice = set[str](), set[str]()
        for shard in named if len(named) > 1 else []:
            own = set[str]()
            with suppress(*_unreadable()), closing(_opened(shard.source)) as table:
                own |= {as_text(id) for id in values_of(table.column(ID))}
            twice |= own & seen
            seen |= own
        return twice - {""}

    @contextmanager
    def _named(self, shard: TableShard, *, raised: bool = False) -> Iterator[None]:
        """Leave a table out that can't be read, and name it. raised: whether a DataError stays."""
        try:
            yield
        except _unreadable() as error:
            if raised and isinstance(error, DataError):
                raise
            first = next(iter(str(error).splitlines()), type(error).__name__)
            self.left_out.append(LeftOut(shard.name, f"cannot be read: {display(first)[:300]}"))


def _unreadable() -> tuple[type[Exception], ...]:
    """Return the errors of a table that can't be read."""
    return (need_pyarrow("Reading tables").ArrowException, OSError, DataError)


def _check_kind(
    columns: ExampleColumns, before: Iterable[ExampleColumns], shard: TableShard
) -> None:
    """Raise DataError for a table with another kind of examples than those before it."""
    if any(columns.kind != other.kind for other in before):
        raise DataError(
            f"The tables of one data set hold one kind of examples; {shard.name} holds another "
            f"than those before it. Index them by themselves."
        )


def _with_spread(columns: ExampleColumns, table: "_Parquet | _Arrow") -> ExampleColumns:
    """Return the columns with those of 0 and 1, one per label, that a table may have."""
    cells = dict[str, list[str]]()
    for own in table.schema:
        if _is_whole(own.type) and own.name.strip().casefold() not in MEANT:
            column = table.column(own.name)
            if _of_0_and_1(column):
                cells[own.name] = [as_text(value) for value in values_of(column)]
    spread = next(filter(None, (TARGETS[kind].spread(cells) for kind in TARGETS.names())), ())
    return replace(columns, spread=spread)


def _of_0_and_1(column: Any) -> bool:
    import pyarrow.compute

    return {*pyarrow.compute.min_max(column).as_py().values()} <= {0, 1}


def _rows_of(
    shard: TableShard, columns: ExampleColumns, prefix: str, repeated: Collection[str]
) -> Iterator[list[Row]]:
    """Yield the rows of a table. prefix: of the ids that are numbers of rows. repeated: ids that
    get the table's name before them."""
    place, first = Location("", shard.source), 0
    etag = mark_of_table(shard.source, stamp_of(place))
    with closing(_opened(shard.source)) as table:
        for batch in table.slices(columns):
            cells = _Cells(batch, columns)
            ids = cells.texts(ID) if ID in columns.kept else [""] * batch.num_rows
            own = (f"{shard.name}/{id}" if id in repeated else id for id in ids)
            rows = [
                {"id": id or f"{prefix}{n + 1}", "offset": n, "source": shard.source}
                | {"column": columns.example, "etag": etag, "part": shard.part or None}
                for n, id in enumerate(own, first)
            ]
            yield cells.added(rows, shard)
            first += batch.num_rows


class _Cells:
    """The cells of some rows of a table, but for the bytes of examples."""

    def __init__(self, batch: Any, columns: ExampleColumns) -> None:
        self.batch, self.columns = batch, columns

    def texts(self, name: str) -> list[str]:
        return [as_text(value) for value in values_of(self.batch.column(name))]

    def added(self, rows: list[Row], shard: TableShard) -> list[Row]:
        """Add labels, other kept columns, sizes and examples in files of their own to the rows."""
        added: dict[str, Sequence[Any]] = {n: self.texts(n) for n in self.columns.copied if n != ID}
        if self.columns.label:
            added[LABEL] = self.labels()
        added |= self.sizes()
        for name, cells in added.items():
            for row, cell in zip(rows, cells, strict=True):
                row[name] = row.get(name) if cell in ("", None) else cell
        return self.in_files(rows, shard)

    def labels(self) -> list[str]:
        texts, names = self.texts(self.columns.label), self.columns.names
        known = {str(number): name for number, name in enumerate(names)}
        return [known.get(text, "") for text in texts] if names else texts

    def sizes(self) -> dict[str, Sequence[Any]]:
        """Return the sizes of the examples, of a table that is mapped into memory."""
        if self.columns.example.partition(".")[0] not in self.batch.schema.names:
            return {}
        import pyarrow.compute

        return {"size": pyarrow.compute.binary_length(self._examples()).to_pylist()}

    def _examples(self) -> Any:
        import pyarrow

        held = field_of(pyarrow.Table.from_batches([self.batch]), self.columns.example)
        return held.combine_chunks()

    def in_files(self, rows: list[Row], shard: TableShard) -> list[Row]:
        """Point rows without bytes at the file that their struct names."""
        outer, _, inner = self.columns.example.rpartition(".")
        if inner != BYTES or outer not in self.batch.schema.names:
            return rows
        held, structs = self._examples(), self.batch.column(outer)
        for row in np.flatnonzero(~held.is_valid().to_numpy(zero_copy_only=False)):
            if path := (structs[int(row)].as_py() or {}).get(PATH_FIELD):
                source = path if is_url(path) else str(Path(shard.source).parent / path)
                rows[row] |= {"source": source, "offset": WHOLE, "column": None, "etag": None}
        return rows


class _Parquet:
    """A Parquet file, whose examples are not read when it is indexed, unless some have no bytes: a
    struct may name a file in their place."""

    def __init__(self, source: str) -> None:
        from pyarrow import parquet

        self.file = parquet.ParquetFile(open_source(source) if is_url(source) else source)
        self.schema = self.file.schema_arrow

    def slices(self, columns: ExampleColumns) -> Iterator[Any]:
        names = [*columns.copied, *([columns.label] if columns.label else [])]
        if columns.example.endswith(f".{BYTES}") and self._lacks(columns.example):
            names.append(columns.example.rpartition(".")[0])
        yield from self.file.iter_batches(SLICE, columns=list(dict.fromkeys(names)))

    def column(self, name: str) -> Any:
        """Return a whole column, as one array."""
        return self.file.read(columns=[name]).column(name).combine_chunks()

    def _lacks(self, example: str) -> bool:
        """Return whether some examples have no bytes, by the statistics of the row groups."""
        facts = self.file.metadata
        paths = [facts.schema.column(i).path for i in range(facts.num_columns)]
        groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
        held = [group.column(paths.index(example)).statistics for group in groups]
        return any(own is not None and own.null_count for own in held)

    def close(self) -> None:
        self.file.close()


class _Arrow:
    """An Arrow file, mapped into memory: nothing of the examples is read but their sizes."""

    def __init__(self, source: str) -> None:
        self.table = mapped_table(source)
        self.schema = self.table.schema

    def slices(self, columns: ExampleColumns) -> Iterator[Any]:
        yield from self.table.to_batches(SLICE)

    def column(self, name: str) -> Any:
        """Return a whole column, as one array."""
        return self.table.column(name).combine_chunks()

    def close(self) -> None:
        del self.table


def _opened(source: str) -> "_Parquet | _Arrow":
    return _Arrow(source) if source.lower().endswith(ARROW) else _Parquet(source)


def columns_of(schema: Any, shard: TableShard, column: str, label: str) -> ExampleColumns:
    """Choose the columns of a table; raises DataError if none is plainly that of the examples."""
    if column:
        example = _named(schema, column, shard)
    else:
        example = _found(schema, shard)
    kind = "image" if "binary" in str(_type_of(schema, example)) else "text"
    if label and label not in schema.names:
        raise DataError(str(UnknownName(f"column of {shard.name}", label, schema.names)))
    names = class_label_names(schema.metadata)
    usual = LABEL if LABEL in schema.names or len(names) != 1 else next(iter(names))
    own = label or (usual if usual in schema.names else "")
    known = {*OPTIONAL, ID, *(name for kind in TARGETS.names() for name in TARGETS[kind].reads)}
    others = (name for name in schema.names if name not in (own, LABEL, example))
    kept = tuple(name for name in others if name in known or _is_probability(name))
    return ExampleColumns(example, kind, own, names.get(own, ()), kept)


def _named(schema: Any, column: str, shard: TableShard) -> str:
    """Return the column of the examples that the user names, or its field with bytes."""
    if column not in schema.names:
        raise DataError(str(UnknownName(f"column of {shard.name}", column, schema.names)))
    kind = schema.field(column).type
    if _holds_files(kind):
        return f"{column}.{BYTES}"
    if not _is_binary(kind) and not _is_text(kind):
        raise DataError(
            f"A column of examples holds the bytes of files, or texts; {column} of {shard.name} is "
            f"a column of {kind}. Name another --column."
        )
    return column


def _found(schema: Any, shard: TableShard) -> str:
    """Return the column of the examples: the only one of bytes, one of a usual name, or `text`."""
    held = [f.name for f in schema if _is_binary(f.type) or _holds_files(f.type)]
    usual = [name for name in held if name.lower() in USUAL]
    texts = [f.name for f in schema if f.name.lower() == "text" and _is_text(f.type)]
    for found in (held, usual, [] if held else texts):
        if len(found) == 1:
            return _named(schema, found[0], shard)
    raise DataError(
        f"A table of examples has one column with the bytes of pictures, or a column text; "
        f"{shard.name} has {', '.join(map(display, schema.names[:30]))}. Name it with --column."
    )


def _type_of(schema: Any, example: str) -> Any:
    if example in schema.names:
        return schema.field(example).type
    outer, _, inner = example.rpartition(".")
    return schema.field(outer).type.field(inner).type


def _is_probability(column: str) -> bool:
    return column == PROBABILITY or column.strip().casefold().startswith(PREFIX)


def _is_whole(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_boolean(kind) or types.is_integer(kind))


def _is_binary(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _holds_files(kind: Any) -> bool:
    from pyarrow import types

    fields = [kind.field(i) for i in range(kind.num_fields)] if types.is_struct(kind) else []
    return any(own.name == BYTES and _is_binary(own.type) for own in fields)


def class_label_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, as `datasets` writes them into a table's schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        labels = {n: f for n, f in features.items() if f.get("_type") == "ClassLabel"}
        return {name: tuple(map(str, own["names"])) for name, own in labels.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `datasets` saved a dataset, or several splits, in this folder."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def saved_shards(folder: Path, left_out: list[LeftOut]) -> list[TableShard]:
    """Return the tables of a folder that `datasets` saved, each with the part of its split.

    Splits by other names than of parts are left out, and named. Raises DataError if it is damaged.
    """
    if not (folder / SPLITS).is_file():
        return _shards_in(folder, folder, "")
    shards = list[TableShard]()
    for split in _json_in(folder / SPLITS, "splits"):
        if part := PART_WORDS.get(str(split).lower(), ""):
            shards += _shards_in(folder, folder / str(split), part)
        else:
            why = f"a split by another name than {_listed(PART_WORDS.values())}"
            left_out.append(LeftOut(display(str(split)), why))
    return shards


def _shards_in(root: Path, folder: Path, part: str) -> list[TableShard]:
    files = [Path(str(each["filename"])).name for each in _json_in(folder / STATE, "_data_files")]
    paths = [folder / name for name in files]
    return [TableShard(p.relative_to(root).as_posix(), str(p), part) for p in paths]


def _json_in(path: Path, key: str) -> list[Any]:
    try:
        return list(json.loads(path.read_bytes())[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{display(path)} must be as datasets writes it, with {key}; it can't be read "
            f"({error}). Save the dataset again."
        ) from error


def table_shards(sources: Mapping[str, str]) -> list[TableShard]:
    """Return tables by their names, each with the part that its name says."""
    parts = parts_of(sources)
    return [TableShard(name, source, parts[name]) for name, source in sources.items()]


def _listed(words: Collection[str]) -> str:
    return ", ".join(dict.fromkeys(words))
