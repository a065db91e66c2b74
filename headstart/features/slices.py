"""Features of much data, slice by slice, into the store; only counts are returned.

A slice can be computed by any process that sees the store and the data. One process and many cut
the same slices, so that they write the same shards; rows that are stored already are not computed
again.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.base.context import RunContext
from headstart.base.engine_choice import EngineChoice
from headstart.base.listener import Listener
from headstart.base.store import Layout, Store, StoredTable
from headstart.data.dataset import Dataset, LeftOut
from headstart.features.engine_table import FrozenPart, open_engine
from headstart.features.engines import Engine
from headstart.features.extract import SHARD, choose_engine, extract

SLICE = 2 * SHARD  # rows


@dataclass(frozen=True, eq=False)
class DataSlice:
    """Consecutive rows `data` of a data set, from its row `first` on. number: of the slice."""

    number: int
    first: int
    data: Dataset

    def __str__(self) -> str:
        return (
            f"slice {self.number + 1} (rows {self.first + 1:,} to {self.first + len(self.data):,})"
        )


@dataclass(frozen=True)
class Extracted:
    """What an extraction did. forwards: rows that the network ran on. hits: rows found in the
    store. seconds: of wall-clock time; of parts that ran beside each other, added up. again: names
    of slices that were computed again, because their process or node ended.
    """

    rows: int = 0
    forwards: int = 0
    hits: int = 0
    seconds: float = 0.0
    left_out: tuple[LeftOut, ...] = ()
    again: tuple[str, ...] = ()

    def __add__(self, other: "Extracted") -> "Extracted":
        return Extracted(
            self.rows + other.rows,
            self.forwards + other.forwards,
            self.hits + other.hits,
            self.seconds + other.seconds,
            self.left_out + other.left_out,
            self.again + other.again,
        )


@dataclass(frozen=True)
class OpenStore(Store):
    """A store whose tables are opened once: rows that others add later are computed again."""

    tables: dict[str, StoredTable] = field(default_factory=dict, compare=False, repr=False)

    def table(self, name: str, layout: Layout | None = None) -> StoredTable:
        if name not in self.tables:
            self.tables[name] = super().table(name, layout)
        return self.tables[name]


@dataclass(eq=False)
class SliceWorker:
    """Computes slices in one process: its engine and the store's tables stay open between them."""

    backbone: Backbone | Frozen
    context: RunContext
    _engine: Engine | None = None

    def __post_init__(self) -> None:
        assert self.context.store is not None
        store = self.context.store
        self.context = replace(self.context, store=OpenStore(store.folder, store.reread))

    def __call__(self, piece: DataSlice) -> Extracted:
        """Compute the features of a slice into the store; raises what `extract` raises."""
        table = extract(
            self.backbone,
            piece.data,
            store=self.context.store,
            runtime=self.context.runtime,
            listener=self.context.listener,
            engines=self.context.engines,
            opened=self._open,
        )
        return Extracted(len(piece.data), table.forwards, table.hits, table.seconds, table.left_out)

    def _open(self, network: FrozenPart, choice: EngineChoice) -> Engine:
        if self._engine is None:
            self._engine = open_engine(network, choice)
        return self._engine


def slices_of(data: Dataset) -> Iterator[DataSlice]:
    """Yield the slices of data: SLICE rows each, the last one fewer."""
    for number, first in enumerate(range(0, len(data), SLICE)):
        yield DataSlice(number, first, data.take(range(first, min(first + SLICE, len(data)))))


def extract_slices(backbone: Backbone | Frozen, data: Dataset, context: RunContext) -> Extracted:
    """Compute the features of data into the store in this process, one slice after the other.

    The engine is chosen for all rows.
    """
    choose_engine(backbone, data, context)
    began, found = time.perf_counter(), Extracted()
    worker = SliceWorker(backbone, replace(context, listener=Listener()))
    for piece in slices_of(data):
        found += worker(piece)
        context.listener.progress("features", found.rows, len(data))
    return replace(found, seconds=time.perf_counter() - began)
