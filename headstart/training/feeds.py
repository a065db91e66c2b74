"""The batches of a training loop, from stored tables or from examples read again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.backbones.inputs import Batch, Input, cut_short, has_parts, length, rows_of
from headstart.backbones.views import PLAIN, Views
from headstart.base.errors import DataError
from headstart.base.store import Reader
from headstart.base.threads import ordered_map
from headstart.data.content import changed_during_run, prepared
from headstart.data.dataset import CheckedFile, Dataset
from headstart.features.extract import FeatureTable
from headstart.features.parts import PartActivations, PartBatch, Sizes, evenly, sizes_of
from headstart.targets.supervision import Supervision
from headstart.targets.target import Labels, Target
from headstart.training.parts import POSITIONS, LongParts, Parts, TrainingBatch, is_long

RowNumbers = NDArray[np.int64]
AHEAD = 64  # examples decoded in advance
NEARBY = 50  # batches whose rows are sorted by length together
SLICED_FROM_BYTES = 2**30  # features of this size on are read slice by slice, not row by row
SLICE = 4096  # rows that are read together,
MIXED = 16  # and the slices whose rows are shuffled together


class Feed(Protocol):
    """A source of training rows: `batch` returns the network's input for some rows."""

    @property
    def labelled(self) -> FeatureTable | Dataset: ...  # has the rows' ids, labels and target

    def batch(self, rows: RowNumbers, epoch: int) -> TrainingBatch: ...  # (len(rows), …)

    def labels(self, rows: RowNumbers, epoch: int) -> Labels:
        """Return the labels of the rows in `batch`; a view may have labels of its own."""
        return self.y[rows]

    @property
    def sizes(self) -> Sizes | None:
        """The sizes of examples in parts, by which batches of similar length are made."""
        return None

    @property
    def sliced(self) -> bool:
        """Whether rows that are stored together are read together: they may exceed memory."""
        return False

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

    @property
    def supervision(self) -> Supervision:
        return self.labelled.supervision


@dataclass(frozen=True, eq=False)
class Stored(Feed):
    """Rows of feature tables, one table per view; each epoch uses the next view of every row.

    cut: whether `batch` returns the activations at the cut instead of the features. most: parts of
    an example in a batch, evenly spread; 0 for all.
    """

    tables: tuple[FeatureTable, ...]
    cut: bool
    seed: int = 0
    most: int = 0

    @property
    def features(self) -> "Feed | None":
        return Stored(self.tables[:1], cut=False)

    @property
    def labelled(self) -> FeatureTable:
        return self.tables[0]

    @cached_property
    def sizes(self) -> Sizes | None:
        return self._parts.sizes if self._parts else None

    @property
    def sliced(self) -> bool:
        features = sum(table.x.size * table.x.itemsize for table in self.tables)
        return not self.cut and features >= SLICED_FROM_BYTES

    @property
    def _parts(self) -> PartActivations | None:
        cut = self.tables[0].cut
        return cut if self.cut and isinstance(cut, PartActivations) else None

    def batch(self, rows: RowNumbers, epoch: int) -> TrainingBatch:
        if self._parts is not None:  # there are no views of such examples
            return self._of_one(self._parts.take(rows)) or Parts.of(
                self._parts.batch(rows, self.most)
            )
        numbers = views_of(rows, len(self.ids), len(self.tables), epoch, self.seed)
        out: NDArray[np.float32] | None = None
        for view in np.unique(numbers):
            own, table = numbers == view, self.tables[view]
            stored = table.cut if self.cut else table.x
            assert isinstance(stored, np.ndarray | Reader)  # it was extracted with a tap
            values = np.asarray(stored[rows[own]], np.float32)
            out = np.empty((len(rows), *values.shape[1:]), np.float32) if out is None else out
            out[own] = values
        return torch.from_numpy(out)

    def _of_one(self, own: PartActivations) -> LongParts | None:
        """Return the parts of a very long example, to be read a few at a time; None of others."""
        if self.most or len(own) != 1:
            return None
        parts = own.first[0] + np.arange(own.parts[0])
        longest = int(own.lengths[parts].max())
        if not is_long(len(parts), longest):
            return None
        return LongParts.of_one(
            lambda some: own.arrays(parts[some], longest), own.weights[parts], longest
        )


