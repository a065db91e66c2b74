"""The models of a server by name, and how a new version replaces an old one."""

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headstart.base.errors import HeadstartError, sentence_of
from headstart.base.listener import Listener
from headstart.base.runtime import cores
from headstart.serving.batching import Batcher, Room, Workers
from headstart.serving.measures import Measures
from headstart.serving.refusals import no_such_model, not_ready
from headstart.serving.scoring import Scorer, load_scorer, version_of
from headstart.serving.settings import ServeSpec


@dataclass(frozen=True)
class Place:
    """Where a model lies: its name, and the folder of a run or a bundle."""

    name: str
    folder: Path

    @property
    def bundle(self) -> Path:
        """The bundle now: the folder, or what a link points to, may have been replaced."""
        inside = self.folder / "model"
        return inside if inside.is_dir() else self.folder


class ServedModels:
    """The models of one server. A request uses the version that it found, until it is answered."""

    def __init__(
        self,
        places: tuple[Place, ...],
        spec: ServeSpec,
        workers: Workers,
        measures: Measures,
        listener: Listener,
    ) -> None:
        self.places, self._spec, self._workers = places, spec, workers
        self._measures, self._listener = measures, listener
        self._batchers: dict[str, Batcher] = {}
        self._leaving = set[asyncio.Task[None]]()
        self._loading = asyncio.Lock()

    @property
    def ready(self) -> bool:
        return len(self._batchers) == len(self.places)

    def get(self, name: str = "") -> Batcher:
        """Return the batcher of a model, of the first one for ""; raises Refusal."""
        name = name or self.places[0].name
        if all(place.name != name for place in self.places):
            raise no_such_model()
        if name not in self._batchers:
            raise not_ready()
        return self._batchers[name]

    async def load(self) -> None:
        """Load every model, one after the other; raises BundleError."""
        for place in self.places:
            self._put(place, await self._loaded(place))
            self._listener.stage("model", f"{place.name}: {self._described(place)}")

    async def reload(self) -> None:
        """Replace the models whose folders hold another version by now.

        A version that can't be loaded is reported, and the old one goes on answering.
        """
        async with self._loading:
            for place in self.places:
                await self._reload(place)

    async def close(self) -> None:
        """Wait until every accepted example is answered."""
        leaving = [self._leave(batcher) for batcher in self._batchers.values()]
        await asyncio.gather(*leaving, *self._leaving)

    async def _reload(self, place: Place) -> None:
        old = self._batchers.get(place.name)
        if old is not None and old.scorer.version == version_of(place.bundle):
            self._listener.stage("reload", f"{place.name}: the same version")
            return
        try:
            self._put(place, await self._loaded(place))
        except (HeadstartError, OSError, MemoryError) as error:
            self._measures.loads.labels(place.name, "refused").inc()
            self._listener.stage("warning", f"{place.name} stays as it is: {sentence_of(error)}")
            return
        self._listener.stage("reload", f"{place.name}: {self._described(place)}")

    async def _loaded(self, place: Place) -> Scorer:
        threads = self._spec.threads or cores()
        loop, load = asyncio.get_running_loop(), partial(load_scorer, digests=self._spec.sha256)
        return await loop.run_in_executor(self._workers.loading, load, place.bundle, threads)

    def _put(self, place: Place, scorer: Scorer) -> None:
        """Let a version answer from now on; the one before finishes what it has."""
        room = Room(self._spec.batch, self._spec.queue)
        old = self._batchers.get(place.name)
        self._batchers[place.name] = Batcher(
            place.name, scorer, room, self._workers, self._measures
        )
        if old is not None:
            self._measures.model.remove(place.name, old.scorer.version)
            self._leave(old)
        self._measures.model.labels(place.name, scorer.version).set(1)
        self._measures.limit.labels(place.name).set(scorer.model.limits.far)
        self._measures.loads.labels(place.name, "loaded").inc()

    def _leave(self, batcher: Batcher) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(batcher.drained())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    def _described(self, place: Place) -> str:
        scorer = self._batchers[place.name].scorer
        return f"version {scorer.version} of {scorer.model!r}"
