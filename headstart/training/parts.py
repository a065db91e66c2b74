"""Batches of examples in parts: what the trained layers are given of several examples at once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
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


TrainingBatch = Tensor | Parts  # rows, or examples in parts
