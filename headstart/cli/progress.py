"""How a command reports its work, on stderr: a line for each message, and bars of progress."""

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from headstart.base.display import display
from headstart.base.listener import Listener

WIDE = 80  # columns of a line on a terminal, at most
KEPT = ("error", "warning", "left out", "stopped")  # what --quiet still prints
_quiet = False

_BARS: list[Any] = []  # progress bars begun, to be stopped whatever happens


def stop_bars() -> None:
    """Give the terminal its cursor back."""
    for bar in _BARS:
        bar.stop()


class Terminal(Listener):
    """Prints messages and epochs as lines, and shows progress where someone sees it move."""

    def __init__(self) -> None:
        self._moves = dict[str, Callable[[int, int], None]]()

    def stage(self, name: str, message: str) -> None:
        say(name, message)

    def expect(self, stage: str, rows: int, seconds: float) -> None:
        say(stage, f"about {duration(seconds)} for {rows:,} images ({pace(rows / seconds)})")

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage not in self._moves:
            self._moves[stage] = _bar(stage)
        self._moves[stage](done, total)
        if done == total:
            del self._moves[stage]

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> None:
        from headstart.models.wording import epoch_message  # loads NumPy, which help needs not

        say(phase, epoch_message(number, figures))


def be_quiet(quiet: bool) -> None:
    """Print only warnings, errors and what was left out, from now on; or everything again."""
    global _quiet
    _quiet = quiet


def say(stage: str, text: str) -> None:
    """Print a message as one printable line, which a terminal gets broken between words; one that
    can't be written is dropped, and the work goes on."""
    if _quiet and stage not in KEPT:
        return
    line = f"{display(stage):10}{display(text)}"
    with suppress(OSError):
        if sys.stderr.isatty():
            width = min(WIDE, shutil.get_terminal_size().columns)
            line = textwrap.fill(line, width, subsequent_indent=" " * 10, break_long_words=False)
        print(line, file=sys.stderr, flush=True)


@contextmanager
def kept_if_stopped(what: str) -> Iterator[None]:
    """Let Ctrl-C in this block say what is kept of the work."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.args = error.args or (what,)
        raise


GOES_ON = "what was finished is kept; the same command goes on from there"
FEATURES_KEPT = "the features computed so far are kept; the same command goes on from there"


def _bar(stage: str) -> Callable[[int, int], None]:
    """A progress bar with rate and time left, where someone is there to see it move."""
    if _quiet or not sys.stderr.isatty():
        return lambda done, total: None
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:  # only `train` brings it
        return lambda done, total: None
    columns = (
        TextColumn(f"{stage:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    _BARS.append(bar)
    task = bar.add_task(stage, total=None, rate="")

    def move(done: int, total: int) -> None:
        if done < total:
            bar.start()  # at whatever it begins; does nothing to one that moves
        speed = bar.tasks[0].speed
        bar.update(task, completed=done, total=total, rate=pace(speed) if speed else "")
        if done == total:
            bar.stop()

    return move


def pace(rate: float) -> str:
    """A rate per second as people say it.

    >>> pace(1234.5), pace(2.04), pace(0.1)
    ('1,234/s', '2.0/s', '10 s each')
    """
    if rate < 1:
        return f"{1 / rate:,.0f} s each"
    return f"{rate:,.1f}/s" if rate < 10 else f"{rate:,.0f}/s"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
