"""Run the frozen backbone once per example and cache its features and activations."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import (
    Batch,
    Input,
    check_kind,
    digest_of,
    has_parts,
    length,
)
from headstart.backbones.views import PLAIN, Views
from headstart.base.context import Precision, RunContext
from headstart.base.engine_choice import EngineChoice, EngineChoices
from headstart.base.errors import Mismatch, StoreError
from headstart.base.listener import Listener
from headstart.base.mapped import empty_rows, rows_of_array
from headstart.base.runtime import Runtime
from headstart.base.store import DIGEST_BYTES, Layout, Reader, Store, StoredTable
from headstart.base.threads import ordered_map
from headstart.base.values import fingerprint
from headstart.data.content import changed_during_run, read_checked
from headstart.data.dataset import CheckedFile, Dataset, LeftOut
from headstart.data.known_places import KnownBytes, KnownPlaces
from headstart.features.batches import part_batches
from headstart.features.choosing import Chosen, EngineRequest, chosen_engine
from headstart.features.engine_table import FrozenPart, open_engine
from headstart.features.engines import Engine
from headstart.features.parts import PartActivations, PartStore
from headstart.targets.classes import as_target, class_names
from headstart.targets.supervision import PLAIN as ALIKE
from headstart.targets.supervision import Supervision
from headstart.targets.target import Labels, Target

if TYPE_CHECKING:
    from torch import nn

CUT = "features"  # the backbone's output: its pooled features
AHEAD = 48  # examples decoded in advance; more of them take cores from the engine
COMPILED = "compiled"  # folder of the store for what engines compile
RECALLED = 4096  # rows read from the store at a time
SHARD = 256  # rows per write to the store: the most that a kill can lose


PARTS_AT_ONCE = 512  # parts that are sorted by their length before the engine runs them
OpenEngine = Callable[[FrozenPart, EngineChoice], Engine]
# Activations at a cut, (N, *shape), or those of examples in parts.
Activations = Reader | NDArray[np.floating[Any]] | PartActivations


@dataclass(frozen=True, eq=False)
class Tap:
    """A request for the activations at a cut of the backbone, beside the features.

    name, shape, both, sequences: as in `cutting.Cut`. precision: dtype of the stored activations.
    """

    name: str
    shape: tuple[int, ...]
    both: "nn.Module"
    precision: Precision = "float32"
    sequences: bool = False

    @property
    def row_bytes(self) -> int:
        """The bytes of a row, or of one position of a sequence."""
        return int(np.prod(self.shape)) * np.dtype(self.precision).itemsize


@dataclass(frozen=True, eq=False, repr=False)
class FeatureTable:
    """Features of a dataset: row i of `x` belongs to `ids[i]`.

    forwards: examples that the backbone ran on. hits: rows read from the store. left_out: files
    that could not be decoded or changed since they were checked; they have no row. cut: the
    requested activations at the cut, read from the store row by row, so they may exceed memory.
    damaged: shards of the store that were skipped. engine: what computes the features.

    >>> features = hs.extract("photos")  # doctest: +SKIP
    >>> LogisticRegression().fit(features.x, features.y)  # doctest: +SKIP
    """

    ids: tuple[str, ...]
    x: NDArray[np.float32]  # (N, D)
    y: Labels  # encoded by the target; for classes (N,) int64
    target: Target  # class names are turned into a ClassTarget
    made_by: str  # fingerprint of weights, preprocessing, cut and precision
    left_out: tuple[LeftOut, ...] = ()
    forwards: int = 0
    hits: int = 0
    seconds: float = 0.0
    cut: Activations | None = None
    damaged: tuple[Path, ...] = ()
    groups: tuple[str, ...] = ()  # of the dataset: rows that stay in one fold
    engine: EngineChoice | None = None
    supervision: Supervision = ALIKE  # of the dataset: how the rows count in the loss

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", as_target(self.target))
        if not len(self.ids) == len(self.x) == len(self.y):
            raise Mismatch(
                f"A feature table has one row per id; got {len(self.ids)} ids, "
                f"{len(self.x)} feature rows and {len(self.y)} labels."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        lost = f", {len(self.left_out):,} left out" if self.left_out else ""
        return f"FeatureTable({len(self):,} rows of {self.x.shape[1]:,} features{lost})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return `x`, so that NumPy and scikit-learn take the table itself."""
        return np.array(self.x, dtype=dtype, copy=copy)

    @property
    def classes(self) -> tuple[str, ...]:
        return class_names(self.target)

    def of(self, dataset: Dataset) -> "FeatureTable":
        """Return the rows of `dataset`, in its order, with its labels; raises Mismatch if one is
        missing."""
        place = {id: i for i, id in enumerate(self.ids)}
        if missing := [id for id in dataset.ids if id not in place]:
            raise Mismatch(
                f"The features of {missing[0]!r} and {len(missing) - 1} more are not here."
            )
        rows = [place[id] for id in dataset.ids]
        x = rows_of_array(self.x, rows).reshape(len(dataset), self.x.shape[1])
        cut = self.cut
        if cut is not None:
            cut = cut[rows] if isinstance(cut, np.ndarray) else cut.take(rows)
        table = FeatureTable(dataset.ids, x, dataset.y, dataset.target, self.made_by, cut=cut)
        return replace(table, groups=dataset.groups, supervision=dataset.supervision)


