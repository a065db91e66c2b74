"""Dynamic batching: examples that wait together run together; the queue is bounded.

While the network computes one batch, the next examples gather; nothing waits for a batch to fill.
All state belongs to the event loop, so that there are no locks.
"""

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from headstart.base.errors import DataError
from headstart.serving.measures import Measures
from headstart.serving.refusals import busy
from headstart.serving.scoring import PreparedExample, ScoredExample, Scorer

Outcome = ScoredExample | DataError
Waiting = tuple[PreparedExample, "asyncio.Future[Outcome]"]
KEPT = 0.8  # share of the running mean that a new batch leaves
LESS_URGENT = 10  # added to the niceness of threads that compute; at 10 a tenth of the usual share
SLOWEST = 30.0  # longest Retry-After of a refusal, in seconds


@dataclass(frozen=True)
class Workers:
    """The threads of a server: `network` runs networks, one batch at a time, `loading` loads
    models, `reading` reads and prepares examples. The first two are made with `yield_to_requests`.
    """

    network: Executor
    loading: Executor
    reading: Executor


def yield_to_requests() -> None:
    """Lower the priority of this thread, and of those that it starts, below that of the event loop.

    So requests are taken and refused at once while a network keeps all cores busy. POSIX has one
    priority for a whole process; threads have their own on Linux only, elsewhere nothing is done.
    """
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), own + LESS_URGENT)


@dataclass(frozen=True)
class Room:
    """How much one model accepts. batch: examples that the network is given at once. queue:
    examples that may wait beside them, those that are being read included."""

    batch: int
    queue: int


class Batcher:
    """The queue of one version of a model, called `name`; made inside a running event loop."""

    def __init__(
        self, name: str, scorer: Scorer, room: Room, workers: Workers, measures: Measures
    ) -> None:
        self.name, self.scorer, self.room = name, scorer, room
        self._workers, self._measures = workers, measures
        self._waiting: deque[Waiting] = deque()
        self._held = 0  # places that are taken, from a request's arrival to its answer
        self._pace = 0.05  # seconds per example, a running mean
        self._filled, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def refuse_if_full(self, count: int = 1) -> None:
        """Raise Refusal (503) if there are fewer than `count` places."""
        if self._held + count > self.room.batch + self.room.queue:
            self._measures.refused.labels(self.name).inc()
            raise busy(min(SLOWEST, self._pace * self._held))

    async def outcomes(self, sources: Sequence[bytes]) -> list[Outcome]:
        """Return the answers for examples, given as bytes; raises Refusal if the queue is full."""
        with self._places(len(sources)):
            return await _all([self._read_and_scored(data) for data in sources])

    async def outcomes_of(self, examples: Sequence[PreparedExample]) -> list[Outcome]:
        """Return the answers for prepared examples; raises Refusal if the queue is full."""
        with self._places(len(examples)):
            return await _all([self._scored(example) for example in examples])

    async def drained(self) -> None:
        """Wait until no example is left, then stop."""
        await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        self.refuse_if_full(count)
        self._hold(count)
        try:
            yield
        finally:
            self._hold(-count)

    def _hold(self, change: int) -> None:
        self._held += change
        self._measures.waiting.labels(self.name).set(self._held)
        if self._held:
            self._idle.clear()
        else:
            self._idle.set()

    async def _read_and_scored(self, data: bytes) -> Outcome:
        loop = asyncio.get_running_loop()
        try:
            example = await loop.run_in_executor(self._workers.reading, self.scorer.prepare, data)
        except (ValueError, MemoryError, OSError) as error:  # DataError is a ValueError
            self._measures.unreadable(self.name)
            return error if isinstance(error, DataError) else DataError("can't be read")
        return await self._scored(example)

    async def _scored(self, example: PreparedExample) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((example, future))
        self._filled.set()
        return await future

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            if batch := self._next_batch():
                await self._compute(batch)

    def _next_batch(self) -> list[Waiting]:
        """Take the next examples off the queue, without those whose clients went away."""
        batch: list[Waiting] = []
        while self._waiting and len(batch) < self.room.batch:
            item = self._waiting.popleft()
            if not item[1].done():
                batch.append(item)
        if not self._waiting:
            self._filled.clear()
        return batch

    async def _compute(self, batch: Sequence[Waiting]) -> None:
        loop = asyncio.get_running_loop()
        began, examples = loop.time(), [example for example, _ in batch]
        try:
            found = await loop.run_in_executor(self._workers.network, self.scorer.score, examples)
        except Exception as error:
            _fail([future for _, future in batch], error)
            return
        seconds = (loop.time() - began) / len(batch)
        self._pace = KEPT * self._pace + (1 - KEPT) * seconds
        for (_, future), outcome in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(outcome)
        self._measures.batches.labels(self.name).observe(len(batch))
        self._measures.answered(self.name, [o for o in found if isinstance(o, ScoredExample)])


def _fail(futures: "Sequence[asyncio.Future[Outcome]]", error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


async def _all(work: Sequence[Coroutine[Any, Any, Outcome]]) -> list[Outcome]:
    """Await coroutines together; if one fails or is cancelled, so are the others."""
    if len(work) == 1:
        return [await work[0]]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one) for one in work]
    return [task.result() for task in running]
