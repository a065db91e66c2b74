"""The batches of a training loop, from stored tables or from examples read again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones.inputs import Batch, Input
from headstart.backbones.views import PLAIN, Views
from headstart.base.errors import DataError
from headstart.base.threads import ordered_map
from headstart.data.content import changed_during_run, prepared
from headstart.data.dataset import CheckedFile, Dataset
from headstart.features.extract import FeatureTable
from headstart.targets.target import Labels, Target

RowNumbers = NDArray[np.int64]
AHEAD = 64  # examples decoded in advance


class Feed(Protocol):
    """A source of training rows: `batch` returns the network's input for some rows."""

    @property
    def labelled(self) -> FeatureTable | Dataset: ...  # has the rows' ids, labels and target

    def batch(self, rows: RowNumbers, epoch: int) -> Tensor: ...  # (len(rows), …)

    @property
    def features(self) -> "Feed | None":
        """A feed of the rows' features (of their first view), if available."""
        return None

    @property
    def ids(self) -> tuple[str, ...]:
        return self.labelled.ids

    @property
    def y(self) -> Labels:
        return self.labelled.y

    @property
    def target(self) -> Target:
        return self.labelled.target


@dataclass(frozen=True, eq=False)
class Stored(Feed):
    """Rows of feature tables, one table per view; each epoch uses the next view of every row.

    cut: whether `batch` returns the activations at the cut instead of the features.
    """

    tables: tuple[FeatureTable, ...]
    cut: bool
    seed: int = 0

    @property
    def features(self) -> "Stored":
        return Stored(self.tables[:1], cut=False)

    @property
    def labelled(self) -> FeatureTable:
        return self.tables[0]

    def batch(self, rows: RowNumbers, epoch: int) -> Tensor:
        numbers = view_numbers(len(self.ids), len(self.tables), epoch, self.seed)[rows]
        out: NDArray[np.float32] | None = None
        for view in np.unique(numbers):
            own, table = numbers == view, self.tables[view]
            stored = table.cut if self.cut else table.x
            assert stored is not None  # it was extracted with a tap
            values = np.asarray(stored[rows[own]], np.float32)
            out = np.empty((len(rows), *values.shape[1:]), np.float32) if out is None else out
            out[own] = values
        return torch.from_numpy(out)


@dataclass(frozen=True, eq=False)
class Fresh(Feed):
    """Examples that are read, augmented and run through the frozen layers for every batch.

    frozen: prepared examples -> network input.
    """

    data: Dataset
    input: Input[Any]
    frozen: Callable[[Batch], NDArray[np.generic]]
    views: Views = PLAIN
    threads: int = 1

    @property
    def labelled(self) -> Dataset:
        return self.data

    @cached_property
    def _files(self) -> tuple[CheckedFile, ...]:
        return self.data.files

    def batch(self, rows: RowNumbers, epoch: int) -> Tensor:
        numbers = view_numbers(len(self.data), self.views.count, epoch, self.views.seed)[rows]
        wanted = list(zip(rows.tolist(), numbers.tolist(), strict=True))
        made = ordered_map(self._prepared, wanted, threads=self.threads, ahead=AHEAD)
        given = self.frozen(self.input.collate(list(made)))
        return torch.from_numpy(np.ascontiguousarray(given))

    def _prepared(self, wanted: tuple[int, int]) -> Batch:
        row, number = wanted
        try:
            return prepared(self.input, self._files[row], self.views, number)
        except (OSError, DataError) as error:
            raise changed_during_run(self.data.ids[row], error) from error


def view_numbers(rows: int, count: int, epoch: int, seed: int) -> NDArray[np.int64]:  # (rows,)
    """Return each row's view number in an epoch: (a random first number + epoch) modulo count.

    With `count` 0 the view number is the epoch, so views never repeat.
    """
    if count == 0:
        return np.full(rows, epoch)
    if count == 1:
        return np.zeros(rows, np.int64)
    first = np.random.default_rng([seed, rows]).integers(count, size=rows)
    return (first + epoch) % count


def batches(rows: int, size: int, epoch: int, seed: int) -> Sequence[RowNumbers]:
    """Return all rows in a new order every epoch, split into batches; the last may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + size] for start in range(0, rows, size)]
