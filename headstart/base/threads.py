"""Ordered, bounded read-ahead by threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from types import TracebackType
from typing import Generic, Self, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
Progress = Callable[[int, int], None]  # hears how many items, of all, are done


def ordered_map(
    function: Callable[[In], Out], items: Iterable[In], *, threads: int, ahead: int
) -> Generator[Out]:
    """Yield `map(function, items)` in order, computed by threads at most `ahead` items ahead.

    An exception or closing the iterator cancels the items that have not begun. Image decoders
    release the interpreter's lock, so threads suffice.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="headstart-decode")
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Ahead(Generic[Out]):
    """Work that a thread does while the caller does something else, until `result` is asked for.

    work: takes the function to report its progress to. Reports are heard, and errors raised, by the
    thread that calls `result`. Leaving the block stops the work at its next report.

    >>> with Ahead(lambda progress: sum(range(5))) as began:
    ...     began.result()
    10
    """

    def __init__(self, work: Callable[[Progress], Out]) -> None:
        self._reports: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._stopped = Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="headstart-ahead")
        self._future = self._pool.submit(work, self._report)
        self._future.add_done_callback(lambda done: self._reports.put(None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def result(self, progress: Progress = lambda done, total: None) -> Out:
        """Wait for the work and return its result; progress: hears all its reports, in order."""
        while (report := self._reports.get()) is not None:
            progress(*report)
        return self._future.result()

    def _report(self, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise CancelledError
        self._reports.put((done, total))
