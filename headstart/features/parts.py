"""Activations at the cut of examples in parts, kept part by part and without padding.

A part is a row of the store's table, named by its example's digest and its number, so that a text
of hundreds of windows is written and read window by window.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headstart.backbones.inputs import Input
from headstart.base.errors import DataError
from headstart.base.store import ANY, Layout, Rows, StoredTable, digest
from headstart.base.threads import ordered_map
from headstart.data.content import prepared
from headstart.data.dataset import Dataset

Array = NDArray[np.generic]
Whole = NDArray[np.int64]
Place = tuple[bytes, int]  # a part: the digest of its example, and its number
AHEAD = 64  # examples prepared in advance
WAITING = 2**26  # bytes of activations that wait for the store
MOST_ROWS = 1024  # rows per shard of the store


@dataclass(frozen=True)
class Sizes:
    """The size of every example: its parts, its longest part, and the length of all its parts."""

    parts: Whole  # (N,)
    longest: Whole  # (N,)
    total: Whole  # (N,)

    def __len__(self) -> int:
        return len(self.parts)

    def of(self, rows: NDArray[np.integer]) -> "Sizes":
        return Sizes(self.parts[rows], self.longest[rows], self.total[rows])


def sizes_of(input: Input[Any], data: Dataset, threads: int) -> Sizes:
    """Prepare every example, and return the sizes; those of an unreadable one are 0."""
    files = data.files

    def size(row: int) -> tuple[int, int, int]:
        try:
            lengths = input.part_lengths(prepared(input, files[row]))
        except (OSError, DataError):  # named when it is read to be used
            return 0, 0, 0
        return len(lengths), int(lengths.max()), int(lengths.sum())

    made = ordered_map(size, range(len(data)), threads=threads, ahead=AHEAD)
    return Sizes(*np.array(list(made), np.int64).reshape(-1, 3).T)


def evenly(count: int, most: int) -> Whole:
    """Return at most `most` of the numbers below `count`, evenly spread; all if `most` is 0.

    >>> evenly(9, 3).tolist()
    [0, 4, 8]
    """
    if not 0 < most < count:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def chunks(lengths: Whole, rows: int, room: int) -> Iterator[Whole]:
    """Yield the numbers of parts in batches of similar length, shortest parts first.

    A batch has at most `rows` parts and, padded, at most `room` positions; one part at least.
    """
    order, start = np.argsort(lengths, kind="stable"), 0
    while start < len(order):
        own = lengths[order[start : start + rows]]
        fit = int(np.searchsorted(np.maximum(own, 1) * np.arange(1, len(own) + 1), room, "right"))
        yield order[start : start + max(1, fit)]
        start += max(1, fit)


@dataclass(frozen=True, eq=False)
class PartBatch:
    """Parts of N examples as a network takes them, one example after the other.

    arrays: (P, …) each. owner: (P,), the number of each part's example. weights: (P,), in the mean
    of its example's features.
    """

    arrays: tuple[Array, ...]
    owner: Whole
    weights: NDArray[np.float64]
    examples: int


@dataclass(frozen=True, eq=False)
class PartActivations:
    """Activations at the cut of N examples; the parts of example i are adjacent, from first[i] on.

    read: part numbers -> activations, of each (length, *shape), or (*shape) without sequences.
    """

    read: Callable[[Whole], list[Array]]
    first: Whole  # (N,)
    parts: Whole  # (N,)
    lengths: Whole  # of all parts
    weights: NDArray[np.float64]  # of all parts
    sequences: bool

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: Sequence[int] | Whole) -> "PartActivations":
        """Return the activations of these examples, in this order."""
        first, parts = self.first[rows], self.parts[rows]
        return PartActivations(self.read, first, parts, self.lengths, self.weights, self.sequences)

    @property
    def sizes(self) -> Sizes:
        if not len(self):
            return Sizes(*np.zeros((3, 0), np.int64))
        each = [self.lengths[a : a + n] for a, n in zip(self.first, self.parts, strict=True)]
        longest, total = ([int(f(own)) for own in each] for f in (np.max, np.sum))
        return Sizes(self.parts, np.array(longest), np.array(total))

    def batch(self, rows: Whole, most: int = 0) -> PartBatch:
        """Return the parts of some examples in float32, at most `most` each (0 for all), padded."""
        own = [self.first[row] + evenly(int(self.parts[row]), most) for row in rows]
        owner = np.repeat(np.arange(len(rows)), [len(parts) for parts in own])
        parts = np.concatenate(own)
        return PartBatch(self.arrays(parts), owner, self.weights[parts], len(rows))

    def arrays(self, parts: Whole, longest: int = 0) -> tuple[Array, ...]:
        """Return some parts in float32, padded to `longest`, or if that is 0 to the longest."""
        values = self.read(parts)
        if self.sequences:
            return padded(values, longest)
        return (np.stack(values).astype(np.float32),)


def padded(values: Sequence[Array], longest: int = 0) -> tuple[NDArray[np.float32], Whole]:
    """Return sequences (length, *shape) as hidden (P, L, *shape) and mask (P, L).

    longest: L; 0 for that of the longest sequence.
    """
    longest = longest or max(len(value) for value in values)
    hidden = np.zeros((len(values), longest, *values[0].shape[1:]), np.float32)
    mask = np.zeros((len(values), longest), np.int64)
    for row, value in enumerate(values):
        hidden[row, : len(value)] = value
        mask[row, : len(value)] = 1
    return hidden, mask


@dataclass(eq=False)
class PartStore:
    """Activations of parts by the digest of their example, in a table or, without one, in memory.

    sequences: whether the first length of activations is their own.
    """

    table: StoredTable | None
    sequences: bool
    _kept: dict[Place, tuple[Array, int, float]] = field(default_factory=dict)
    _bytes: int = 0

    @staticmethod
    def layout(precision: DTypeLike, shape: tuple[int, ...], sequences: bool) -> Layout:
        """Return the columns of the table: activations, parts of the example, the part's weight."""
        cut = (ANY, *shape) if sequences else shape
        return {"cut": (precision, cut), "parts": (np.uint32, ()), "weight": (np.float64, ())}

    @property
    def damaged(self) -> list[Path]:
        return [] if self.table is None else self.table.damaged

    def has(self, examples: Sequence[bytes]) -> NDArray[np.bool_]:
        """Return which examples are there with all their parts."""
        return np.array([example in self for example in examples], bool)

    def __contains__(self, example: bytes) -> bool:
        """Return whether every part of an example is stored."""
        parts = self._parts(example)
        return parts > 0 and all(self._has(example, number) for number in range(1, parts))

    def keep(self, example: bytes, number: int, parts: int, weight: float, values: Array) -> None:
        """Keep the activations of one part; those that wait are stored when they are many."""
        self._kept[example, number] = values, parts, weight
        self._bytes += values.nbytes
        if self._bytes >= WAITING or len(self._kept) >= MOST_ROWS:
            self.save()

    def save(self) -> None:
        """Store the parts that wait, if there is a table."""
        if self.table is None or not self._kept:
            return
        waiting, self._kept, self._bytes = self._kept, {}, 0
        values, parts, weights = zip(*waiting.values(), strict=True)
        cut = list(values) if self.sequences else np.stack(values)
        columns: dict[str, Rows] = {"cut": cut, "parts": np.array(parts, np.uint32)}
        columns["weight"] = np.array(weights, np.float64)
        self.table.append([part_name(*place) for place in waiting], columns)

    def of(self, examples: Sequence[bytes]) -> PartActivations:
        """Return the activations of examples whose parts were all kept; KeyError for others."""
        if not examples:
            none = np.zeros(0, np.int64)
            return PartActivations(lambda _: [], none, none, none, np.zeros(0), self.sequences)
        self.save()
        return self._in_memory(examples) if self.table is None else self._stored(examples)

    def _stored(self, examples: Sequence[bytes]) -> PartActivations:
        assert self.table is not None
        counts = self.table.rows([part_name(name, 0) for name in examples], "parts")
        names = [part_name(*place) for place in _places(examples, counts)]
        reader, weights = self.table.reader(names, "cut"), self.table.rows(names, "weight")
        lengths = reader.lengths() if self.sequences else np.ones(len(names), np.int64)
        return self._made(reader.arrays, counts, lengths, weights)

    def _in_memory(self, examples: Sequence[bytes]) -> PartActivations:
        counts = np.array([self._kept[name, 0][1] for name in examples])
        kept = [self._kept[place] for place in _places(examples, counts)]
        lengths = [len(values) if self.sequences else 1 for values, _, _ in kept]
        weights = np.array([weight for _, _, weight in kept])
        return self._made(lambda rows: [kept[row][0] for row in rows], counts, lengths, weights)

    def _made(self, read: Any, counts: Any, lengths: Any, weights: Any) -> PartActivations:
        parts = np.asarray(counts, np.int64)
        lengths = np.asarray(lengths, np.int64)
        return PartActivations(
            read, np.cumsum(parts) - parts, parts, lengths, weights, self.sequences
        )

    def _parts(self, example: bytes) -> int:
        """Return the number of parts of an example; 0 if its first part is not stored."""
        if kept := self._kept.get((example, 0)):
            return kept[1]
        name = part_name(example, 0)
        if self.table is None or name not in self.table:
            return 0
        return int(self.table.rows([name], "parts")[0])

    def _has(self, example: bytes, number: int) -> bool:
        stored = self.table is not None and part_name(example, number) in self.table
        return stored or (example, number) in self._kept


def _places(examples: Sequence[bytes], counts: Any) -> list[Place]:
    pairs = zip(examples, counts.tolist(), strict=True)
    return [(example, number) for example, count in pairs for number in range(count)]


def part_name(example: bytes, number: int) -> bytes:
    """Return the name of a part's row in the store."""
    return digest(example, number.to_bytes(4, "little"))
