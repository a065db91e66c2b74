"""Extraction on a Ray cluster: a slice of the data is a task, in processes that stay open.

Ray is given the names of examples and returns counts. Examples are read where they are computed,
features and the network go through the store: so every node must see both at the same paths. A
slice whose process or node ends is given to another one, which finds in the store what was written
before. Ray's own statistics and its dashboard are off.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.kept_graph import keep_graph, kept_graph
from headstart.base.atomic import write_bytes
from headstart.base.context import RunContext
from headstart.base.engine_choice import EngineChoices
from headstart.base.errors import HeadstartError, MissingPackage, PlaceError, SpecError
from headstart.base.listener import Listener
from headstart.base.location import Location
from headstart.base.runtime import Runtime, installed
from headstart.base.store import Store
from headstart.data.dataset import Dataset
from headstart.features.engine_table import FrozenPart
from headstart.features.extract import choose_engine
from headstart.features.slices import DataSlice, Extracted, SliceWorker, slices_of

TRIES = 3  # processes or nodes that one slice may lose
AHEAD = 2  # slices per process that are handed out
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class RayWork:
    """What each task is given beside its slice. graph: of the network, in the store. engines: those
    chosen by the driver, so that all processes use the same."""

    graph: Path
    store: Store
    runtime: Runtime
    engines: EngineChoices

    def worker(self) -> SliceWorker:
        """Return what computes in this process; the network stays open from slice to slice."""
        key = (self.graph, self.store, self.runtime)
        if key not in _WORKERS:
            context = RunContext(self.store, self.runtime, engines=self.engines)
            _WORKERS[key] = SliceWorker(kept_graph(self.graph), context)
        return _WORKERS[key]


_WORKERS: dict[tuple[Path, Store, Runtime], SliceWorker] = {}  # of this process


def extract_on_ray(
    backbone: Backbone | Frozen, data: Dataset, context: RunContext, address: str = ""
) -> Extracted:
    """Compute the features of data into the store on a Ray cluster, and return counts.

    address: of a running cluster, as in `ray.init`; "" for one on this machine that ends with the
    work. A process takes as many cores as `context.runtime` has threads.

    Raises MissingPackage without Ray, PlaceError without a store or data that all nodes see, or if
    a slice loses TRIES processes, and what `extract` raises.
    """
    if not installed("ray"):
        raise MissingPackage("ray", purpose="Extraction on several machines", extra="ray")
    if context.store is None:
        raise SpecError("On Ray features go through a store that all nodes see: name one.")
    if context.runtime.engine == "torch":
        raise SpecError("On Ray a network runs as a graph: leave the engine torch out.")
    choose_engine(backbone, data, context)
    frozen = FrozenPart(backbone, context.runtime.resolved()).graph
    store = context.store.folder.resolve()
    own = replace(context.store, root=store)
    work = RayWork(keep_graph(frozen, own), own, context.runtime, context.engines)
    began = perf_counter()
    with connected(address) as ray:
        check_nodes(ray, store, data)
        found = Schedule(ray, work, data, context.listener).run()
    return replace(found, seconds=perf_counter() - began)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; it is left as it was found. Raises PlaceError."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise PlaceError(
            f"No Ray cluster answers at {address or 'this machine'}: {error}"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_nodes(ray: Any, store: Path, data: Dataset) -> None:
    """Raise PlaceError unless every node sees the store and the data, with this Headstart."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = store / f".seen-{uuid4().hex}"
    first = next((path for path in map(_file, data.sources[:1]) if path), None)
    write_bytes(mark, b"")
    try:
        probe = ray.remote(num_cpus=0, max_retries=1)(_lacks)
        answers = dict[str, Any]()
        for node in ray.nodes():
            if node["Alive"]:
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ask = probe.options(scheduling_strategy=here)
                answers[node["NodeManagerAddress"]] = ask.remote(mark, first, version("headstart"))
        for name, answer in answers.items():
            if lacks := ray.get(answer):
                raise PlaceError(f"Every node of a cluster must have {lacks}; {name} has not.")
    finally:
        with suppress(OSError):
            mark.unlink()


def _file(source: Any) -> Path | None:
    """Return the file of this machine that an example lies in, if any."""
    if isinstance(source, Location) and not source.is_remote:
        return Path(source.source)
    return source.absolute() if isinstance(source, Path) else None


def _absolute(data: Dataset) -> Dataset:
    """Return data whose paths hold wherever a node works."""
    sources = (source.absolute() if isinstance(source, Path) else source for source in data.sources)
    return replace(data, sources=tuple(sources))


def _lacks(mark: Path, example: Path | None, release: str) -> str:
    """Return what this node does not have, "" if it has all."""
    if release != version("headstart"):
        return f"Headstart {release}"
    if not mark.exists():
        return f"the store {mark.parent}, at this path"
    # a picture of CIFAR-10 or of a ZIP archive is named by a path below the file that holds it
    if example is not None and not any(p.is_file() for p in (example, *example.parents)):
        return f"the data, such as {example}, at this path"
    return ""


def compute(work: RayWork, piece: DataSlice) -> Extracted:
    """Compute one slice; a task of Ray."""
    return work.worker()(piece)


class Schedule:
    """Hands out the slices of data, a few ahead of the processes; a lost one again."""

    def __init__(self, ray: Any, work: RayWork, data: Dataset, listener: Listener) -> None:
        self.ray, self.work, self.listener = ray, work, listener
        self.rows, self.pieces = len(data), slices_of(data)
        self.threads = work.runtime.threads
        self.remote = ray.remote(num_cpus=self.threads, max_retries=0)(compute)
        self.running = dict[Any, tuple[DataSlice, int]]()  # slice and its tries, by task
        self.found, self.again = dict[int, Extracted](), list[str]()

    def run(self) -> Extracted:
        """Return the counts of all slices; raises PlaceError, and what a slice raises."""
        cores = int(self.ray.cluster_resources().get("CPU", 0))
        if cores < self.threads:
            raise PlaceError(
                f"A process takes {self.threads} cores (--threads), and the cluster has {cores}."
            )
        self._fill(AHEAD * (cores // self.threads))
        while self.running:
            (ended,), _ = self.ray.wait([*self.running], num_returns=1)
            self._take(ended, *self.running.pop(ended))
            self._fill(1)
        total = sum((self.found[number] for number in sorted(self.found)), Extracted())
        return replace(total, again=tuple(self.again))

    def _fill(self, count: int) -> None:
        for piece in islice(self.pieces, count):
            self._start(piece, 1)

    def _start(self, piece: DataSlice, tries: int) -> None:
        sent = replace(piece, data=_absolute(piece.data))
        self.running[self.remote.remote(self.work, sent)] = piece, tries

    def _take(self, ended: Any, piece: DataSlice, tries: int) -> None:
        """Keep the counts of a task that has ended, or start its slice again if it was lost."""
        lost = self.ray.exceptions
        try:
            self.found[piece.number] = self.ray.get(ended)
        except lost.RayTaskError as error:  # the task itself raised
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, HeadstartError) else error) from None
        except lost.RayError as error:
            if tries == TRIES:
                raise PlaceError(
                    f"{TRIES} processes ended over {piece}: {type(error).__name__}. What was "
                    f"computed is kept; look at memory and logs of the nodes, and run it again."
                ) from error
            self.again.append(str(piece))
            self.listener.stage("again", f"{piece}: its process or node ended; computed again")
            self._start(piece, tries + 1)
        else:
            done = sum(one.rows for one in self.found.values())
            self.listener.progress("features", done, self.rows)
