"""The files of the store: columns of rows in a safetensors file, each row named by a digest.

The rows of a column have one shape, or any first length each: those lie one after the other in a
tensor, and a tensor of the name with ".ends" says where each ends.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from headstart.base.seals import blanked, sealing

DIGEST_BYTES = 16
KEYS = "__digests__"
ENDS = ".ends"
ANY = -1  # the first length of rows that have their own
DENSE = 4  # a run of rows is read whole if at least one in this many is wanted
_LONGEST = 100 * 2**20  # bytes of a header: the limit of safetensors
_BLOCK = 2**20  # bytes read at a time
_RECENT_NS = 10**8  # two changes within one clock tick leave the same modification time
KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?", "I8": "i1", "U8": "u1"}
KINDS |= {f"{s.upper()}{8 * n}": f"<{s}{n}" for s in "iu" for n in (2, 4, 8)}

Rows = NDArray[np.generic] | Sequence[NDArray[np.generic]]  # a list if each has its own length


@dataclass(frozen=True)
class Stamp:
    """A file's inode, size, modification time and time of checking, both in ns."""

    number: int
    size: int
    changed: int
    checked: int

    @classmethod
    def of(cls, file: BinaryIO) -> "Stamp":
        found = os.fstat(file.fileno())
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, time.time_ns())

    def holds(self, file: BinaryIO) -> bool:
        """Return whether `file` is surely unchanged; False if it was just written when checked."""
        now = Stamp.of(file)
        same = (now.number, now.size, now.changed) == (self.number, self.size, self.changed)
        return same and not 0 <= self.checked - self.changed < _RECENT_NS


@dataclass(frozen=True, eq=False)
class Column:
    """A column's first byte in a shard, its number of rows, and a row's dtype and shape.

    ends: of each row, counted in entries of the tensor, if rows have their own lengths.
    """

    begin: int
    rows: int
    kind: np.dtype[Any]
    unit: tuple[int, ...]  # shape of an entry of the tensor: of a row without its own length
    ends: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    ragged: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (ANY, *self.unit) if self.ragged else self.unit

    def read(self, file: BinaryIO, first: int, count: int) -> NDArray[np.generic]:
        """Return `count` rows from `first`, joined if they have their own lengths.

        Raises ValueError if the file is too short.
        """
        if self.ragged:
            start = int(self.ends[first - 1]) if first else 0
            first, count = start, int(self.ends[first + count - 1]) - start
        size = math.prod(self.unit) * self.kind.itemsize
        file.seek(self.begin + first * size)
        data = file.read(count * size)
        if len(data) != count * size:
            raise ValueError("it was cut short")
        return np.frombuffer(data, self.kind).reshape(count, *self.unit)

    def some(self, file: BinaryIO, rows: NDArray[np.integer[Any]]) -> NDArray[np.generic]:
        """Return these rows, in this order, of rows that have one shape: (len(rows), *unit).

        Only what lies between the first and the last of them is read, and of that only the wanted
        rows if these are few. Raises ValueError if the file is too short.
        """
        first, last = int(rows.min()), int(rows.max())
        if last - first < DENSE * len(rows):
            return self.read(file, first, last - first + 1)[rows - first]
        out = np.empty((len(rows), *self.unit), self.kind)
        for place in np.argsort(rows, kind="stable").tolist():
            out[place] = self.read(file, int(rows[place]), 1)[0]
        return out


@dataclass(frozen=True)
class FileDigests:
    """What the bytes of a file say of it. name: `digest` of all. seal: in its header, "" without
    one. made: the seal that these bytes and the table's name give."""

    name: str
    seal: str
    made: str

    @classmethod
    def of(cls, file: BinaryIO, table: str = "") -> "FileDigests":
        """Read a file once, a block at a time; table: its name."""
        file.seek(0)
        whole = hashlib.blake2b(
            os.fstat(file.fileno()).st_size.to_bytes(8, "little"), digest_size=16
        )
        length = file.read(8)
        head = length + file.read(min(int.from_bytes(length, "little"), _LONGEST))
        blank, seal = blanked(head)
        sealer = sealing(table)
        whole.update(head)
        sealer.update(blank)
        for block in blocks_of(file):
            whole.update(block)
            sealer.update(block)
        return cls(whole.hexdigest(), seal, str(sealer.hexdigest()))


def blocks_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file."""
    return iter(lambda: file.read(_BLOCK), b"")


def tensors_of(columns: Mapping[str, Rows]) -> dict[str, NDArray[np.generic]]:
    """Return the tensors of columns; a list of arrays becomes one tensor and its rows' ends."""
    tensors = dict[str, NDArray[np.generic]]()
    for name, rows in columns.items():
        if isinstance(rows, np.ndarray):
            tensors[name] = rows
        else:
            tensors[name] = np.concatenate(rows)
            tensors[f"{name}{ENDS}"] = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return tensors


def columns_in(file: BinaryIO) -> dict[str, Column]:
    """Return a safetensors file's columns; ValueError unless there are as many rows as digests.

    The format: 8 bytes of length, a JSON header, the tensors.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, _LONGEST):
        raise ValueError("its header is cut short")
    try:
        header = json.loads(file.read(length))
        entries = {k: v for k, v in header.items() if k != "__metadata__"}
        columns = {k: _column(v, 8 + length, size) for k, v in entries.items()}
        columns = _with_ends(file, columns)
        keys = columns[KEYS]
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its header can't be read: {error}") from error
    uneven = {c.rows for c in columns.values()} != {keys.rows}
    if uneven or (keys.kind, keys.shape) != (np.dtype("u1"), (DIGEST_BYTES,)):
        raise ValueError("its columns and digests do not agree")
    return columns


def _with_ends(file: BinaryIO, columns: Mapping[str, Column]) -> dict[str, Column]:
    """Return columns whose rows have their own lengths with these, instead of the columns of ends.

    Raises ValueError for ends that the tensor does not have.
    """
    found = dict(columns)
    for name in [name for name in columns if f"{name}{ENDS}" in columns]:
        place, column = found.pop(f"{name}{ENDS}"), columns[name]
        if (place.kind, place.unit) != (np.dtype("<i8"), ()):
            raise ValueError("the ends of its rows are no whole numbers")
        ends = place.read(file, 0, place.rows).astype(np.int64)
        if not len(ends) or (np.diff(ends, prepend=0) < 0).any() or ends[-1] != column.rows:
            raise ValueError("the ends of its rows do not agree with its tensor")
        found[name] = replace(column, rows=len(ends), ends=ends, ragged=True)
    return found


def _column(entry: Mapping[str, Any], start: int, size: int) -> Column:
    kind, (rows, *shape) = np.dtype(KINDS[entry["dtype"]]), entry["shape"]
    begin, end = entry["data_offsets"]
    if not all(type(n) is int and 0 <= n <= size for n in (rows, *shape, begin, end)):
        raise ValueError("its header has sizes that no file has")
    if end - begin != rows * math.prod(shape) * kind.itemsize or start + end > size:
        raise ValueError("its header promises more than there is")
    return Column(start + begin, rows, kind, tuple(shape))
