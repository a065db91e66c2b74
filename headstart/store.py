"""A folder of arrays named by what made them, written whole or not at all.

    STORE/<table>/<blake2b of the file>.safetensors

A table is named by the fingerprint of everything that shaped its rows (weights, preprocessing,
precision, ...); a row is named by the digest of its input. A shard is immutable and carries the
digest of its own bytes in its name, so no lock is needed: two writers of the same rows write two
good files, and a file that is not what its name says is passed over and computed again.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as unpack
from safetensors.numpy import save as pack

from headstart.atomic import write_bytes
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
    root: Path

    def table(self, name: str) -> "Table":
        """The table `name`, with every good shard that is there now."""
        return Table(self.root / name)


def default_store() -> Store:
    """$HEADSTART_STORE, or else headstart/store in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Store(Path(os.environ.get("HEADSTART_STORE") or Path(home) / "headstart" / "store"))


@dataclass(eq=False)
class Table:
    """Rows named by digests, each with one entry in every column.

    A row that `append` returned from survives the death of the process and of the machine. Columns
    are held as the files' own pages (numpy views of what was read), never copied until asked for.
    """

    folder: Path
    damaged: list[Path] = field(default_factory=list)
    _where: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # digest -> shard, row
    _shards: list[dict[str, NDArray[np.generic]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in sorted(self.folder.glob("*.safetensors")):
            shard = _read_shard(path)
            if shard is None:
                self.damaged.append(path)
            else:
                self._adopt(shard)

    def __contains__(self, name: bytes) -> bool:
        return name in self._where

    def __len__(self) -> int:
        return len(self._where)

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
        shard = {_KEYS: keys, **{k: np.ascontiguousarray(v) for k, v in columns.items()}}
        data = pack(shard)
        path = self.folder / f"{digest(data).hex()}.safetensors"
        try:
            write_bytes(path, data)
        except OSError as error:
            raise StoreError(
                f"The store must be able to keep {len(data) / 1e6:.1f} MB more in {self.folder}, "
                f"but: {error.strerror or error}. What was stored before is kept; free some space "
                f"or name another place with --store, and run the same command again."
            ) from error
        self._adopt(shard)

    def rows(self, names: Sequence[bytes], column: str) -> NDArray[np.generic]:
        """The entries of one column for these rows, in this order: (len(names), ...).

        Raises KeyError for a row that is not there.
        """
        if not names:
            return np.empty((0,))
        places = [self._where[name] for name in names]
        first = self._shards[places[0][0]][column]
        out = np.empty((len(names), *first.shape[1:]), first.dtype)
        for i, (shard, row) in enumerate(places):
            out[i] = self._shards[shard][column][row]
        return out

    def _adopt(self, shard: dict[str, NDArray[np.generic]]) -> None:
        names = shard[_KEYS].tobytes()
        for row in range(len(shard[_KEYS])):
            name = names[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]
            self._where.setdefault(name, (len(self._shards), row))
        self._shards.append({k: v for k, v in shard.items() if k != _KEYS})


def _read_shard(path: Path) -> dict[str, NDArray[np.generic]] | None:
    """The arrays of a shard, or None if its bytes are not those it was named after."""
    with suppress(OSError, SafetensorError):
        data = path.read_bytes()
        if digest(data).hex() == path.stem:
            return dict(unpack(data))
    return None
