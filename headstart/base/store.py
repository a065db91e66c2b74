"""A content-addressed cache of arrays on disk.

    STORE/<table>/<blake2b of the file>.safetensors

A table's name is the fingerprint of everything that decides its rows (weights, preprocessing,
precision, ...); a row's name is the digest of its input. A shard is immutable and named by the
digest of its bytes, so no lock is needed: two writers of the same rows write two good files, and
the rows of a file that does not match its name are computed again.

The rows of a column have one shape, or any first length each: those lie one after the other in a
tensor, and a tensor of the name with ".ends" says where each ends.

A shard is sealed with its table's name, so that another table rejects it. Tables of earlier
versions have no seals and stay readable; a table marked in STORE/.sealed holds sealed shards only.
"""

import hashlib
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors.numpy import save as pack

from headstart.base.atomic import open_file, sweep, write_bytes
from headstart.base.errors import Mismatch, StoreError
from headstart.base.seals import BLANK, SEAL, has_seal, seal_holds, sealed

DIGEST_BYTES = 16
_KEYS = "__digests__"
_SEALED = ".sealed"  # a folder of empty files, named after the tables that hold sealed shards only
_LONGEST = 100 * 2**20  # bytes of a header: the limit of safetensors
_RECENT_NS = 10**8  # two changes within one clock tick leave the same modification time
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?", "I8": "i1", "U8": "u1"}
_KINDS |= {f"{s.upper()}{8 * n}": f"<{s}{n}" for s in "iu" for n in (2, 4, 8)}

_ENDS = ".ends"

ANY = -1  # the first length of rows that have their own
Layout = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]  # column -> dtype and shape of one row
Rows = NDArray[np.generic] | Sequence[NDArray[np.generic]]  # a list if each has its own length


def digest(*parts: bytes | memoryview) -> bytes:
    """Return the 16-byte BLAKE2b of `parts`, each after its length: ("a", "bc") ≠ ("ab", "c")."""
    h = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        h.update(memoryview(part).nbytes.to_bytes(8, "little"))
        h.update(part)
    return h.digest()


@dataclass(frozen=True)
class Store:
    """The cache of tables.

    root: None for $HEADSTART_STORE, or else headstart/store in the user's cache folder. reread:
    whether the examples of an index are read even where their places have not changed.

    >>> Store(Path("features")).folder
    PosixPath('features')
    """

    root: Path | None = None
    reread: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.root, str):
            object.__setattr__(self, "root", Path(self.root))

    @property
    def folder(self) -> Path:
        if self.root is not None:
            return self.root
        if own := os.environ.get("HEADSTART_STORE"):
            return Path(own)
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "headstart" / "store"

    def table(self, name: str, layout: Layout | None = None) -> "StoredTable":
        """Return the table `name`; shards whose rows do not fit `layout` count as damaged."""
        return StoredTable(self.folder / name, layout)


USUAL = Store()


