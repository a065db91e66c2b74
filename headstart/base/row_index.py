"""Sorted indexes of rows: which row of which shard has a digest, 24 bytes a row.

In memory for shards as they are written; as a file, mapped into memory, beside compacted shards:

    STORE/<table>/<blake2b of the file>.index
    8 bytes INDEX1, 4 of the number of shards S, 4 of zeros, 8 of the number of rows N,
    S × 16 bytes, the digests that name the shards; then, sorted by digest,
    N × 16 bytes of digests, N × 4 of the shard's number, N × 4 of the row in the shard
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import open_file
from headstart.base.shards import DIGEST_BYTES

SUFFIX = ".index"
MAGIC = b"INDEX1\0\0"
HEADER = 24
KIND = "S16"  # DIGEST_BYTES, in the order of their bytes
Names = NDArray[np.bytes_]  # (N,) of 16 bytes each


def as_names(digests: Sequence[bytes] | NDArray[np.uint8]) -> Names:
    """Return digests, also those of a column (N, 16) uint8, as an array that can be sorted."""
    raw = digests.tobytes() if isinstance(digests, np.ndarray) else b"".join(digests)
    return np.frombuffer(raw, KIND) if raw else np.zeros(0, KIND)


@dataclass(frozen=True, eq=False)
class RowIndex:
    """Sorted digests `names` (N,); row row[i] of shard number shard[i] is names[i]."""

    names: Names
    shard: NDArray[np.uint32]
    row: NDArray[np.uint32]

    @classmethod
    def of(cls, shards: Sequence[tuple[int, Names]]) -> "RowIndex":
        """Index the rows of shards, each with its number; of a repeated row the first place."""
        names = np.concatenate([own for _, own in shards] or [np.zeros(0, KIND)])
        sizes = np.array([len(own) for _, own in shards], np.intp)
        shard = np.repeat(np.array([number for number, _ in shards], np.uint32), sizes)
        row = np.concatenate([np.arange(n, dtype=np.uint32) for n in (0, *sizes.tolist())])
        order = np.argsort(names, kind="stable").astype(np.uint32)
        names = names[order]
        first = np.ones(len(names), bool)
        first[1:] = names[1:] != names[:-1]
        kept = order[first]
        return cls(names[first], shard[kept], row[kept].astype(np.uint32))

    @classmethod
    def read(cls, path: Path) -> "tuple[RowIndex, tuple[str, ...]]":
        """Map the index of a file; returns it with the names of its shards, in hexadecimal.

        Raises OSError, or ValueError for a file of another form.
        """
        with open_file(path) as file:
            head = file.read(HEADER)
            count, n = (int.from_bytes(head[a:b], "little") for a, b in ((8, 12), (16, 24)))
            begin = HEADER + DIGEST_BYTES * count
            size = begin + 24 * n
            if head[:8] != MAGIC or file.seek(0, 2) != size:
                raise ValueError("it is no index, or was cut short")
            file.seek(HEADER)
            raw = file.read(DIGEST_BYTES * count)
        shards = tuple(raw[i : i + DIGEST_BYTES].hex() for i in range(0, len(raw), DIGEST_BYTES))
        if not n:
            return cls.of([]), shards
        places = ((KIND, begin), ("<u4", begin + 16 * n), ("<u4", begin + 20 * n))
        columns: list[Any] = [np.memmap(path, kind, "r", at, (n,)) for kind, at in places]
        if int(columns[1].max()) >= count:
            raise ValueError("it names shards that it does not list")
        return cls(*columns), shards

    def merged(self, other: "RowIndex") -> "RowIndex":
        """Return the index of the rows of both, in memory; of a repeated row the own place."""
        names = np.concatenate([self.names, other.names])
        order = np.argsort(names, kind="stable").astype(np.uint32)
        names = names[order]
        first = np.append(np.ones(min(len(names), 1), bool), names[1:] != names[:-1])
        shard, row = (
            np.concatenate(pair)[order[first]]
            for pair in ((self.shard, other.shard), (self.row, other.row))
        )
        return RowIndex(names[first], shard, row)

    def blocks(self, shards: Sequence[bytes]) -> Iterator[bytes | memoryview]:
        """Yield the pieces of the file; shards: the digests that name them."""
        yield MAGIC + len(shards).to_bytes(8, "little") + len(self).to_bytes(8, "little")
        yield b"".join(shards)
        for column in (self.names, self.shard.astype("<u4"), self.row.astype("<u4")):
            yield np.ascontiguousarray(column).view(np.uint8).data

    def __len__(self) -> int:
        return len(self.names)

    def find(self, names: Names) -> NDArray[np.int64]:
        """Return the place of each digest in the index, -1 for one that is not there: (N,)."""
        if not len(self):
            return np.full(len(names), -1)
        at = np.minimum(np.searchsorted(self.names, names), len(self) - 1)
        return np.where(self.names[at] == names, at, -1)
