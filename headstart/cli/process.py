"""Set up the process: standard streams that always work, and signals that stop a command cleanly.

This module imports little, so that signals are handled while the other modules load.
"""

import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from headstart.base.signals import STOPPING, answer_with, answered_with

INTERRUPTED = 130
STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def begin() -> None:
    """Set up streams and signals before other imports; until then, a signal exits at once."""
    open_missing()
    answer_with(_leave)


def open_missing() -> None:
    """Open closed standard streams onto os.devnull.

    Otherwise the next opened file would get the descriptor of a closed stream, and printed text
    would go into that file.
    """
    for number, (name, mode) in enumerate(STREAMS):
        with suppress(OSError):
            _hold(number)
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, stream)


def _hold(number: int) -> None:
    """Open a closed descriptor onto os.devnull; all lower descriptors must be open."""
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Replace stdout and stderr by streams that drop their output once the reader is gone.

    Another error of stdout, such as a full disk, raises OSError once; errors of stderr never raise.
    Characters that the encoding lacks are escaped.
    """
    open_missing()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _lasting(stream: Any, number: int) -> Any:
    """Return a `_Lasting` version of the process's own stream; keep a stream that was replaced."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with suppress(OSError, ValueError):  # ValueError: a closed or in-memory stream
        if stream.fileno() == number:
            stream.flush()
            raw = _Lasting(number)
            # unbuffered only under `python -u`; io has no public type for the buffer
            buffer: Any = raw if stream.write_through else io.BufferedWriter(raw)
            return io.TextIOWrapper(
                buffer,
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
    stream.reconfigure(errors="backslashreplace")
    return stream


class _Lasting(io.RawIOBase):
    """Descriptor 1 or 2, written in full, or redirected to os.devnull after an error."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:  # another process made the shared stream non-blocking
                select.select([], [self._number], [])
            except OSError as error:
                turn_to_nothing(self._number)
                if self._number == 2 or isinstance(error, BrokenPipeError):
                    break
                raise OSError(error.errno, error.strerror, "the standard output") from error
        return size


def turn_to_nothing(number: int) -> None:
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on SIGTERM and SIGHUP, as on Ctrl-C."""
    with answered_with(_stop):
        yield


def next_signal_ends() -> None:
    """Let another signal end the process at once: only the last message is still to print."""
    for number in STOPPING:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _leave(number: int, frame: object) -> NoReturn:
    os._exit(INTERRUPTED)
