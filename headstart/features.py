"""Run the frozen part once for every example, and keep what came out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.decoding import decode, read_file
from headstart.data.loading import ordered_map
from headstart.engines import Engine, open_engine, precision
from headstart.errors import DataError, Mismatch
from headstart.runtime import Runtime
from headstart.spec import fingerprint
from headstart.store import DIGEST_BYTES, Store, digest

CUT = "features"  # where the backbone is cut: after its pooled features
AHEAD = 48  # pictures decoded before they are wanted: 7 MB at 224 x 224
SHARD = 256  # rows between two writes to the store: what a kill can cost


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Row i of `x` belongs to `ids[i]`; everything downstream goes by id, not by luck.

    forwards: examples the backbone ran on to make it. hits: rows that were in the store. Files
    that could not be decoded have no row; they are in `left_out`.
    """

    ids: tuple[str, ...]
    x: NDArray[np.float32]  # (N, D)
    y: NDArray[np.int64]  # (N,)
    classes: tuple[str, ...]
    made_by: str  # fingerprint of weights, preprocessing, cut and precision
    left_out: tuple[LeftOut, ...] = ()
    forwards: int = 0
    hits: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.x) == len(self.y):
            raise Mismatch(
                f"A feature table has one row per id; got {len(self.ids)} ids, "
                f"{len(self.x)} feature rows and {len(self.y)} labels."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, dataset: Dataset) -> "FeatureTable":
        """The rows of `dataset`, in its order, with its labels; raises Mismatch if one lacks."""
        place = {id: i for i, id in enumerate(self.ids)}
        if missing := [id for id in dataset.ids if id not in place]:
            raise Mismatch(
                f"The features of {missing[0]!r} and {len(missing) - 1} more are not here."
            )
        x = self.x[[place[id] for id in dataset.ids]].reshape(len(dataset), self.x.shape[1])
        return FeatureTable(dataset.ids, x, dataset.y, dataset.classes, self.made_by)


@dataclass(frozen=True)
class Watch:
    """Who wants to hear how the work goes.

    expect(rows, seconds): once, after the first batch: the time that all rows will take at most.
    progress(done, total): after every row.
    """

    expect: Callable[[int, float], None] = lambda rows, seconds: None
    progress: Callable[[int, int], None] = lambda done, total: None


def extract(
    backbone: Backbone | Frozen,
    dataset: Dataset,
    *,
    store: Store | None = None,
    runtime: Runtime | None = None,
    watch: Watch | None = None,
) -> FeatureTable:
    """The features of every row, in order; with a store, each is computed only once, ever.

    Decoding threads work ahead of the forward pass, so no more than a few batches of pictures are
    in memory. Rows are stored as they come: after an interruption the same call goes on from there.
    Raises StoreError when the store can't be written, Mismatch when an engine can't be trusted.
    """
    runtime = (runtime or Runtime()).resolved()
    work = _Work(_Place(backbone, store, runtime), len(dataset), watch or Watch())
    fetched = ordered_map(
        work.place.fetch, dataset.sources, threads=runtime.decode_threads, ahead=AHEAD
    )
    try:
        for row, item in enumerate(fetched):
            work.take(row, item)
        work.run()
    finally:
        fetched.close()
        work.save()  # what was computed is kept, whatever stopped us
    return work.table(dataset)


@dataclass(frozen=True, eq=False)
class _Fetched:
    """What a decoding thread hands over: the square, unless its features are stored already."""

    file: bytes = b""  # digest of the file
    name: bytes = b""  # digest of the square that the network eats
    square: NDArray[np.uint8] | None = None
    error: str = ""


