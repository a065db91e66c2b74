"""Read tables (CSV, JSON Lines, Parquet) by rows, with an error for each way one can be wrong."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from headstart.base.atomic import writing
from headstart.base.cells import NOT_UTF8, Unsupported, as_text, not_utf8
from headstart.base.display import display
from headstart.base.errors import DataError, MissingPackage

Cells = dict[str, object]  # one row: the requested columns that the file has, by name
BOMS = {  # longest first: UTF-32's little-endian mark begins with UTF-16's
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
DELIMITERS = (",", ";", "\t", "|")
NO_TEXT = {  # first bytes of other kinds of table -> their name for a message
    b"PK\3\4": "a ZIP archive, as Excel's .xlsx is",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip archive",
}
JSON_LINES = (".jsonl", ".ndjson")
DELIMITED = (".csv", ".tsv")  # tables whose cells are separated by any of DELIMITERS
HEADER_LINES = 1000  # objects whose keys are the columns of a JSON Lines file
LONGEST_TEXT, LONGEST = 2**30, 2**17  # characters of an example, and of other cells
SURROGATE = re.compile("[\ud800-\udfff]")
NAMED, SHOWN = 30, 60  # columns that a message names, and characters of each
RAW = "path"  # the column that may hold bytes other than UTF-8: file names
TEXTS = " Of a table that holds texts, their column is called text."
COLUMNS_AT_ONCE = 256  # columns of a Parquet file that are read together
SAMPLE = 1_000_000  # most bytes to guess an encoding from, and most characters of a header


class MissingColumn(DataError):
    """A table lacks a column that is needed."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read from a table.

    written: by name, what a column is called in this table if it has another name there.
    """

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)

    def placed(self, path: Path, header: Sequence[str]) -> dict[str, int]:
        """Return the index of each column in the header, ignoring case and outer blanks.

        Raises MissingColumn if a needed column is missing, DataError if a name occurs twice.
        """
        places = dict[str, int]()
        for name in (*self.needed, *self.optional):
            there = self.written.get(name, name)
            found = [i for i, text in enumerate(header) if text == there]
            found = found or [i for i, text in enumerate(header) if _folded(text) == there]
            if len(found) > 1:
                raise DataError(f"{display(path)} has two columns named {name!r}: leave one out.")
            places |= dict.fromkeys([name], found[0]) if found else {}
        if missing := [name for name in self.needed if name not in places]:
            there = ", ".join(_brief(text) for text in header[:NAMED])
            there += f" and {len(header) - NAMED} more" if len(header) > NAMED else ""
            raise MissingColumn(
                f"{display(path)} needs the columns {' and '.join(self.needed)}, named in its "
                f"first row; it has no column {' and no '.join(missing)} among "
                f"{there or 'none at all'}.{TEXTS if RAW in missing else ''}"
            )
        return places


def csv_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Cells]]:
    """Yield the number (the header is row 1) and cells of every non-blank row of a CSV file.

    Raises DataError for a row of another length than the header, and for bytes that are not UTF-8,
    except in the column RAW, where they become surrogates.
    """
    lines = csv_lines(path, [columns.written.get(name, name) for name in columns.needed])
    _, header = next(lines, (1, list[str]()))
    places = columns.placed(path, header)
    for number, row in lines:
        if len(row) != len(header):
            many = "more" if len(row) > len(header) else "fewer"
            raise DataError(
                f"{display(path)}, row {number}: {many} fields than the header has columns "
                f"({len(row)}, not {len(header)}). Put quotation marks around a field that holds a "
                f"comma."
            )
        cells = {name: row[place] for name, place in places.items()}
        if any(NOT_UTF8.search(cell) for name, cell in cells.items() if name != RAW):
            raise unreadable_text(path)
        for name, cell in cells.items():
            if len(cell) > LONGEST and name != columns.needed[0]:
                raise DataError(
                    f"{display(path)}, row {number}: the {name} may hold {LONGEST:,} characters; "
                    f"it holds {len(cell):,}. Is a quotation mark missing?"
                )
        yield number, dict[str, object](cells)


def column_names(path: Path, needed: Sequence[str]) -> set[str]:
    """Return a table's column names, case folded; `needed` is as for `csv_lines`."""
    return {_folded(name) for name in header_of(path, needed)}


def header_of(path: Path, needed: Sequence[str]) -> list[str]:
    """Return a table's column names as they are written; `needed` is as for `csv_lines`."""
    if path.suffix.lower() in DELIMITED:
        return next((cells for _, cells in csv_lines(path, needed)), [])
    if path.suffix.lower() in JSON_LINES:
        return _names_of(row for _, row in islice(json_lines(path), HEADER_LINES))
    with parquet_file(path) as file:
        return list(file.schema_arrow.names)