def extract(
    backbone: Backbone | Frozen,
    dataset: Dataset,
    *,
    store: Store | None = None,
    runtime: Runtime | None = None,
    listener: Listener | None = None,
    stage: str = "features",
    tap: Tap | None = None,
    engines: EngineChoices | None = None,
    passes: int = 1,
    opened: OpenEngine | None = None,
) -> FeatureTable:
    """Return the features of every row, in order; a store keeps them, so each is computed once.

    stage: the name of this work for the listener. engines: the choices of the run that this work
    is a part of. passes: how often the run will compute features of all rows, views counted, by
    which a faster engine has to pay. opened: opens an engine, or returns one that is
    open; None to open one.

    Threads decode ahead of the forward pass; only a few batches of examples are in memory. Rows are
    stored as they are computed: after an interruption the same call resumes. Raises StoreError if
    the store can't be written, Mismatch if an engine fails its check.
    """
    check_kind(backbone.card.input, dataset.input, backbone.card.name)
    place = _Place(backbone, store, _resolved(backbone, runtime or Runtime()), tap, opened=opened)
    listener = listener or Listener()
    place.choose(dataset, passes, listener, {} if engines is None else engines)
    return _run(_Extraction(place, dataset, listener, stage))[0]


def _resolved(backbone: Backbone | Frozen, runtime: Runtime) -> Runtime:
    """Return the runtime with this machine's device and cores.

    A frozen graph runs on the CPU: "auto" would load PyTorch to look for an accelerator.
    """
    return (replace(runtime, device="cpu") if isinstance(backbone, Frozen) else runtime).resolved()


def choose_engine(
    backbone: Backbone | Frozen, dataset: Dataset, context: RunContext, passes: int = 1
) -> None:
    """Choose the engine of a run for this backbone, as `extract` would; the context keeps it.

    passes: as in `extract`; 0 to compare nothing.
    """
    check_kind(backbone.card.input, dataset.input, backbone.card.name)
    place = _Place(backbone, context.store, _resolved(backbone, context.runtime))
    place.choose(dataset, passes, context.listener, context.engines)


def extract_views(
    backbone: Backbone | Frozen,
    dataset: Dataset,
    views: Views,
    context: RunContext,
    tap: Tap | None = None,
) -> tuple[FeatureTable, ...]:
    """Return a table for each of the stored `views` of every row; see `extract`.

    Each file is read once for all its views.
    """
    place = _Place(backbone, context.store, context.runtime.resolved(), tap, views)
    place.choose(dataset, views.count, context.listener, context.engines)
    return _run(_Extraction(place, dataset, context.listener, "views"))


def all_there(table: FeatureTable) -> FeatureTable:
    """Return `table`; raises DataError if a checked row could not be read or its bytes changed."""
    if table.left_out:
        item, *others = table.left_out
        raise changed_during_run(item.path, item.reason, len(others))
    return table


