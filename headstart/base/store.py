"""A content-addressed cache of arrays on disk.

    STORE/<table>/<blake2b of the file>.safetensors

A table's name is the fingerprint of everything that decides its rows (weights, preprocessing,
precision, ...); a row's name is the digest of its input. A shard is immutable and named by the
digest of its bytes, so no lock is needed: two writers of the same rows write two good files, and
the rows of a file that does not match its name are computed again.

A shard is sealed with its table's name, so that another table rejects it. Tables of earlier
versions have no seals and stay readable; a table marked in STORE/.sealed holds sealed shards only.
`compacting` merges shards into large ones, with an index beside them (`row_index`).
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors.numpy import save as pack

from headstart.base.atomic import open_file, sweep, write_bytes
from headstart.base.errors import Mismatch, StoreError
from headstart.base.paths import user_path
from headstart.base.row_index import SUFFIX, Names, RowIndex, as_names
from headstart.base.seals import BLANK, SEAL, sealed
from headstart.base.shards import ANY as ANY
from headstart.base.shards import DIGEST_BYTES as DIGEST_BYTES
from headstart.base.shards import KEYS, Column, FileDigests, Stamp, columns_in, tensors_of
from headstart.base.shards import Rows as Rows
from headstart.base.verified import VerifiedFiles

GRAPHS = "graphs"  # a folder of networks that other processes open, which is no table
_SEALED = ".sealed"  # a folder of empty files, named after the tables that hold sealed shards only
FRESH = 8192  # rows written by this process that are looked up by name before they are indexed

Layout = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]  # column -> dtype and shape of one row


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
        if self.root is not None:
            object.__setattr__(self, "root", user_path(self.root))

    @property
    def folder(self) -> Path:
        if self.root is not None:
            return self.root
        if own := os.environ.get("HEADSTART_STORE"):
            return user_path(own)
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "headstart" / "store"

    def table(self, name: str, layout: Layout | None = None) -> "StoredTable":
        """Return the table `name`; shards whose rows do not fit `layout` count as damaged."""
        return StoredTable(self.folder / name, layout)


USUAL = Store()


@dataclass(eq=False)
class StoredTable:
    """Rows named by digests, each with one entry in every column.

    Rows are durable once `append` returns. Only an index is held in memory, 24 bytes a row, and
    that of compacted shards is mapped. A shard is checked against its name and seal when a row of
    it is first looked up on this machine, and again if its file changed.

    damaged: files that failed the check or are not shards; the table does not have their rows.
    """

    folder: Path
    layout: Layout | None = None
    damaged: list[Path] = field(default_factory=list)
    _shards: list[Path] = field(default_factory=list)  # by number
    _numbers: dict[Path, int] = field(default_factory=dict)
    _fresh: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # shard and row
    _indexes: list[RowIndex] = field(default_factory=list)
    _good: dict[Path, Stamp] = field(default_factory=dict)
    _columns: dict[Path, dict[str, Column]] = field(default_factory=dict)
    _lock: RLock = field(default_factory=RLock)  # threads of one process share a table

    def __post_init__(self) -> None:
        self._verified = VerifiedFiles(self.folder)
        sweep(self.folder)
        shards = sorted(self.folder.glob("*.safetensors"))
        mapped = self._mapped_indexes({path.stem for path in shards})
        indexed = set(self._shards)
        single = self._index_of([path for path in shards if path not in indexed])
        self._indexes = [index for index in (single, *mapped) if len(index)]

    def __len__(self) -> int:
        """The number of rows, one in two places counted twice."""
        return len(self._fresh) + sum(map(len, self._indexes))

    def __contains__(self, name: bytes) -> bool:
        with self._lock:
            while place := self._place(name):
                if self.is_good(self._shards[place[0]]):
                    return True
            return False

    def has(self, names: Sequence[bytes]) -> NDArray[np.bool_]:
        """Return which names are there, in shards that were checked."""
        return self._found(names)[0] >= 0

    def names(self) -> list[bytes]:
        """Return the digests of all rows, those written by this process last."""
        found = dict[bytes, None]()
        for index in self._indexes:
            order = np.lexsort((index.row, index.shard))
            found |= dict.fromkeys(_digests(index.names[order]))
        found |= dict.fromkeys(self._fresh)
        return [name for name in found if name in self]

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
        path, data = self._packed({KEYS: keys, **tensors_of(columns)})
        try:
            if not self.folder.exists():
                write_bytes(self._mark, b"")
            write_bytes(path, data)
            with open_file(path) as file:
                stamp = Stamp.of(file)
        except OSError as error:
            raise StoreError(
                f"The store must be able to keep {len(data) / 1e6:.1f} MB more in {self.folder}, "
                f"but: {error.strerror or error}. What was stored before is kept; free some space "
                f"or name another place with --store, and run the same command again."
            ) from error
        with self._lock:
            self._good[path] = stamp
            self._columns.pop(path, None)
            number = self._number(path)
            for row, name in enumerate(names):
                if self._place(name) is None:
                    self._fresh[name] = number, row
            if len(self._fresh) > FRESH:
                self._fold()

    def rows(self, names: Sequence[bytes], column: str) -> NDArray[np.generic]:
        """Return one column of these rows, of one shape: (len(names), ...).

        Raises KeyError for an unknown row, StoreError for a shard damaged or removed since checked.
        """
        return self.reader(names, column).whole()

    def reader(self, names: Sequence[bytes], column: str) -> "Reader":
        """Return a reader of one column of these rows; raises KeyError for an unknown row."""
        shard, row = self._places(names)
        return Reader(self, shard, row, column)

    def _places(self, names: Sequence[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return `_found` of names that are all there; raises KeyError for another."""
        shard, row = self._found(names)
        if (shard < 0).any():
            raise KeyError(names[int((shard < 0).argmax())].hex())
        return shard, row

    def _found(self, names: Sequence[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the shard and the row in it of each name, in shards that were checked.

        The shard of a name that is not there is -1.
        """
        shard, row = (np.full(len(names), -1, np.int32) for _ in range(2))
        with self._lock:
            while len(left := np.flatnonzero(shard < 0)):
                self._look_up(names, left, shard, row)
                numbers = np.unique(shard[shard >= 0]).tolist()
                bad = [n for n in numbers if not self.is_good(self._shards[n])]
                if not bad:
                    break
                shard[np.isin(shard, bad)] = -1  # numbers stay, and these rows may be in others
        return shard, row

    def _look_up(
        self,
        names: Sequence[bytes],
        wanted: NDArray[np.intp],
        shard: NDArray[np.int32],
        row: NDArray[np.int32],
    ) -> None:
        """Fill in the places of the `wanted` names that are known."""
        places = [self._fresh.get(names[i], (-1, -1)) for i in wanted.tolist()]
        shard[wanted], row[wanted] = np.array(places, np.int32).T
        asked = as_names([names[i] for i in wanted.tolist()])
        for index in self._indexes:
            open_ = np.flatnonzero(shard[wanted] < 0)
            at = index.find(asked[open_])
            found = wanted[open_[at >= 0]]
            shard[found], row[found] = index.shard[at[at >= 0]], index.row[at[at >= 0]]

    def own_rows(self, path: Path, names: Names) -> NDArray[np.int64]:
        """Return the rows of a shard that are found in it, and not in another; names: of it."""
        number, found = self._number(path), np.zeros(len(names), bool)
        for index in reversed(self._indexes):
            at = index.find(names)
            own = (index.shard[at] == number) & (index.row[at] == np.arange(len(names)))
            found = np.where(at >= 0, own, found)
        return np.flatnonzero(found)

    def verify(self) -> None:
        """Check all files again, whatever was verified before; `damaged` lists the bad ones."""
        self._good.clear()
        self._verified.forget()
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with suppress(OSError), open_file(path) as file:
                if self._is_whole(path, file):
                    continue
            if path not in self.damaged:
                self._forget(path)
        for path in sorted(self.folder.glob("*.safetensors")):
            if path not in self.damaged:
                self.is_good(path)

    def _place(self, name: bytes) -> tuple[int, int] | None:
        """Return the shard and the row of a name, without checking the shard."""
        if (place := self._fresh.get(name)) or not self._indexes:
            return place
        asked = as_names([name])
        for index in self._indexes:
            if (at := int(index.find(asked)[0])) >= 0:
                return int(index.shard[at]), int(index.row[at])
        return None

    def _number(self, path: Path) -> int:
        if path not in self._numbers:
            self._numbers[path] = len(self._shards)
            self._shards.append(path)
        return self._numbers[path]

    def _index_of(self, paths: Sequence[Path]) -> RowIndex:
        return RowIndex.of([(self._number(path), self.names_in(path)) for path in paths])

    def _fold(self) -> None:
        """Move the rows that this process wrote into the index in memory."""
        own = sorted({number for number, _ in self._fresh.values()})
        shards = [(number, self.names_in(self._shards[number])) for number in own]
        self._indexes.append(RowIndex.of(shards))
        self._fresh = {}
        while len(self._indexes) > 1 and len(self._indexes[-2]) < 2 * len(self._indexes[-1]):
            last, before = self._indexes.pop(), self._indexes.pop()
            self._indexes.append(before.merged(last))

    def _mapped_indexes(self, there: set[str]) -> list[RowIndex]:
        """Return the index files that match their names and list shards that are all there."""
        found = list[RowIndex]()
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                with open_file(path) as file:
                    if not (self._verified.holds(path, file) or self._is_whole(path, file)):
                        raise ValueError("it was damaged")
                index, shards = RowIndex.read(path)
            except (OSError, ValueError):
                self.damaged.append(path)  # its shards list their rows themselves
                continue
            if there.issuperset(shards):
                numbers = [self._number(self.folder / f"{name}.safetensors") for name in shards]
                shard = index.shard
                if numbers != list(range(len(numbers))):
                    shard = np.array(numbers, np.uint32)[shard]
                found.append(RowIndex(index.names, shard, index.row))
        return found

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

    def is_good(self, path: Path) -> bool:
        """Return whether a shard is what was written; its rows are dropped if it is not."""
        if path in self._good:
            return True
        try:
            with open_file(path) as file:
                good = self._intact(path, file)
                file.seek(0)
                self.columns_of(path, file)
        except (OSError, ValueError):
            good = False
        if not good:
            self._forget(path)
        return good

    def _intact(self, path: Path, file: BinaryIO) -> bool:
        """Return whether a shard matches its name and its seal; if so, note that it is good."""
        stamp = Stamp.of(file)
        if not self._verified.holds(path, file):
            found = FileDigests.of(file, self.folder.name)
            known = bool(found.seal) or self._mark.exists()
            if found.name != path.stem or (known and found.seal != found.made):
                return False
            self._verified.remember(path, stamp)
        self._good[path] = stamp
        return True

    def _is_whole(self, path: Path, file: BinaryIO) -> bool:
        """Return whether an index matches its name; if so, note that on this machine."""
        stamp = Stamp.of(file)
        if FileDigests.of(file).name != path.stem:
            return False
        self._verified.remember(path, stamp)
        return True

    def _forget(self, path: Path) -> None:
        """Drop a damaged shard, and find its rows in other shards if they have them."""
        self._good.pop(path, None)
        self._columns.pop(path, None)
        self.damaged.append(path)
        others = sorted(self.folder.glob("*.safetensors"))
        self._fresh = {}
        self._indexes = [self._index_of([other for other in others if other not in self.damaged])]

    def names_in(self, path: Path) -> Names:
        """Return the digests listed in a shard; an unreadable one has none and is damaged."""
        try:
            with open_file(path) as file:
                keys = self.columns_of(path, file)[KEYS]
                return as_names(keys.read(file, 0, keys.rows).view(np.uint8))
        except (OSError, ValueError):
            self.damaged.append(path)
            return as_names([])

    def columns_of(self, path: Path, file: BinaryIO) -> dict[str, Column]:
        """Return the columns of a shard; raises ValueError if they do not match the layout."""
        if path not in self._columns:
            columns = columns_in(file)
            found = {k: (c.kind, c.shape) for k, c in columns.items() if k != KEYS}
            wanted = {k: (np.dtype(d), s) for k, (d, s) in (self.layout or {}).items()}
            if self.layout is not None and found != wanted:
                raise ValueError(f"its rows are {found}, not {wanted}")
            self._columns[path] = columns
        return self._columns[path]

    @contextmanager
    def _opened(self, path: Path, column: str) -> Iterator[tuple[BinaryIO, Column]]:
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
                    place = self.columns_of(path, file)[column]
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
    shard, row: (N,), where each row is.
    """

    table: StoredTable
    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    column: str

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Reader":
        """Return a reader of these rows, in this order."""
        chosen = np.asarray(rows, np.int64)
        return Reader(self.table, self.shard[chosen], self.row[chosen], self.column)

    def __getitem__(self, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.generic]:
        return self.take(rows).whole()

    def whole(self) -> NDArray[np.generic]:
        """Return all rows, of one shape: (N, ...); a shard is opened once."""
        out: NDArray[np.generic] = np.empty((0,))
        for number, positions in self._by_shard():
            path = self.table._shards[number]
            with self.table._opened(path, self.column) as (file, place):
                if not len(out):
                    out = np.empty((len(self), *place.unit), place.kind)
                if (place.unit, place.kind) != (out.shape[1:], out.dtype):
                    how = "holds rows of another type or shape than the others"
                    raise self.table._lost(path, how)
                out[positions] = place.some(file, self.row[positions])
        return out

    def arrays(self, rows: Sequence[int] | NDArray[np.integer]) -> list[NDArray[np.generic]]:
        """Return some rows, each with its own length; a shard is opened once for all its rows."""
        own, out = self.take(rows), dict[int, NDArray[np.generic]]()
        for number, positions in own._by_shard():
            with self.table._opened(self.table._shards[number], self.column) as (file, place):
                out |= {i: place.read(file, int(own.row[i]), 1) for i in positions.tolist()}
        return [out[i] for i in range(len(own))]

    def lengths(self) -> NDArray[np.int64]:
        """Return the length of every row of a column whose rows have their own."""
        out = np.zeros(len(self), np.int64)
        for number, positions in self._by_shard():
            with self.table._opened(self.table._shards[number], self.column) as (_, place):
                out[positions] = np.diff(place.ends, prepend=0)[self.row[positions]]
        return out

    def _by_shard(self) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Yield the number of each shard and the positions of its rows, in order."""
        order = np.argsort(self.shard, kind="stable")
        numbers, first = np.unique(self.shard[order], return_index=True)
        ends = [*first.tolist(), len(order)][1:]
        for number, begin, end in zip(numbers.tolist(), first.tolist(), ends, strict=True):
            yield number, order[begin:end]


def _digests(names: Names) -> list[bytes]:
    """Return the digests of an index, whose trailing zeros NumPy would drop one by one."""
    raw = names.tobytes()
    return [raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES)]
