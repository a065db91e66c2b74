"""What a command needs of its process: three streams that are there, and signals that end it well.

Little is imported here, so that it is in force while the rest loads.
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
    """Ready the process before anything else is loaded: nothing is done yet that could be lost."""
    open_missing()
    answer_with(_leave)


def open_missing() -> None:
    """Open standard streams that whoever started the process had closed, onto nothing.

    Or else the next file that is opened would get the number of a closed one, and what is printed
    would go into it.
    """
    for number, (name, mode) in enumerate(STREAMS):
        with suppress(OSError):
            _hold(number)
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, stream)


def _hold(number: int) -> None:
    """Open a descriptor onto nothing if it is closed; the lower ones are open already."""
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


@contextmanager
def lasting_streams() -> Iterator[None]:
    """stdout and stderr whose reader may go: what nobody reads is dropped, and work goes on.

    What can't be written to stdout for another reason, such as a full disk, raises OSError once. Of
    stderr nothing does: messages are not what a command is run for. Names of files need not be
    UTF-8, nor a terminal able to show them.
    """
    open_missing()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _lasting(stream: Any, number: int) -> Any:
    """The stream as one that lasts, if it is the process's own; one put in its place stays."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with suppress(OSError, ValueError):  # ValueError: it is closed, or in memory
        if stream.fileno() == number:
            stream.flush()
            raw = _Lasting(number)
            # unbuffered only under `python -u`; io has no public name for what a text stream reads
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
    """Descriptor 1 or 2, written in full or turned to nothing."""

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
            except BlockingIOError:  # whoever shares it has set it so
                select.select([], [self._number], [])
            except OSError as error:
                turn_to_nothing(self._number)
                if self._number == 2 or isinstance(error, BrokenPipeError):
                    break
                raise OSError(error.errno, error.strerror, "the standard output") from error
        return size


def turn_to_nothing(number: int) -> None:
    """Let what is written to a descriptor from now on be dropped."""
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, by KeyboardInterrupt."""
    with answered_with(_stop):
        yield


def next_signal_ends() -> None:
    """What is left to do is to say so: another signal ends the process there and then."""
    for number in STOPPING:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _leave(number: int, frame: object) -> NoReturn:
    os._exit(INTERRUPTED)
