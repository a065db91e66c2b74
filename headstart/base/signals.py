"""Handle the signals that end a process; imports little, and the standard library only."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# SIGHUP: the terminal was closed; Windows has no such signal, but SIGBREAK for Ctrl-Break.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
STOPPING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
Handler = Callable[[int, object], Any]


def answer_with(handler: Handler) -> dict[signal.Signals, Any]:
    """Install `handler` for the STOPPING signals; return the signals changed, with old handlers.

    Signals that are ignored (nohup, background jobs) stay ignored. Outside the main thread, which
    alone gets signals, nothing changes.
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
    """Install `handler` for the STOPPING signals in the block; yield whether any was changed."""
    before = answer_with(handler)
    try:
        yield bool(before)
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def interrupted_with(early: Callable[[], bool]) -> Iterator[None]:
    """Call `early` on Ctrl-C in the block; where it returns False, Ctrl-C does what it did before.

    An ignored Ctrl-C stays ignored; outside the main thread nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def answer(number: int, frame: Any) -> None:
        if not early():
            before(number, frame)

    signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
