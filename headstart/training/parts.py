"""Batches of examples in parts: what the trained layers are given of several examples at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.features.parts import PartBatch

POSITIONS = 2**14  # padded, that are evaluated at once


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts of N examples, padded to the longest.

    arrays: (P, …) each, as the first trained layers take them. owner: (P,), the number of each
    part's example, rising. shares: (P,), of the part in the mean of its example's features; those
    of an example add up to 1.
    """

    arrays: tuple[Tensor, ...]
    owner: Tensor
    shares: Tensor
    examples: int

    @classmethod
    def of(cls, batch: PartBatch) -> "Parts":
        """Return a batch as tensors."""
        arrays = tuple(torch.from_numpy(array) for array in batch.arrays)
        owner, weights = torch.from_numpy(batch.owner), torch.from_numpy(batch.weights)
        whole = torch.zeros(batch.examples, dtype=weights.dtype).index_add(0, owner, weights)
        return cls(arrays, owner, (weights / whole[owner]).float(), batch.examples)

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, rows: Tensor) -> "Parts":
        """Return some examples; rows: their numbers, rising."""
        if len(rows) == self.examples:
            return self
        number = torch.full((self.examples,), -1)
        number[rows] = torch.arange(len(rows))
        owner = number[self.owner]
        kept = owner >= 0
        arrays = tuple(array[kept] for array in self.arrays)
        return Parts(arrays, owner[kept], self.shares[kept], len(rows))

    def to(self, device: torch.device) -> "Parts":
        arrays = tuple(array.to(device) for array in self.arrays)
        owner, shares = self.owner.to(device), self.shares.to(device)
        return replace(self, arrays=arrays, owner=owner, shares=shares)

    def pooled(self, x: Tensor) -> Tensor:
        """Return the features (N, D) of the examples from those of their parts (P, D)."""
        if len(x) == self.examples:
            return x
        whole = torch.zeros(self.examples, x.shape[1], device=x.device)
        return whole.index_add(0, self.owner, x.float() * self.shares[:, None])

    def split(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the arrays of some parts at a time, for evaluation without gradients."""
        length = max(array.shape[1] for array in self.arrays if array.ndim > 1)
        size = max(1, POSITIONS // length)
        for start in range(0, len(self.owner), size):
            yield tuple(array[start : start + size] for array in self.arrays)


@dataclass(frozen=True, eq=False)
class LongParts(Parts):
    """The parts of one very long example, read a few at a time, so that they need little memory.

    arrays: (). read: from a slice of parts to their arrays. length: to which they are padded. For
    evaluation alone: gradients need all arrays at once.
    """

    read: Callable[[slice], tuple[Tensor, ...]]
    length: int

    @classmethod
    def of_one(
        cls,
        read: Callable[[slice], tuple[NDArray[np.generic], ...]],
        weights: NDArray[np.float64],
        length: int,
    ) -> "LongParts":
        """Return the parts of one example with these weights (P,)."""
        made = Parts.of(PartBatch((), np.zeros(len(weights), np.int64), weights, 1))

        def tensors(part: slice) -> tuple[Tensor, ...]:
            return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in read(part))

        return cls((), made.owner, made.shares, 1, tensors, length)

    def to(self, device: torch.device) -> "LongParts":
        own = self.read
        moved = super().to(device)
        return replace(
            self,
            owner=moved.owner,
            shares=moved.shares,
            read=lambda part: tuple(array.to(device) for array in own(part)),
        )

    def split(self) -> Iterator[tuple[Tensor, ...]]:
        size = max(1, POSITIONS // self.length)
        for start in range(0, len(self.owner), size):
            yield self.read(slice(start, start + size))


def is_long(parts: int, longest: int) -> bool:
    """Return whether an example of so many parts is evaluated a few parts at a time."""
    return parts * longest > POSITIONS


TrainingBatch = Tensor | Parts  # rows, or examples in parts
