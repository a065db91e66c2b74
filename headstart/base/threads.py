"""Ordered, bounded read-ahead by threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


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
