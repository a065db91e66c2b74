"""The digests of very many examples as arrays, 33 bytes a row."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.base.lazy_sequence import LazySequence, Rows
from headstart.data.dataset import Content


@dataclass(frozen=True, eq=False)
class Contents(LazySequence[Content]):
    """A `Content` for each row, made when it is asked for.

    file, decoded: (N, 16) uint8. known: (N,), whether the row has digests.
    """

    file: NDArray[np.uint8]
    decoded: NDArray[np.uint8]
    known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.known)

    def row(self, row: int) -> Content:
        if not self.known[row]:
            return Content()
        return Content(self.file[row].tobytes().hex(), self.decoded[row].tobytes().hex())

    def take(self, rows: Rows) -> "Contents":
        chosen = np.asarray(rows, np.int64)
        return Contents(self.file[chosen], self.decoded[chosen], self.known[chosen])

    def copies(self) -> Iterator[tuple[int, ...]]:
        """Yield groups of rows with the same decoded content, ordered by their first row."""
        rows = np.flatnonzero(self.known)
        names = np.ascontiguousarray(self.decoded[rows]).view("S16")[:, 0]
        order = np.argsort(names, kind="stable")
        ends = np.flatnonzero(np.append(names[order][1:] != names[order][:-1], True)) + 1
        begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        several = np.flatnonzero(ends - begins > 1)
        groups = (rows[order[begins[g] : ends[g]]].tolist() for g in several.tolist())
        yield from map(tuple, sorted(groups))
