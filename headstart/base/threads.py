"""Threads that read ahead: in order, bounded, and gone when the reader stops."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ordered_map(
    function: Callable[[In], Out], items: Iterable[In], *, threads: int, ahead: int
) -> Generator[Out]:
    """`map(function, items)` with `threads` threads working at most `ahead` items ahead.

    Results come in the order of the items whatever the number of threads, and no more than `ahead`
    of them are held. Image decoders release the interpreter's lock, so threads are enough; an
    exception, or closing the iterator, drops what was not begun.
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