@dataclass(eq=False)
class StoredTable:
    """Rows named by digests, each with one entry in every column.

    Rows are durable once `append` returns. Only names are held in memory; a shard is checked
    against its name and seal when a row of it is first looked up, and again if its file changed.

    damaged: files that failed the check or are not shards; the table does not have their rows.
    """

    folder: Path
    layout: Layout | None = None
    damaged: list[Path] = field(default_factory=list)
    _where: dict[bytes, tuple[Path, int]] = field(default_factory=dict)
    _good: dict[Path, "_Stamp"] = field(default_factory=dict)
    _columns: "dict[Path, dict[str, _Column]]" = field(default_factory=dict)
    _lock: RLock = field(default_factory=RLock)  # threads of one process share a table

    def __post_init__(self) -> None:
        sweep(self.folder)
        for path in sorted(self.folder.glob("*.safetensors")):
            self._adopt(path, self._names(path))

    def __contains__(self, name: bytes) -> bool:
        with self._lock:
            while place := self._where.get(name):
                if self._is_good(place[0]):
                    return True
            return False

    def names(self) -> list[bytes]:
        """Return the digests of all rows, in the order in which they were found."""
        return [name for name in list(self._where) if name in self]

    def append(self, names: Sequence[bytes], columns: Mapping[str, Rows]) -> None:
        """Add columns (len(names), ...) durably; StoreError if the disk is full or not writable."""
        short = [k for k, column in columns.items() if len(column) != len(names)]
        if short:
            raise Mismatch(
                f"A column has one entry a row; {short[0]!r} has {len(columns[short[0]])} "
                f"for {len(names)} rows."
            )
        if not names:
            return
        keys = np.frombuffer(b"".join(names), np.uint8).reshape(len(names), DIGEST_BYTES)
        path, data = self._packed({_KEYS: keys, **_tensors(columns)})
        try:
            if not self.folder.exists():
                write_bytes(self._mark, b"")
            write_bytes(path, data)
            with open_file(path) as file:
                stamp = _Stamp.of(file)
        except OSError as error:
            raise StoreError(
                f"The store must be able to keep {len(data) / 1e6:.1f} MB more in {self.folder}, "
                f"but: {error.strerror or error}. What was stored before is kept; free some space "
                f"or name another place with --store, and run the same command again."
            ) from error
        with self._lock:
            self._good[path] = stamp
            self._columns.pop(path, None)
            self._adopt(path, list(names))

    def rows(self, names: Sequence[bytes], column: str) -> NDArray[np.generic]:
        """Return one column of these rows, of one shape: (len(names), ...).

        Raises KeyError for an unknown row, StoreError for a shard damaged or removed since checked.
        """
        places = self._places(names)
        wanted = defaultdict[Path, list[int]](list)  # shard -> positions in `names`
        for i, (path, _) in enumerate(places):
            wanted[path].append(i)
        out: NDArray[np.generic] = np.empty((0,))
        for path, positions in wanted.items():
            with self._opened(path, column) as (file, place):
                shard = place.read(file, 0, place.rows)
            if not len(out):
                out = np.empty((len(names), *place.unit), place.kind)
            if (place.unit, place.kind) != (out.shape[1:], out.dtype):
                raise self._lost(path, "holds rows of another type or shape than the others")
            out[positions] = shard[[places[i][1] for i in positions]]
        return out

    def reader(self, names: Sequence[bytes], column: str) -> "Reader":
        """Return a reader of one column of these rows; raises KeyError for an unknown row."""
        return Reader(self, self._places(names), column)

    def _places(self, names: Sequence[bytes]) -> tuple[tuple[Path, int], ...]:
        if missing := [name for name in names if name not in self]:
            raise KeyError(missing[0].hex())
        return tuple(self._where[name] for name in names)

    @property
    def _mark(self) -> Path:
        """The path of a file that exists if the table holds sealed shards only."""
        return self.folder.parent / _SEALED / self.folder.name

    def _packed(self, columns: Mapping[str, NDArray[np.generic]]) -> tuple[Path, bytes]:
        """Return the path and bytes of a new shard; a folder at its path changes its metadata."""
        arrays = {name: np.ascontiguousarray(column) for name, column in columns.items()}
        facts = {SEAL: BLANK}
        while True:
            data = sealed(pack(arrays, facts), self.folder.name)
            path = self.folder / f"{digest(data).hex()}.safetensors"
            if not path.is_dir():
                return path, data
            facts["again"] = facts.get("again", "") + "1"

    def _adopt(self, path: Path, names: Sequence[bytes]) -> None:
        for row, name in enumerate(names):
            self._where.setdefault(name, (path, row))

    def _is_good(self, path: Path) -> bool:
        if path in self._good:
            return True
        try:
            with open_file(path) as file:
                good = self._intact(path, file)
        except OSError:
            good = False
        if not good:
            self._forget(path)
        return good

    def _intact(self, path: Path, file: BinaryIO) -> bool:
        """Return whether a shard matches its name and its seal; if so, note that it is good."""
        stamp, data = _Stamp.of(file), file.read()
        known = has_seal(data) or self._mark.exists()
        whole = digest(data).hex() == path.stem
        if not whole or (known and not seal_holds(data, self.folder.name)):
            return False
        self._good[path] = stamp
        return True

    def _forget(self, path: Path) -> None:
        """Drop a damaged shard, and find its rows in other shards if they have them."""
        self._good.pop(path, None)
        self._columns.pop(path, None)
        self.damaged.append(path)
        self._where = {name: place for name, place in self._where.items() if place[0] != path}
        for other in sorted(self.folder.glob("*.safetensors")):
            if other not in self.damaged:
                self._adopt(other, self._names(other))

    def _names(self, path: Path) -> list[bytes]:
        """Return the digests listed in a shard; an unreadable one has none and is damaged."""
        try:
            with open_file(path) as file:
                keys = self._columns_of(path, file)[_KEYS]
                raw = keys.read(file, 0, keys.rows).tobytes()
        except (OSError, ValueError):
            self.damaged.append(path)
            return []
        return [raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES)]

    def _columns_of(self, path: Path, file: BinaryIO) -> "dict[str, _Column]":
        """Return the columns of a shard; raises ValueError if they do not match the layout."""
        if path not in self._columns:
            columns = _columns(file)
            found = {k: (c.kind, c.shape) for k, c in columns.items() if k != _KEYS}
            wanted = {k: (np.dtype(d), s) for k, (d, s) in (self.layout or {}).items()}
            if self.layout is not None and found != wanted:
                raise ValueError(f"its rows are {found}, not {wanted}")
            self._columns[path] = columns
        return self._columns[path]

    @contextmanager
    def _opened(self, path: Path, column: str) -> "Iterator[tuple[BinaryIO, _Column]]":
        """Yield a checked shard, open, and a column's place; StoreError if damaged or removed."""
        try:
            with open_file(path) as file:
                with self._lock:
                    before = self._good.get(path)
                    if before is None or not before.holds(file):
                        self._columns.pop(path, None)
                        file.seek(0)
                        if not self._intact(path, file):
                            raise self._lost(path, "was damaged")
                        file.seek(0)
                    place = self._columns_of(path, file)[column]
                yield file, place
        except FileNotFoundError as error:
            raise self._lost(path, "was removed") from error
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, StoreError):
                raise
            raise self._lost(path, f"can't be read ({error})") from error

    def _lost(self, path: Path, how: str) -> StoreError:
        """Return the error for a shard that was damaged or removed since it was checked."""
        with self._lock:
            if path not in self.damaged:
                self._forget(path)
        return StoreError(
            f"The shards of the store must stay as they are while their rows are used, but {path} "
            f"{how}. Run the same command again: it computes these rows anew."
        )