@dataclass(frozen=True, eq=False)
class Fresh(Feed):
    """Examples that are read, augmented and run through the frozen layers for every batch.

    frozen: prepared examples -> network input; of examples in parts, the arrays that the network
    takes. most: as in `Stored`. seed: of the view that each row begins with; None for that of
    `views`.
    """

    data: Dataset
    input: Input[Any]
    frozen: Callable[[Batch], NDArray[np.generic] | tuple[NDArray[np.generic], ...]]
    views: Views = PLAIN
    threads: int = 1
    most: int = 0
    seed: int | None = None

    @property
    def labelled(self) -> Dataset:
        return self.data

    @cached_property
    def y(self) -> Labels:  # asked for every batch: a dataset makes them of all its labels
        return self.data.y

    @cached_property
    def _files(self) -> tuple[CheckedFile, ...]:
        return self.data.files

    @cached_property
    def sizes(self) -> Sizes | None:
        return sizes_of(self.input, self.data, self.threads) if has_parts(self.input) else None

    @property
    def _inputs(self) -> int:
        """The inputs that each row has in turn, as many as `Stored` has tables: the example itself
        and its views. 0 where each epoch has new views."""
        views = self.views
        return views.count + (views.spec.active and views.count > 0)

    def batch(self, rows: RowNumbers, epoch: int) -> TrainingBatch:
        seed = self.views.seed if self.seed is None else self.seed
        numbers = views_of(rows, len(self.data), self._inputs, epoch, seed)
        wanted = list(zip(rows.tolist(), numbers.tolist(), strict=True))
        made = ordered_map(self._prepared, wanted, threads=self.threads, ahead=AHEAD)
        if has_parts(self.input):
            return self._of_parts(list(made))
        given = self.frozen(self.input.collate(list(made)))
        return torch.from_numpy(np.ascontiguousarray(given))

    def _of_parts(self, examples: Sequence[Batch]) -> Parts:
        input = self.input
        used = [rows_of(e, evenly(length(e), self.most)) for e in examples]
        longest = max(int(input.part_lengths(example).max()) for example in used)
        if len(used) == 1 and not self.most and is_long(length(used[0]), longest):
            short = cut_short(input, used[0], longest)

            def read(part: slice) -> tuple[NDArray[np.generic], ...]:
                made = self.frozen(rows_of(short, part))
                return made if isinstance(made, tuple) else (made,)

            return LongParts.of_one(read, input.part_weights(used[0]), longest)
        given = self.frozen(cut_short(input, input.collate(used), longest))
        owner = np.repeat(np.arange(len(used)), [length(example) for example in used])
        weights = np.concatenate([input.part_weights(example) for example in used])
        arrays = given if isinstance(given, tuple) else (given,)
        return Parts.of(PartBatch(arrays, owner, weights, len(used)))

    def _prepared(self, wanted: tuple[int, int]) -> Batch:
        (row, number), views = wanted, self.views
        if self._inputs > 1:
            views, number = (views, number - 1) if number else (PLAIN, 0)
        try:
            return prepared(self.input, self._files[row], views, number)
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
    return (first_numbers(rows, count, seed) + epoch) % count


