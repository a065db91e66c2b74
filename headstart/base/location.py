"""Where the bytes of an example lie, and the one function that reads them, by range.

A place is a file or an object of a store (s3://, gs://, https://), a range of it (a member of a tar
shard), or a cell of a Parquet or Arrow table. What identifies an example is the digest of its
bytes, wherever they lie; a place, its size and its stamp only spare reading again what has not
changed.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from headstart.base import arrow_files, objects, tars
from headstart.base.atomic import open_file
from headstart.base.errors import DataError
from headstart.base.store import digest

WHOLE = -1  # the offset of an example that is a file of its own
LARGEST = 1_000_000_000  # bytes of an example
STAMPS = 2**17  # objects whose stamps are remembered within a process
TABLES = 2**12  # tables whose marks are remembered within a process
ENDS = 2**16  # bytes at each end of a table that its mark is made of
MARK = "ends:"  # begins the mark of a table, after its size
CHANGED = "has changed since it was indexed: run headstart index again"


@dataclass(frozen=True, slots=True)
class Location:
    """Where an example lies.

    source: an absolute path, or a URL. offset: its first byte in the source; the number of its row
    in a table; WHOLE if the source is the example. size: in bytes, -1 if unknown. column: of a
    table, "image.bytes" for a field of a struct. etag: the source's stamp when it was indexed, of a
    table its mark (`mark_of_table`).
    """

    id: str
    source: str
    offset: int = WHOLE
    size: int = -1
    column: str = ""
    etag: str = ""

    @property
    def name(self) -> str:
        """The example's name without its folders and its ending, for files written about it."""
        return PurePosixPath(self.id).stem or self.id

    @property
    def is_remote(self) -> bool:
        return is_url(self.source)

    @property
    def is_file(self) -> bool:
        """Whether the example is a file of its own on this machine."""
        return self.offset == WHOLE and not self.is_remote

    def __str__(self) -> str:
        return self.source if self.offset == WHOLE else f"{self.source}#{self.id}"


def is_url(source: str) -> bool:
    return "://" in source


def read_at(place: Location) -> bytes:
    """Return the bytes of an example, by its range alone.

    A member of a tar is read with its header before it, which must still be that of this member.
    Raises DataError if the source has changed so that the example is no longer there, OSError if it
    can't be read.
    """
    if place.size > LARGEST:
        raise DataError(f"the example is too large ({place.size / 1e9:.1f} GB)")
    if place.column:
        stamp = stamp_of(place)
        if not _is_same_table(place, stamp):
            raise DataError(f"{_brief(place.source)} {CHANGED}")
        table = _opened_table(place.source, stamp)
        return arrow_files.cell(table, place.offset, place.column, place.size)
    if place.offset == WHOLE:
        return _whole(place.source)
    head = tars.BLOCK
    data = read_range(place.source, place.offset - head, head + place.size)
    if len(data) < head + place.size or not tars.is_header_of(data[:head], place.id, place.size):
        raise DataError(f"{_brief(place.source)} {CHANGED}")
    return data[head:]


def read_range(source: str, start: int, length: int) -> bytes:
    """Return `length` bytes from `start` on, fewer at the end of the source."""
    if is_url(source):
        return objects.get_range(source, start, length)
    with open_file(Path(source)) as file:
        file.seek(start)
        return file.read(length)


def open_source(source: str) -> BinaryIO:
    """Open a file or an object to read it from any byte on."""
    return objects.open_object(source) if is_url(source) else open_file(Path(source))


def stamp_of(place: Location) -> str:
    """Return a text that changes when the source does: size and ETag, or modification time.

    An object's is asked for once per process; it ends with "-" if the server tells nothing but the
    size. Raises OSError, or DataError of an object, if there is no such source.
    """
    return _stamp_of_object(place.source) if place.is_remote else stamp_of_file(place.source)


def stamp_of_file(path: str | Path) -> str:
    """Return size and modification time of a file as a text."""
    status = os.stat(path)
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def mark_of_table(source: str, stamp: str) -> str:
    """Return a text that stays if a table is copied, and changes if it is written anew.

    It is made of the table's size and of its first and last bytes, where Parquet and Arrow keep the
    places and sizes of all else. Rows are known by their numbers, so that of another table each
    would get the label of another row. stamp: as of `stamp_of`.
    """
    size = stamp.partition("-")[0]
    starts = (0, max(0, int(size, 16) - ENDS))
    held = digest(*(read_range(source, start, ENDS) for start in starts))
    return f"{size}-{MARK}{held.hex()}"


_remembered_mark = lru_cache(maxsize=TABLES)(mark_of_table)


def _is_same_table(place: Location, stamp: str) -> bool:
    """Return whether a place's table is the one that was indexed: earlier indexes tell its size."""
    size, _, mark = place.etag.partition("-")
    if mark.startswith(MARK):
        return place.etag == _remembered_mark(place.source, stamp)
    return size in ("", stamp.partition("-")[0])


@lru_cache(maxsize=STAMPS)
def _stamp_of_object(url: str) -> str:
    return objects.head(url).stamp


def _whole(source: str) -> bytes:
    if is_url(source):
        return objects.get(source, LARGEST)
    with open_file(Path(source)) as file:
        return file.read()


@lru_cache(maxsize=8)
def _opened_table(source: str, stamp: str) -> arrow_files.OpenTable:
    """Return a table, opened once for every state of its file."""
    return arrow_files.open_table(source, open_source(source) if is_url(source) else None)


def _brief(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2]
