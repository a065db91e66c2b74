"""Cells of Parquet and Arrow files, read one by one without decoding them.

`datasets` keeps a dataset as Arrow files, whose columns of pictures hold the bytes of files; read
here, they are never decoded, so that the library itself is not needed.
"""

import os
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from threading import Lock
from typing import Any, BinaryIO, Protocol

from headstart.base.cells import as_text
from headstart.base.errors import DataError, MissingPackage

ARROW = ".arrow"
CHANGED = "the table has changed since it was indexed: run headstart index again"
GROUPS = 2  # row groups of a Parquet file that are kept: neighbours are mostly asked for in turn


class OpenTable(Protocol):
    """A table whose cells are read one by one, by several threads."""

    def scalar(self, row: int, column: str) -> Any: ...  # raises IndexError, KeyError


def need_pyarrow(purpose: str) -> Any:
    """Return pyarrow; raises MissingPackage, which names the extra.

    Its own allocators keep much of what was freed, so that it is to use the system's, unless the
    environment names another.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        import pyarrow
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingPackage("pyarrow", purpose=purpose, extra="parquet") from None
    return pyarrow


def open_table(source: str, file: BinaryIO | None) -> OpenTable:
    """Open a Parquet file, or an Arrow file of this machine.

    file: the opened object; None for a file of this machine. Raises DataError if it is damaged.
    """
    arrow = need_pyarrow("Reading a table")
    try:
        is_arrow = source.lower().endswith(ARROW)
        return ArrowTable(source) if is_arrow else ParquetTable(file or source)
    except arrow.ArrowException as error:
        raise DataError(f"its table can't be read ({_first_line(error)})") from error


class ParquetTable:
    """A Parquet file. The row groups read last are kept: a cell costs its group otherwise."""

    def __init__(self, file: Any) -> None:
        from pyarrow import parquet

        self.file = parquet.ParquetFile(file)
        facts = self.file.metadata
        rows = [facts.row_group(i).num_rows for i in range(facts.num_row_groups)]
        self.ends = list(accumulate(rows))
        self.kept = OrderedDict[tuple[int, str], Any]()
        self.lock = Lock()  # pyarrow's readers are not for several threads

    def scalar(self, row: int, column: str) -> Any:
        group = bisect_right(self.ends, row)
        if group == len(self.ends):
            raise IndexError(row)
        first = self.ends[group - 1] if group else 0
        with self.lock:
            return self._column(group, column)[row - first]

    def _column(self, group: int, column: str) -> Any:
        key = group, column
        if key not in self.kept:
            read = self.file.read_row_group(group, columns=[column], use_threads=False)
            self.kept[key] = field_of(read, column)
            if len(self.kept) > GROUPS:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


class ArrowTable:
    """An Arrow file, stream or not, mapped into memory: nothing is copied until a cell is read."""

    def __init__(self, path: str) -> None:
        self.table = mapped_table(path)
        self.columns = dict[str, Any]()

    def scalar(self, row: int, column: str) -> Any:
        if row >= self.table.num_rows:
            raise IndexError(row)
        if column not in self.columns:
            self.columns[column] = field_of(self.table, column)
        return self.columns[column][row]


def mapped_table(path: str) -> Any:
    """Return the table of an Arrow file, stream or not, mapped into memory."""
    arrow = need_pyarrow("Reading an Arrow file")
    from pyarrow import ipc

    mapped = arrow.memory_map(path)
    try:
        return ipc.open_stream(mapped).read_all()
    except arrow.ArrowInvalid:
        mapped.seek(0)
        return ipc.open_file(mapped).read_all()


def field_of(table: Any, column: str) -> Any:
    """Return a column of a table, or a field of a column of structs: "image.bytes".

    Raises KeyError if there is none of this name.
    """
    import pyarrow.compute
    from pyarrow import types

    found = None
    if column in table.column_names:
        found = table.column(column)
    outer, _, inner = column.rpartition(".")
    if found is None and outer in table.column_names:
        found = pyarrow.compute.struct_field(table.column(outer), inner)
    if found is None:
        raise KeyError(column)
    return found.cast(found.type.value_type) if types.is_dictionary(found.type) else found


def cell(table: OpenTable, row: int, column: str, size: int) -> bytes:
    """Return the bytes of a cell: as they are, or of a text as UTF-8, tidied as in other tables.

    size: in bytes, when the table was indexed; -1 if unknown. Raises DataError if there is no such
    cell any more, if it has another size, or is empty.
    """
    import pyarrow

    try:
        value = table.scalar(row, column)
    except (IndexError, KeyError):
        raise DataError(CHANGED) from None
    except pyarrow.ArrowException as error:
        raise DataError(f"its table can't be read ({_first_line(error)})") from error
    if not value.is_valid:
        raise DataError("is empty")
    data = bytes(value.as_buffer())
    if 0 <= size != len(data):
        raise DataError(CHANGED)
    return data if "binary" in str(value.type) else _text(data)


def _text(data: bytes) -> bytes:
    try:
        return as_text(data).encode()
    except UnicodeEncodeError:
        raise DataError("is no text in UTF-8") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