class _Place:
    """Where features are looked up and computed: the store's tables and the engine."""

    def __init__(self, backbone: Backbone | Frozen, store: Store | None, runtime: Runtime) -> None:
        self.backbone, self.runtime = backbone, runtime
        self.preprocess = backbone.card.preprocess
        squares, weights = self.preprocess.fingerprint(), backbone.fingerprint()
        self.made_by = fingerprint("features", weights, squares, CUT, precision(backbone, runtime))
        self.features = store.table(f"features-{self.made_by}") if store else None
        self.squares = store.table(f"squares-{squares}") if store else None

    @cached_property
    def engine(self) -> Engine:
        """Opened only when something has to be computed: exporting a graph takes seconds."""
        return open_engine(self.backbone, self.runtime)

    def fetch(self, path: Path) -> _Fetched:
        """Read a file; decode it only if the features of what it holds are not stored."""
        try:
            data = read_file(path)
            file = digest(data)
            if name := self._stored(file):
                return _Fetched(file, name)
            square = self.preprocess(decode(data, short_side=self.preprocess.short_side))
        except OSError as error:
            return _Fetched(error=error.strerror or str(error))
        except DataError as error:
            return _Fetched(error=str(error))
        return _Fetched(file, digest(square.tobytes()), square)

    def _stored(self, file: bytes) -> bytes:
        """The digest of a file's square, if its features need no computing; else nothing."""
        if self.squares is None or self.features is None or file not in self.squares:
            return b""
        name = self.squares.rows([file], "square")[0].tobytes()
        return name if name in self.features else b""


class _Work:
    """One extraction under way: which rows are done, which wait for the engine or the store."""

    def __init__(self, place: _Place, rows: int, watch: Watch) -> None:
        self.place, self.rows, self.watch = place, rows, watch
        self.began = self.last = time.perf_counter()
        self.x = np.empty((rows, place.backbone.card.dim), np.float32)
        self.names: dict[int, bytes] = {}  # row -> digest of its square
        self.errors: dict[int, str] = {}
        self.computed: dict[bytes, int] = {}  # digest of a square -> the row that it is run for
        self.waiting: dict[int, NDArray[np.uint8]] = {}  # row -> square
        self.unsaved: list[int] = []
        self.files: dict[bytes, bytes] = {}  # file -> square, as the store doesn't know yet
        self.forwards = 0
        self.told = False

    def take(self, row: int, item: _Fetched) -> None:
        """Note one fetched file; run the engine when a batch is full, save when a shard is."""
        if item.error:
            self.errors[row] = item.error
        else:
            self.names[row] = item.name
        if item.square is not None:
            self.files[item.file] = item.name
            if not self._known(item.name):
                self.computed[item.name] = row
                self.waiting[row] = item.square
        if self.waiting and len(self.waiting) == self.place.engine.batch:
            self.run()
        self.watch.progress(row + 1, self.rows)

    def run(self) -> None:
        """One forward pass over what waits."""
        if not self.waiting:
            return
        rows, squares = list(self.waiting), np.stack(list(self.waiting.values()))
        self.waiting.clear()
        self.x[rows] = self.place.engine(squares)
        self._tell(len(rows))
        self.forwards += len(rows)
        self.unsaved += rows
        if len(self.unsaved) >= SHARD:
            self.save()

    def save(self) -> None:
        """Write what is computed and not yet stored: features first, then the files they are of."""
        rows, self.unsaved = self.unsaved, []
        files, self.files = self.files, {}
        if self.place.features is None or self.place.squares is None:
            return
        self.place.features.append([self.names[row] for row in rows], {"x": self.x[rows]})
        names = np.frombuffer(b"".join(files.values()), np.uint8).reshape(len(files), DIGEST_BYTES)
        self.place.squares.append(list(files), {"square": names})

    def table(self, dataset: Dataset) -> FeatureTable:
        """Everything together: rows computed now, rows from the store, twins of either."""
        good = [row for row in range(self.rows) if row in self.names]
        stored = [row for row in good if self.names[row] not in self.computed]
        if stored and self.place.features is not None:
            self.x[stored] = self.place.features.rows([self.names[r] for r in stored], "x")
        for row in good:
            twin = self.computed.get(self.names[row], row)
            if twin != row:
                self.x[row] = self.x[twin]
        rows = dataset.take(good)
        return FeatureTable(
            rows.ids,
            self.x if len(good) == self.rows else self.x[good],
            rows.y,
            rows.classes,
            self.place.made_by,
            tuple(LeftOut(dataset.ids[row], why) for row, why in sorted(self.errors.items())),
            forwards=self.forwards,
            hits=len(stored),
            seconds=time.perf_counter() - self.began,
        )

    def _tell(self, rows: int) -> None:
        """Announce the time to expect, by the second batch: the first one warms up."""
        now = time.perf_counter()
        if self.forwards and not self.told:
            self.told = True
            self.watch.expect(self.rows, (now - self.last) / rows * self.rows)
        self.last = now

    def _known(self, name: bytes) -> bool:
        features = self.place.features
        return name in self.computed or (features is not None and name in features)