def csv_lines(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and cells of every non-blank row of a CSV file, the header first.

    The encoding is UTF-8, or UTF-16 or UTF-32 with a byte order mark. The delimiter (comma,
    semicolon, tab or bar) is the first that gives a header with the `needed` columns, or else that
    divides the first two lines into as many cells, or a comma.
    """
    encoding = _encoding(path)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    csv.field_size_limit(LONGEST_TEXT)
    try:
        with open(path, encoding=encoding, errors=errors, newline="") as f:
            delimiter = _delimiter(f, needed)
            blanks = _blanks_before_quotes(f, delimiter)
            reader = csv.reader(f, delimiter=delimiter, strict=True, skipinitialspace=blanks)
            for number, row in enumerate(reader, start=1):
                if any("\0" in cell for cell in row):
                    raise DataError(f"{display(path)}, row {number}: holds a NUL; it is no text.")
                if any(cell.strip() for cell in row):
                    yield number, row
    except (csv.Error, UnicodeError) as error:
        raise DataError(
            f"{display(path)} is not a CSV file that can be read: {display(str(error))}."
        ) from error


def _encoding(path: Path) -> str:
    """Return the encoding by the BOM, or UTF-8; DataError if binary or UTF-16 without a BOM."""
    with open(path, "rb") as f:
        head = f.read(4096)
    for mark, what in NO_TEXT.items():
        if head.startswith(mark):
            raise DataError(
                f"A {_kind_of(path)} file is text; {display(path)} is {what}. Save or export the "
                f"table as {_kind_of(path)} in UTF-8, or give a Parquet file the ending .parquet."
            )
    for mark, encoding in BOMS.items():
        if head.startswith(mark):
            return encoding
    if head.count(0) > len(head) // 4:
        raise DataError(f"{display(path)} {not_utf8(head)}.")
    return "utf-8"


def _brief(name: str) -> str:
    return display(name if len(name) <= SHOWN else f"{name[:SHOWN]}…")


def _kind_of(path: Path) -> str:
    return "JSON Lines" if path.suffix.lower() in JSON_LINES else "CSV"


def _delimiter(f: TextIO, needed: Sequence[str]) -> str:
    """Return the delimiter by a first line `sep=;`, which is skipped, or by the header."""
    first = f.readline(SAMPLE)
    stated = first.rstrip("\r\n").removeprefix("sep=")
    if first.startswith("sep=") and len(stated) == 1:
        return stated
    second = f.readline(SAMPLE)
    f.seek(0)
    for delimiter in DELIMITERS:
        names = {_folded(text) for row in csv.reader([first], delimiter=delimiter) for text in row}
        if names >= set(needed):
            return delimiter
    for delimiter in DELIMITERS:
        header, cells = ([*csv.reader([line], delimiter=delimiter)] for line in (first, second))
        if header and cells and len(header[0]) == len(cells[0]) > 1:
            return delimiter
    return ","


def _blanks_before_quotes(f: TextIO, delimiter: str) -> bool:
    """Return whether a quote follows a blank, as in `"a.png", "cat"`, in the next two lines."""
    place = f.tell()
    lines = f.readline(SAMPLE) + f.readline(SAMPLE)
    f.seek(place)
    return f'{delimiter} "' in lines


def _folded(name: str) -> str:
    return "" if NOT_UTF8.search(name) else as_text(name).casefold()


def unreadable_text(path: Path) -> DataError:
    """Return the error for a CSV file that is not UTF-8, which names its likely encoding."""
    with open(path, "rb") as f:
        whole_lines = f.read(SAMPLE).rpartition(b"\n")
    return DataError(f"{display(path)} {not_utf8(whole_lines[0] or whole_lines[2])}.")


def rows_of_table(path: Path, columns: Columns) -> Iterator[tuple[int, Cells]]:
    """Yield the number and cells of every row of a CSV, JSON Lines or Parquet file."""
    suffix = path.suffix.lower()
    if suffix in JSON_LINES:
        return json_rows(path, columns)
    return csv_rows(path, columns) if suffix in DELIMITED else parquet_rows(path, columns)


def json_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Cells]]:
    """Yield the number of the line and the cells of every object of a JSON Lines file."""
    rows = list(json_lines(path))
    header = _names_of(row for _, row in rows)
    places = columns.placed(path, header)
    for number, row in rows:
        yield number, {name: _json_cell(row.get(header[at])) for name, at in places.items()}


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the number and the object of every line that is not blank.

    Raises DataError, with the line, for another encoding and for anything but an object.
    """
    encoding = _encoding(path)
    with open(path, "rb") as f:
        lines: Iterable[bytes] = f
        if not encoding.startswith("utf-8"):
            lines = _recoded(path, f.read(), encoding)
        for number, line in enumerate(lines, 1):
            where = f"{display(path)}, row {number}"
            text = _utf8(line.removeprefix(b"\xef\xbb\xbf"), where)
            if text.strip():
                yield number, _json_object(text, where)


def _recoded(path: Path, data: bytes, encoding: str) -> list[bytes]:
    try:
        return data.decode(encoding).encode().split(b"\n")
    except UnicodeError as error:
        raise DataError(
            f"{display(path)} begins as {encoding.upper()} and is not. Save it as UTF-8."
        ) from error


def _utf8(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: {not_utf8(line)}.") from None


def _json_object(line: str, where: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'{where}: a line of JSON Lines holds one object, as {{"text": "…", "label": "…"}}; '
            f"this one is no JSON ({display(str(error))})."
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a line of JSON Lines holds one object; got a {_json_kind(row)}.")
    for cell in (*row, *row.values()):
        if isinstance(cell, str) and SURROGATE.search(cell):
            raise DataError(
                f"{where}: holds half of a character (a lone surrogate); it is no text."
            )
    return row


def _names_of(rows: Iterable[dict[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _json_cell(value: object) -> object:
    return Unsupported(f"a {_json_kind(value)}") if isinstance(value, list | dict) else value


def _json_kind(value: object) -> str:
    kinds: dict[type, str] = {list: "list", dict: "JSON object", str: "text"}
    return kinds.get(type(value), "number or constant")


def parquet_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Cells]]:
    """Yield the number (from 1) and cells of every row of a Parquet file."""
    number = 0
    with parquet_file(path) as file:
        header = file.schema_arrow.names
        places = columns.placed(path, header)
        for batch in file.iter_batches(columns=[header[i] for i in places.values()]):
            found = {name: values_of(batch.column(header[i])) for name, i in places.items()}
            for cells in zip(*found.values(), strict=True):
                number += 1
                yield number, dict(zip(found, cells, strict=True))


def parquet_cells(path: Path, names: Sequence[str]) -> Iterator[tuple[int, Cells]]:
    """Yield the number (from 1) and these columns of every row of a Parquet file, if it has any."""
    return parquet_rows(path, Columns((), tuple(names)))


def parquet_height(path: Path) -> int:
    """Return the number of rows of a Parquet file; raises as `parquet_columns` does."""
    with parquet_file(path) as file:
        return int(file.metadata.num_rows)


def parquet_columns(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield columns of a Parquet file as NumPy arrays: numbers, or texts and None as objects.

    Few columns are in memory at a time. Raises DataError for another file, MissingPackage without
    pyarrow.
    """
    with parquet_file(path) as file:
        for start in range(0, len(names), COLUMNS_AT_ONCE):
            block = list(names[start : start + COLUMNS_AT_ONCE])
            table = file.read(columns=block)
            for name in block:
                yield name, table.column(name).to_numpy(zero_copy_only=False)


def write_parquet_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns, arrays of numbers or sequences of texts, as a Parquet file, atomically.

    Lone surrogates become \\udcXX. Raises MissingPackage without pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingPackage("pyarrow", purpose="Writing a Parquet file", extra="parquet") from None

    def whole(text: str) -> str:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    arrays = {
        whole(name): pyarrow.array(column)
        if isinstance(column, np.ndarray)
        else pyarrow.array(list(map(whole, column)), pyarrow.string())
        for name, column in columns.items()
    }
    with writing(path) as file:
        parquet.write_table(pyarrow.table(arrays), file, compression="zstd", use_dictionary=False)


@contextmanager
def parquet_file(path: Path) -> Iterator[Any]:
    """Yield the file opened by pyarrow, whose errors become DataError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingPackage("pyarrow", purpose="Reading a Parquet file", extra="parquet") from None
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        first = display(next(iter(str(error).splitlines()), type(error).__name__))
        raise DataError(f"{display(path)} cannot be read as Parquet: {first}") from error


def values_of(column: Any) -> list[object]:
    """Return the cells of an Arrow array as values that `as_text` takes, texts as bytes."""
    import pyarrow
    from pyarrow import types

    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if types.is_timestamp(kind) or types.is_date(kind):
        return _moments(column)
    if types.is_floating(kind) and kind.bit_width < 64:
        return list(column.to_numpy(zero_copy_only=False))  # in its own precision; null is NaN
    if str(kind) in ("string", "large_string", "string_view"):
        return column.cast(pyarrow.large_binary()).to_pylist()  # its UTF-8 may be invalid
    plain = (types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal)
    if any(of_type(kind) for of_type in plain) or "binary" in str(kind).split("[")[0]:
        return column.to_pylist()
    return [Unsupported(f"a {kind}") if there else None for there in column.is_valid().to_pylist()]


def _moments(column: Any) -> list[object]:
    """Return dates and times as NumPy values, or as text in UTC if they have a time zone."""
    import pyarrow

    zone = getattr(column.type, "tz", None)
    days = column.type == pyarrow.date32()
    unit: Any = getattr(column.type, "unit", "D" if days else "ms")
    numbers = column.cast(pyarrow.int32() if days else pyarrow.int64()).to_pylist()
    moments = [None if n is None else np.datetime64(n, unit) for n in numbers]
    if zone is None:
        return list(moments)
    return [None if m is None else f"{as_text(m)}Z" for m in moments]  # 1970-01-01 is falsy
