"""The signals that ask a process to end. Nothing but the standard library, and little of that."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# SIGHUP: the terminal is gone. Windows has none.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
Handler = Callable[[int, object], Any]


def answer_with(handler: Handler) -> dict[signal.Signals, Any]:
    """Let `handler` answer these signals; return those that it now answers, each with the handler
    that it had before.

    One that whoever started the process has it ignore (nohup, a job in the background) stays
    ignored. Elsewhere than in the main thread, which alone gets signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    before: dict[signal.Signals, Any] = {n: signal.getsignal(n) for n in STOPPING}
    heard = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, handler)
    return heard


@contextmanager
def answered_with(handler: Handler) -> Iterator[bool]:
    """Let `handler` answer these signals in the block; gives whether it does."""
    before = answer_with(handler)
    try:
        yield bool(before)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
