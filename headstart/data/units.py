"""Rows that stay together when a dataset is split, as arrays of 16 bytes a row."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart.base.grouping import groups
from headstart.base.lazy_sequence import LazySequence, Rows
from headstart.data.dataset import Dataset

Unit = tuple[int, ...]  # rows that stay together


@dataclass(frozen=True, eq=False)
class Units(LazySequence[Unit]):
    """Units of rows, none of which is in two.

    rows: the rows of all units, one unit after the other. ends: (U,), where each unit ends in
    `rows`.

    >>> units = Units.of([(0, 2)], 4)
    >>> list(units), units.sizes.tolist(), units.first.tolist()
    ([(0, 2), (1,), (3,)], [2, 1, 1], [0, 1, 3])
    """

    rows: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, joined: Sequence[Unit], n: int) -> "Units":
        """Return all of n rows as units, ordered by their first row; each row of `joined` once.

        joined: the units of several rows, each in rising order.
        """
        first, size = np.arange(n), np.ones(n, np.int64)
        for unit in joined:
            first[list(unit)] = unit[0]
            size[list(unit)] = 0
            size[unit[0]] = len(unit)
        return cls(np.argsort(first, kind="stable"), np.cumsum(size[size > 0]))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.ends, prepend=0)

    @property
    def first(self) -> NDArray[np.int64]:
        """The first row of each unit."""
        return self.rows[self.ends - self.sizes]

    def __len__(self) -> int:
        return len(self.ends)

    def row(self, row: int) -> Unit:
        begin = int(self.ends[row - 1]) if row else 0
        return tuple(self.rows[begin : self.ends[row]].tolist())

    def take(self, rows: Rows) -> "Units":
        numbers = np.asarray(rows, np.int64)
        sizes, ends = self.sizes[numbers], np.cumsum(self.sizes[numbers])
        within = np.arange(int(sizes.sum())) - np.repeat(ends - sizes, sizes)
        begins = np.repeat(self.ends[numbers] - sizes, sizes)
        return Units(self.rows[begins + within], ends)

    def several(self) -> Iterator[Unit]:
        """Yield the units of more than one row."""
        yield from map(self.row, np.flatnonzero(self.sizes > 1).tolist())

    def without(self, gone: Sequence[int]) -> "Units":
        """Return the units without some rows, and without those that lose all."""
        if not gone:
            return self
        kept = ~np.isin(self.rows, list(gone))
        counts = np.diff(np.cumsum(kept)[self.ends - 1], prepend=0)
        return Units(self.rows[kept], np.cumsum(counts[counts > 0]))


def units_of(dataset: Dataset, together: Sequence[Sequence[int]]) -> Units:
    """Return all rows as units that stay together, ordered by their first row."""
    members = defaultdict[str, list[int]](list)
    for row, name in enumerate(dataset.groups):
        if name:
            members[name].append(row)
    runs = [*members.values(), *(run for run in together if len(run))]
    return Units.of(groups(runs), len(dataset))