def _run(work: "_Extraction") -> "tuple[FeatureTable, ...]":
    place = work.place
    threads, ahead = place.runtime.decode_threads, max(1, AHEAD // work.views)
    files = place.looked_up(work.dataset.files)
    fetched = ordered_map(place.fetch, files, threads=threads, ahead=ahead)
    try:
        for row, items in enumerate(fetched):
            for view, item in enumerate(items):
                work.take(row * work.views + view, item)
        work.run()
    finally:
        fetched.close()
        place.places.save()
        work.save()  # keep what was computed, also after an error
    return work.tables()


@dataclass(frozen=True, eq=False)
class _Fetched:
    """The result of a decoding thread; `example` is None if its results are already stored."""

    file: bytes = b""  # cache key of the file or of its view
    name: bytes = b""  # digest of the prepared example
    example: Batch | None = None
    error: str = ""


class _Place:
    """The engine and the store's tables of one extraction; `choose` decides on them."""

    chosen: Chosen
    made_by: str

    def __init__(
        self,
        backbone: Backbone | Frozen,
        store: Store | None,
        runtime: Runtime,
        tap: Tap | None = None,
        views: Views = PLAIN,
        opened: OpenEngine | None = None,
    ) -> None:
        self.opened = opened
        self.backbone, self.runtime, self.tap, self.views = backbone, runtime, tap, views
        self.input, self.store = backbone.card.input, store
        self.weights, self.way = backbone.fingerprint(), self.input.fingerprint()
        self.in_parts = has_parts(self.input) or self.input.test_views > 1
        self.places = KnownPlaces(store, self.input)
        self.ahead = dict[bytes, bytes]()  # results of `_stored` for files that are fetched next
        self.features: StoredTable | None = None
        self.examples: StoredTable | None = None
        self.cuts: StoredTable | PartStore | None = None
        if store is not None:
            named = f"squares-{self.way}{views.fingerprint()}"  # its first name
            self.examples = store.table(named, {"square": (np.uint8, (DIGEST_BYTES,))})

    def choose(self, data: Dataset, passes: int, listener: Listener, made: EngineChoices) -> None:
        """Choose the engine, and open the tables of what it computes."""
        request = EngineRequest(
            self.network,
            data,
            rows=len(data) * passes,
            identity=fingerprint(self.weights, self.input.averaging(None, 1).fingerprint()),
            store=self.store,
            stored=self.share_stored,
            listener=listener,
            made=made,
        )
        self.chosen = chosen_engine(request)
        self.made_by = self._made_by(self.chosen.choice)
        if self.store is not None:
            self.features = self._features_of(self.chosen.choice, self.store)
        if self.tap is not None:
            self.cuts = self._cuts_in(self.store, self.tap)

    def _made_by(self, choice: EngineChoice) -> str:
        return fingerprint("features", self.weights, self.way, CUT, choice.name)

    def _features_of(self, choice: EngineChoice, store: Store) -> StoredTable:
        row: Layout = {"x": (np.float32, (self.backbone.card.dim,))}
        return store.table(f"features-{self._made_by(choice)}", row)

    def share_stored(self, choice: EngineChoice, files: Sequence[Path | CheckedFile]) -> float:
        """Return the share of files whose features by an engine are stored."""
        if self.store is None or self.examples is None or not files:
            return 0.0
        features, count = self._features_of(choice, self.store), 0
        for file in files:
            try:
                key = self.input.store_key(*read_checked(self.input, file))
                name = self.views.name(key, 0)
                if name in self.examples:
                    count += self.examples.rows([name], "square")[0].tobytes() in features
            except (OSError, ValueError, KeyError, StoreError):  # named when it is extracted
                continue
        return count / len(files)

    def _cuts_in(self, store: Store | None, tap: Tap) -> "StoredTable | PartStore | None":
        name = f"cut-{fingerprint(self.made_by, tap.name, tap.precision)}"
        if not self.in_parts:
            return store.table(name, {"cut": (tap.precision, tap.shape)}) if store else None
        layout = PartStore.layout(tap.precision, tap.shape, tap.sequences)
        return PartStore(store.table(name, layout) if store else None, tap.sequences)

    @cached_property
    def network(self) -> FrozenPart:
        """What the engine runs, with the cache of what engines compile."""
        cache = self.store.folder / COMPILED if self.store is not None else None
        both = self.tap.both if self.tap else None
        return FrozenPart(self.backbone, self.runtime, both, cache=cache)

    @cached_property
    def engine(self) -> Engine:
        """The engine, opened on first use: exporting a graph takes seconds."""
        return self.chosen.engine or (self.opened or open_engine)(self.network, self.chosen.choice)

    @property
    def at_once(self) -> int:
        """The number of parts that the engine is given; of varying ones, several batches' worth."""
        return PARTS_AT_ONCE if self.in_parts else self.engine.batch

    def looked_up(self, files: Sequence[CheckedFile]) -> Iterator[CheckedFile]:
        """Yield the files; what is stored of the next ones is looked up together."""
        before = dict[bytes, bytes]()
        for some in self.places.looked_up(files):
            keys, views = (found.key for found in self.places.ahead.values() if found), self.views
            names = (views.name(key, number) for key in keys for number in range(views.count))
            own = self._all_of([name for name in names if name not in before])
            self.ahead, before = before | own, own  # threads are still at the slice before
            yield from some

    def _all_of(self, files: list[bytes]) -> dict[bytes, bytes]:
        """Return the digests of the examples of files whose results are all stored."""
        if self.examples is None or not files:
            return {}
        with suppress(KeyError, StoreError):  # damaged since: each is looked up by itself
            files = [files[i] for i in np.flatnonzero(self.examples.has(files)).tolist()]
            names = [row.tobytes() for row in self.examples.rows(files, "square")] if files else []
            there = np.ones(len(names), bool)
            for table in self._wanted:
                there &= np.zeros(len(names), bool) if table is None else table.has(names)
            return {file: name for file, name, own in zip(files, names, there, strict=True) if own}
        return {}

    @property
    def _wanted(self) -> "list[StoredTable | PartStore | None]":
        """The tables of all results that are asked for."""
        return [self.features, *([self.cuts] if self.tap else [])]

    def fetch(self, source: CheckedFile) -> list[_Fetched]:
        """Read a file; decode it only if results of one of its views are not stored."""
        views = self.views.count
        try:
            known = self.places.of(source.path)
            if known and source.digest in ("", known.file.hex()):
                if there := self._all_stored(known.key):
                    return there
            data, file = read_checked(self.input, source)
            key = self.input.store_key(data, file)
            self.places.learn(source.path, KnownBytes(file, key))
            names = [self.views.name(key, number) for number in range(views)]
            if there := self._all_stored(key):
                return there
            plain = self.input.prepare(self.input.read(data))
        except OSError as error:
            return [_Fetched(error=error.strerror or str(error))] * views
        except (ValueError, MemoryError) as error:  # DataError is a ValueError
            return [_Fetched(error=str(error) or type(error).__name__)] * views
        examples = [self.views.view(plain, file, number) for number in range(views)]
        return [
            _Fetched(name, digest_of(example), example)
            for name, example in zip(names, examples, strict=True)
        ]

    def known(self, name: bytes) -> bool:
        """Return whether all requested results of an example are stored."""
        return all(table is not None and name in table for table in self._wanted)

    def _all_stored(self, key: bytes) -> list[_Fetched]:
        """Return all views of an example if their results are stored, otherwise []."""
        names = [self.views.name(key, number) for number in range(self.views.count)]
        found = [_Fetched(name, self._stored(name)) for name in names]
        return found if all(each.name for each in found) else []

    def _stored(self, file: bytes) -> bytes:
        """Return the digest of a file's example if all its results are stored, otherwise b""."""
        if found := self.ahead.get(file):
            return found
        if self.examples is None or file not in self.examples:
            return b""
        try:
            name = self.examples.rows([file], "square")[0].tobytes()
        except (KeyError, StoreError):  # damaged since the check
            return b""
        return name if self.known(name) else b""

    @property
    def damaged(self) -> tuple[Path, ...]:
        """Shards whose rows were computed again."""
        tables = (self.features, self.examples, self.cuts)
        return tuple(path for table in tables if table is not None for path in table.damaged)


class _Extraction:
    """One extraction in progress: finished rows, and rows waiting for the engine or the store.

    A row here is a view of a dataset row: the `views` of a dataset row are adjacent.
    """

    def __init__(self, place: _Place, dataset: Dataset, listener: Listener, stage: str) -> None:
        self.place, self.dataset, self.views = place, dataset, place.views.count
        self.listener, self.stage = listener, stage
        self.rows = len(dataset) * self.views
        self.began = self.last = time.perf_counter()
        folder = place.store.folder if place.store is not None else None
        self.x = empty_rows((self.rows, place.backbone.card.dim), np.float32, folder)
        self.cut: NDArray[np.floating[Any]] | None = None  # activations that no store takes
        if place.tap is not None and place.cuts is None:  # of one part each
            self.cut = np.empty((self.rows, *place.tap.shape), place.tap.precision)
        self.names: dict[int, bytes] = {}  # row -> digest of its example
        self.errors: dict[int, str] = {}
        self.computed: dict[bytes, int] = {}  # digest of an example -> row computed for it
        self.waiting: dict[int, Batch] = {}  # row -> example
        self.parts = 0  # of the waiting examples
        self.unsaved: dict[int, Any] = {}  # row -> activations at the cut, or None
        self.files: dict[bytes, bytes] = {}  # file -> digest of its example, not stored yet
        self.forwards = 0
        self.reported = False

    def take(self, row: int, item: _Fetched) -> None:
        """Record a fetched file; run the engine when a batch is full, save when a shard is."""
        if item.error:
            self.errors[row] = item.error
        else:
            self.names[row] = item.name
        if item.example is not None:
            self.files[item.file] = item.name
            if not (item.name in self.computed or self.place.known(item.name)):
                self.computed[item.name] = row
                self.waiting[row] = item.example
                self.parts += length(item.example)
        if self.waiting and self.parts >= self.place.at_once:
            self.run()
        self.listener.progress(self.stage, row + 1, self.rows)

    def run(self) -> None:
        """Run the engine on the waiting rows."""
        if not self.waiting:
            return
        waiting, self.waiting, self.parts = self.waiting, {}, 0
        rows, run = list(waiting), self._run_parts if self.place.in_parts else self._run_whole
        cuts = run(waiting)
        self._settle(rows)
        self._tell(len(rows))
        self.forwards += len(rows)
        self.unsaved |= dict(zip(rows, cuts, strict=True))
        if len(self.unsaved) >= SHARD:
            self.save()

    def _run_whole(self, waiting: Mapping[int, Batch]) -> Iterable[Any]:
        """Compute the features of examples of one part; return their activations at the cut."""
        rows = list(waiting)
        batch = self.place.input.collate(list(waiting.values()))
        x, *more = self.place.engine(batch)
        self.x[rows] = self.place.input.settled(x, batch)
        if (tap := self.place.tap) is None:
            return [None] * len(rows)
        cuts = _kept_as(more[0], tap)
        if self.cut is not None:
            self.cut[rows] = cuts
        return cuts

    def _run_parts(self, waiting: Mapping[int, Batch]) -> Iterable[Any]:
        """Compute the features of examples in parts, and keep their activations at the cut."""
        input = self.place.input
        means = {row: _Mean(input, example) for row, example in waiting.items()}
        rows, engine = list(waiting), self.place.engine
        for places, batch in part_batches(input, list(waiting.values()), engine.batch):
            own = [(rows[i], part) for i, part in places]
            x, *crossing = engine(batch)
            for (row, part), features in zip(own, x, strict=True):
                means[row].add(part, features)
            if crossing:
                self._keep(own, means, crossing)
        for row, mean in means.items():
            self.x[row] = mean.features
        return [None] * len(means)

    def _keep(
        self,
        places: Sequence[tuple[int, int]],
        means: Mapping[int, "_Mean"],
        crossing: Sequence[NDArray[np.float32]],
    ) -> None:
        """Keep the activations of the parts of a batch; crossing: with their mask if padded."""
        tap, store = self.place.tap, self.place.cuts
        assert tap is not None
        assert isinstance(store, PartStore)
        hidden, *mask = crossing
        for i, (row, part) in enumerate(places):
            values = hidden[i][mask[0][i] > 0] if mask else hidden[i]
            weights = means[row].weights
            kept = _kept_as(values, tap)
            store.keep(self.names[row], part, len(weights), float(weights[part]), kept)

    def _settle(self, rows: list[int]) -> None:
        """Prefer features that are already stored, which a graph without the cut computed."""
        features = self.place.features
        if features is not None:
            old = [row for row in rows if self.names[row] in features]
            if old:
                self.x[old] = features.rows([self.names[row] for row in old], "x")

    def save(self) -> None:
        """Write computed, unstored results: features first, then the files that refer to them."""
        unsaved, self.unsaved = self.unsaved, {}
        files, self.files = self.files, {}
        place = self.place
        if place.features is None or place.examples is None:
            return
        new = [row for row in unsaved if self.names[row] not in place.features]
        place.features.append([self.names[row] for row in new], {"x": self.x[new]})
        if isinstance(place.cuts, PartStore):
            place.cuts.save()
        elif place.cuts is not None and unsaved:
            cuts = {"cut": np.stack(list(unsaved.values()))}
            place.cuts.append([self.names[row] for row in unsaved], cuts)
        names = np.frombuffer(b"".join(files.values()), np.uint8).reshape(len(files), DIGEST_BYTES)
        place.examples.append(list(files), {"square": names})

    def tables(self) -> tuple[FeatureTable, ...]:
        """Return a table per view, from computed rows, stored rows and identical examples."""
        good = [row for row in range(self.rows) if row in self.names]
        stored = [row for row in good if self.names[row] not in self.computed]
        for start in range(0, len(stored) if self.place.features else 0, RECALLED):
            some = stored[start : start + RECALLED]
            assert self.place.features is not None  # for mypy
            self.x[some] = self.place.features.rows([self.names[r] for r in some], "x")
        for row in good:
            twin = self.computed.get(self.names[row], row)
            if twin != row:
                self.x[row] = self.x[twin]
                if self.cut is not None:
                    self.cut[row] = self.cut[twin]
        first, *others = (self._table(view) for view in range(self.views))
        counted = replace(first, forwards=self.forwards, hits=len(stored))
        seconds = time.perf_counter() - self.began
        return replace(counted, seconds=seconds, damaged=self.place.damaged), *others

    def _table(self, view: int) -> FeatureTable:
        good = [i for i in range(len(self.dataset)) if i * self.views + view in self.names]
        own = [i * self.views + view for i in good]
        data = self.dataset.take(good)
        left_out = tuple(
            LeftOut(self.dataset.ids[row // self.views], why)
            for row, why in sorted(self.errors.items())
            if row % self.views == view
        )
        x = self.x if len(own) == self.rows else rows_of_array(self.x, own)
        cut: Activations | None = None if self.cut is None else self.cut[own]
        if isinstance(self.place.cuts, PartStore):
            cut = self.place.cuts.of([self.names[row] for row in own])
        elif self.place.cuts is not None:
            cut = self.place.cuts.reader([self.names[row] for row in own], "cut")
        table = FeatureTable(data.ids, x, data.y, data.target, self.place.made_by, left_out)
        return replace(
            table,
            cut=cut,
            groups=data.groups,
            engine=self.place.chosen.choice,
            supervision=data.supervision,
        )

    def _tell(self, rows: int) -> None:
        """Report the expected time after the second batch; the first one includes warm-up."""
        now = time.perf_counter()
        if self.forwards and not self.reported:
            self.reported = True
            seconds = (now - self.last) / rows * self.rows
            self.listener.expect(self.stage, self.rows, seconds)
        self.last = now


class _Mean:
    """The mean of the features of an example's parts, as they are computed; see `inputs.pooled`."""

    def __init__(self, input: Input[Any], example: Batch) -> None:
        self.weights = input.part_weights(example)
        self.shares = self.weights / self.weights.sum()
        self.features: NDArray[np.floating[Any]] = np.zeros(1)

    def add(self, part: int, features: NDArray[np.float32]) -> None:
        alone = len(self.weights) == 1
        self.features = features if alone else self.features + self.shares[part] * features


def _kept_as(values: NDArray[np.float32], tap: Tap) -> NDArray[np.floating[Any]]:
    """Return activations at the cut in the stored precision; raises Mismatch on overflow."""
    with np.errstate(over="ignore"):
        kept = values.astype(tap.precision)
    if tap.precision == "float16" and np.isinf(kept).any() and np.isfinite(values).all():
        raise Mismatch(
            f"Half precision holds numbers up to 65,504; at the cut {tap.name} there are larger "
            f"ones. Add --cut-precision float32."
        )
    return kept