@dataclass(eq=False)
class Reader:
    """One column of some rows of a table, which may exceed memory: reader[[3, 1]].

    Indexing reads from disk and leaves no file open; StoreError for a damaged or removed shard.
    """

    table: StoredTable
    places: tuple[tuple[Path, int], ...]
    column: str

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: Sequence[int]) -> "Reader":
        """Return a reader of these rows, in this order."""
        return Reader(self.table, tuple(self.places[row] for row in rows), self.column)

    def __getitem__(self, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.generic]:
        return np.stack([self._row(*self.places[row]) for row in rows])

    def arrays(self, rows: Sequence[int] | NDArray[np.integer]) -> list[NDArray[np.generic]]:
        """Return some rows, each with its own length; a shard is opened once for all its rows."""
        out = dict[int, NDArray[np.generic]]()
        for path, positions in self._by_shard(rows).items():
            with self.table._opened(path, self.column) as (file, place):
                out |= {i: place.read(file, self.places[rows[i]][1], 1) for i in positions}
        return [out[i] for i in range(len(rows))]

    def lengths(self) -> NDArray[np.int64]:
        """Return the length of every row of a column whose rows have their own."""
        out = np.zeros(len(self), np.int64)
        for path, positions in self._by_shard(range(len(self))).items():
            with self.table._opened(path, self.column) as (_, place):
                own = np.diff(place.ends, prepend=0)
                out[positions] = own[[self.places[i][1] for i in positions]]
        return out

    def _by_shard(self, rows: Sequence[int] | NDArray[np.integer]) -> dict[Path, list[int]]:
        """Return the positions in `rows` of those that each shard holds."""
        found = defaultdict[Path, list[int]](list)
        for i, row in enumerate(rows):
            found[self.places[row][0]].append(i)
        return found

    def _row(self, path: Path, row: int) -> NDArray[np.generic]:
        with self.table._opened(path, self.column) as (file, place):
            return place.read(file, row, 1)[0]