@lru_cache(maxsize=8)  # of a run: a few feeds, asked for every batch
def first_numbers(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return each row's view number in epoch 0, (rows,), which must not be written to."""
    return np.random.default_rng([seed, rows]).integers(count, size=rows)


def views_of(
    chosen: RowNumbers, rows: int, count: int, epoch: int, seed: int
) -> NDArray[np.int64]:  # (len(chosen),)
    """Return what `view_numbers` does for the `chosen` ones of all rows, without a pass over all.

    >>> views_of(np.array([7, 2]), 10, 4, epoch=3, seed=0).shape
    (2,)
    """
    if count < 2:
        return view_numbers(len(chosen), count, epoch, seed)
    return (first_numbers(rows, count, seed)[chosen] + epoch) % count


def balanced_rows(strata: RowNumbers, epoch: int, seed: int) -> RowNumbers:
    """Return as many row numbers as there are strata (N,), equally many of each stratum.

    Rows of a rare stratum come several times, equally often but for one; of a common one some are
    left out, others in every epoch.

    >>> sorted(balanced_rows(np.array([0, 0, 0, 1]), epoch=1, seed=0).tolist())
    [0, 2, 3, 3]
    """
    random, names = np.random.default_rng([seed, epoch, 1]), np.unique(strata)
    share, more = divmod(len(strata), len(names))
    larger, drawn = set(random.permutation(names)[:more].tolist()), list[RowNumbers]()
    for name in names.tolist():
        rows = random.permutation(np.flatnonzero(strata == name))
        drawn.append(np.resize(rows, share + (name in larger)))
    return np.concatenate(drawn)


def by_slices(chosen: RowNumbers, random: np.random.Generator) -> RowNumbers:
    """Return row numbers shuffled in slices of 4,096 neighbours, and within 16 slices at a time.

    A pass over them reads a memory-mapped table in long pieces, each once, and yet no batch is of
    neighbours.
    """
    rows = np.sort(chosen)
    starts = np.arange(0, len(rows), SLICE)
    slices = [rows[start : start + SLICE] for start in random.permutation(starts)]
    mixed = (slices[i : i + MIXED] for i in range(0, len(slices), MIXED))
    return np.concatenate([random.permutation(np.concatenate(some)) for some in mixed])


def batches(
    chosen: int | RowNumbers,
    size: int,
    epoch: int,
    seed: int,
    sizes: Sizes | None = None,
    *,
    sliced: bool = False,
) -> Sequence[RowNumbers]:
    """Return rows in a new order every epoch, split into batches; the last may be smaller.

    chosen: the number of all rows, or the numbers of some, such as `balanced_rows`.
    sizes: of the examples; the rows of every 50 batches are then sorted by length and split anew,
    and all batches are shuffled again. sliced: shuffle `by_slices`.
    """
    random = np.random.default_rng([seed, epoch])
    if sliced:
        order = by_slices(np.arange(chosen) if isinstance(chosen, int) else chosen, random)
    else:
        order = random.permutation(chosen)
    rows = len(order)
    if sizes is None:
        return [order[start : start + size] for start in range(0, rows, size)]
    sorted_rows = np.concatenate(
        [
            _by_length(order[start : start + NEARBY * size], sizes)
            for start in range(0, rows, NEARBY * size)
        ]
    )
    made = [sorted_rows[start : start + size] for start in range(0, rows, size)]
    return [made[i] for i in random.permutation(len(made))]


def judged_in(rows: RowNumbers, size: int, sizes: Sizes | None = None) -> Iterator[RowNumbers]:
    """Yield all rows in batches for evaluation; examples in parts by length, the longest alone."""
    if sizes is None:
        yield from (rows[start : start + size] for start in range(0, len(rows), size))
        return
    batch, parts = list[int](), 0
    for row in _by_length(rows, sizes).tolist():
        parts += int(sizes.parts[row])
        if batch and (len(batch) == size or parts * int(sizes.longest[row]) > POSITIONS):
            yield np.array(batch)
            batch, parts = [], int(sizes.parts[row])
        batch.append(row)
    if batch:
        yield np.array(batch)


def _by_length(rows: RowNumbers, sizes: Sizes) -> RowNumbers:
    return rows[np.lexsort((sizes.parts[rows], sizes.longest[rows]))]
