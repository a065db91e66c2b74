"""A folder of arrays named by what made them, written whole or not at all.

    STORE/<table>/<blake2b of the file>.safetensors

A table is named by the fingerprint of everything that shaped its rows (weights, preprocessing,
precision, ...); a row is named by the digest of its input. A shard is immutable and carries the
digest of its own bytes in its name, so no lock is needed: two writers of the same rows write two
good files, and a file that is not what its name says is passed over and computed again.
"""

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as pack

from headstart.atomic import sweep, write_bytes
from headstart.errors import Mismatch, StoreError

DIGEST_BYTES = 16
_KEYS = "__digests__"


def digest(*parts: bytes | memoryview) -> bytes:
    """BLAKE2b, 16 bytes. Each part is preceded by its length, so ("a", "bc") is not ("ab", "c")."""
    h = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        h.update(memoryview(part).nbytes.to_bytes(8, "little"))
        h.update(part)
    return h.digest()


@dataclass(frozen=True)
class Store:
    """root: the folder of the tables; None is the usual place, looked up when it is used:
    $HEADSTART_STORE, or else headstart/store in the user's cache folder.
    """

    root: Path | None = None

    @property
    def folder(self) -> Path:
        if self.root is not None:
            return self.root
        if own := os.environ.get("HEADSTART_STORE"):
            return Path(own)
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "headstart" / "store"

    def table(self, name: str) -> "Table":
        """The table `name`, with every shard that is there now."""
        return Table(self.folder / name)


USUAL = Store()


@dataclass(eq=False)
class Table:
    """Rows named by digests, each with one entry in every column.

    A row that `append` returned from survives the death of the process and of the machine. Only
    the names are held in memory; a shard is read, and checked against its own name, when one of
    its rows is first asked for. `damaged` lists those that failed: their rows are not there.
    """

    folder: Path
    damaged: list[Path] = field(default_factory=list)
    _where: dict[bytes, tuple[Path, int]] = field(default_factory=dict)
    _good: set[Path] = field(default_factory=set)
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
        """The digests of all rows, oldest shard's name first."""
        return [name for name in list(self._where) if name in self]

    def append(self, names: Sequence[bytes], columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Add rows durably: when this returns they are on the disk, if it raises none of them is.

        columns: each (len(names), ...). Raises StoreError when the disk is full or not writable.
        """
        short = [k for k, column in columns.items() if len(column) != len(names)]
        if short:
            raise Mismatch(
                f"A column has one entry a row; {short[0]!r} has {len(columns[short[0]])} "
                f"for {len(names)} rows."
            )
        if not names:
            return
        keys = np.frombuffer(b"".join(names), np.uint8).reshape(len(names), DIGEST_BYTES)
        data = pack({_KEYS: keys, **{k: np.ascontiguousarray(v) for k, v in columns.items()}})
        path = self.folder / f"{digest(data).hex()}.safetensors"
        try:
            write_bytes(path, data)
        except OSError as error:
            raise StoreError(
                f"The store must be able to keep {len(data) / 1e6:.1f} MB more in {self.folder}, "
                f"but: {error.strerror or error}. What was stored before is kept; free some space "
                f"or name another place with --store, and run the same command again."
            ) from error
        with self._lock:
            self._good.add(path)
            self._adopt(path, list(names))

    def rows(self, names: Sequence[bytes], column: str) -> NDArray[np.generic]:
        """The entries of one column for these rows, in this order: (len(names), ...).

        Raises KeyError for a row that is not there.
        """
        if missing := [name for name in names if name not in self]:
            raise KeyError(missing[0].hex())
        wanted = defaultdict[Path, list[int]](list)  # shard -> positions in `names`
        for i, name in enumerate(names):
            wanted[self._where[name][0]].append(i)
        out: NDArray[np.generic] = np.empty((0,))
        for path, positions in wanted.items():
            shard = _column(path, column)
            if not len(out):
                out = np.empty((len(names), *shard.shape[1:]), shard.dtype)
            out[positions] = shard[[self._where[names[i]][1] for i in positions]]
        return out

    def reader(self, names: Sequence[bytes], column: str) -> "Reader":
        """The same entries, read from the disk only when asked for; raises KeyError too."""
        if missing := [name for name in names if name not in self]:
            raise KeyError(missing[0].hex())
        return Reader(tuple(self._where[name] for name in names), column)

    def _adopt(self, path: Path, names: Sequence[bytes]) -> None:
        for row, name in enumerate(names):
            self._where.setdefault(name, (path, row))

    def _is_good(self, path: Path) -> bool:
        if path in self._good:
            return True
        if _intact(path):
            self._good.add(path)
            return True
        self.damaged.append(path)
        self._where = {name: place for name, place in self._where.items() if place[0] != path}
        for other in sorted(self.folder.glob("*.safetensors")):  # another may hold the same rows
            if other not in self.damaged:
                self._adopt(other, self._names(other))
        return False

    def _names(self, path: Path) -> list[bytes]:
        """The digests a shard says it holds; none, and it is damaged, if it can't be read."""
        try:
            raw = _column(path, _KEYS).tobytes()
        except (OSError, SafetensorError):
            self.damaged.append(path)
            return []
        return [raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES)]


@dataclass(eq=False)
class Reader:
    """One column of some rows of a table, larger than memory if need be: reader[[3, 1]].

    Rows are read where they lie; nothing stays open, however many shards and readers there are.
    """

    places: tuple[tuple[Path, int], ...]
    column: str
    _layouts: "dict[Path, _Layout]" = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: Sequence[int]) -> "Reader":
        """Only these rows, in this order, still unread."""
        return Reader(tuple(self.places[row] for row in rows), self.column, self._layouts)

    def __getitem__(self, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.generic]:
        return np.stack([self._row(*self.places[row]) for row in rows])

    def _row(self, path: Path, row: int) -> NDArray[np.generic]:
        with open(path, "rb") as f:
            if path not in self._layouts:
                self._layouts[path] = _layout(f, self.column)
            begin, kind, shape = self._layouts[path]
            size = math.prod(shape) * kind.itemsize
            f.seek(begin + row * size)
            return np.frombuffer(f.read(size), kind).reshape(shape)


_Layout = tuple[int, np.dtype[Any], tuple[int, ...]]  # where a column begins, and what a row is


def _layout(file: BinaryIO, name: str) -> _Layout:
    """Of a column in a safetensors file: 8 bytes of length, a JSON header, the tensors."""
    length = int.from_bytes(file.read(8), "little")
    entry = json.loads(file.read(length))[name]
    kind = np.dtype({"F32": "<f4", "F16": "<f2", "U8": "u1"}[entry["dtype"]])
    return 8 + length + entry["data_offsets"][0], kind, tuple(entry["shape"][1:])


def _column(path: Path, name: str) -> NDArray[np.generic]:
    with safe_open(path, framework="numpy") as shard:
        column: NDArray[np.generic] = shard.get_tensor(name)
        return column


def _intact(path: Path) -> bool:
    """Whether the file's bytes are those it was named after."""
    try:
        return digest(path.read_bytes()).hex() == path.stem
    except OSError:
        return False
