"""The command that a process carries out, as it was typed."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_typed: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())


@contextmanager
def typed(words: Sequence[str]) -> Iterator[None]:
    """Let `command_line` return these words of the program `headstart` within the block."""
    token = _typed.set(tuple(words))
    try:
        yield
    finally:
        _typed.reset(token)


def command_line() -> str:
    """Return the command as it can be typed again; "" when a function was called from Python.

    >>> with typed(["train", "my photos", "--out", "run"]):
    ...     command_line()
    "headstart train 'my photos' --out run"
    """
    words = _typed.get()
    return shlex.join(["headstart", *words]) if words else ""