@dataclass(frozen=True)
class _Stamp:
    """A file's inode, size, modification time and time of checking, both in ns."""

    number: int
    size: int
    changed: int
    checked: int

    @classmethod
    def of(cls, file: BinaryIO) -> "_Stamp":
        found = os.fstat(file.fileno())
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, time.time_ns())

    def holds(self, file: BinaryIO) -> bool:
        """Return whether `file` is surely unchanged; False if it was just written when checked."""
        now = _Stamp.of(file)
        same = (now.number, now.size, now.changed) == (self.number, self.size, self.changed)
        return same and not 0 <= self.checked - self.changed < _RECENT_NS


@dataclass(frozen=True, eq=False)
class _Column:
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


def _tensors(columns: Mapping[str, Rows]) -> dict[str, NDArray[np.generic]]:
    """Return the tensors of columns; a list of arrays becomes one tensor and its rows' ends."""
    tensors = dict[str, NDArray[np.generic]]()
    for name, rows in columns.items():
        if isinstance(rows, np.ndarray):
            tensors[name] = rows
        else:
            tensors[name] = np.concatenate(rows)
            tensors[f"{name}{_ENDS}"] = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return tensors


def _columns(file: BinaryIO) -> dict[str, _Column]:
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
        keys = columns[_KEYS]
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its header can't be read: {error}") from error
    uneven = {c.rows for c in columns.values()} != {keys.rows}
    if uneven or (keys.kind, keys.shape) != (np.dtype("u1"), (DIGEST_BYTES,)):
        raise ValueError("its columns and digests do not agree")
    return columns


def _with_ends(file: BinaryIO, columns: Mapping[str, _Column]) -> dict[str, _Column]:
    """Return columns whose rows have their own lengths with these, instead of the columns of ends.

    Raises ValueError for ends that the tensor does not have.
    """
    found = dict(columns)
    for name in [name for name in columns if f"{name}{_ENDS}" in columns]:
        place, column = found.pop(f"{name}{_ENDS}"), columns[name]
        if (place.kind, place.unit) != (np.dtype("<i8"), ()):
            raise ValueError("the ends of its rows are no whole numbers")
        ends = place.read(file, 0, place.rows).astype(np.int64)
        if not len(ends) or (np.diff(ends, prepend=0) < 0).any() or ends[-1] != column.rows:
            raise ValueError("the ends of its rows do not agree with its tensor")
        found[name] = replace(column, rows=len(ends), ends=ends, ragged=True)
    return found


def _column(entry: Mapping[str, Any], start: int, size: int) -> _Column:
    kind, (rows, *shape) = np.dtype(_KINDS[entry["dtype"]]), entry["shape"]
    begin, end = entry["data_offsets"]
    if not all(type(n) is int and 0 <= n <= size for n in (rows, *shape, begin, end)):
        raise ValueError("its header has sizes that no file has")
    if end - begin != rows * math.prod(shape) * kind.itemsize or start + end > size:
        raise ValueError("its header promises more than there is")
    return _Column(start + begin, rows, kind, tuple(shape))
