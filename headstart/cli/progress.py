"""Report progress on stderr: one line per message, and progress bars."""

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from headstart.base.display import display
from headstart.base.listener import Listener
from headstart.cli.language import named, translated

WIDE = 80  # columns of a line on a terminal, at most
STEPS = 100  # of a progress line without rich
ERASED = "\r\x1b[K"  # go back to the start of the line and erase it
BLANKED = "\r" + " " * (WIDE - 1) + "\r"  # the same where consoles may print the code
CLEARED = BLANKED if sys.platform == "win32" else ERASED
KEPT = ("error", "warning", "left out", "stopped")  # messages printed despite --quiet
_quiet = False
_line_open = False  # whether a progress line without rich is being written

_BARS: list[Any] = []  # all progress bars, to be stopped at the end


def stop_bars() -> None:
    """Stop all progress bars, which restores the cursor of the terminal."""
    for bar in _BARS:
        bar.stop()


class Terminal(Listener):
    """Prints messages and epochs as lines, and progress bars if stderr is a terminal."""

    def __init__(self) -> None:
        self._moves = dict[str, Callable[[int, int], None]]()

    def stage(self, name: str, message: str) -> None:
        say(name, message)

    def expect(self, stage: str, rows: int, seconds: float) -> None:
        say(stage, f"about {duration(seconds)} for {rows:,} examples ({pace(rows / seconds)})")

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage not in self._moves:
            self._moves[stage] = _bar(stage)
        self._moves[stage](done, total)
        if done == total:
            del self._moves[stage]

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> None:
        from headstart.models.wording import epoch_message  # loads NumPy, --help does not need it

        say(phase, epoch_message(phase, number, figures))


def be_quiet(quiet: bool) -> None:
    """Print only the messages in KEPT from now on, or all of them again."""
    global _quiet
    _quiet = quiet


def say(stage: str, text: str) -> None:
    """Print a message as one line, wrapped on a terminal; errors of writing are ignored."""
    if _quiet and stage not in KEPT:
        return
    line = f"{display(named(stage)):9} {display(translated(text))}"
    with suppress(OSError):
        if sys.stderr.isatty():
            width = min(WIDE, shutil.get_terminal_size().columns)
            line = textwrap.fill(line, width, subsequent_indent=" " * 10, break_long_words=False)
        if _line_open:
            line = CLEARED + line
        print(line, file=sys.stderr, flush=True)


@contextmanager
def kept_if_stopped(what: str) -> Iterator[None]:
    """Add the message `what` (the work that is kept) to a KeyboardInterrupt in this block."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.args = error.args or (what,)
        raise


GOES_ON = "what was finished is kept; the same command goes on from there"
FEATURES_KEPT = "the features computed so far are kept; the same command goes on from there"


def _bar(stage: str) -> Callable[[int, int], None]:
    """Return the update function of a progress bar; it does nothing if quiet or not a terminal."""
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
    except ImportError:  # rich comes with the extra `train`
        return _plain_bar(stage)
    columns = (
        TextColumn(f"{named(stage):10}"),
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
            bar.start()  # does nothing if the bar is running
        speed = bar.tasks[0].speed
        bar.update(task, completed=done, total=total, rate=pace(speed) if speed else "")
        if done == total:
            bar.stop()

    return move


def _plain_bar(stage: str) -> Callable[[int, int], None]:
    """Return the update function of a line that is written over, at most STEPS times."""
    written = -1

    def move(done: int, total: int) -> None:
        global _line_open
        nonlocal written
        step = STEPS * done // max(1, total)
        with suppress(OSError):
            if done == total:
                print(CLEARED, end="", file=sys.stderr, flush=True)
            elif step > written:
                line = f"{CLEARED}{named(stage):10}{done:,}/{total:,}"
                print(line, end="", file=sys.stderr, flush=True)
        written, _line_open = max(written, step), done < total

    return move


def pace(rate: float) -> str:
    """Format a rate per second.

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
