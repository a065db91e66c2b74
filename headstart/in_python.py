"""Shared by the functions of the public API: the arguments they take, and the errors they raise.

A message names keywords in place of command-line flags.
"""

import re
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from headstart.base.errors import HeadstartError, SpecError
from headstart.base.listener import Listener
from headstart.base.paths import user_path
from headstart.base.store import Store
from headstart.data.dataset import LeftOut, unexpected
from headstart.runs.run import Run

P = ParamSpec("P")
T = TypeVar("T")
FLAG = re.compile(r"--([a-z][a-z0-9-]*)")
COMMAND = re.compile(r"`headstart ([a-z]+)[^`]*`")
FUNCTIONS = {"backbones": "list_backbones", "recipes": "list_recipes"}  # of other names


def in_python(message: str) -> str:
    """Return a message with keywords for flags, and functions for commands.

    >>> in_python("Allow this with --max-bad 0.1. `headstart backbones` lists them.")
    'Allow this with max_bad=0.1. headstart.list_backbones() lists them.'
    """
    text = re.sub(r"--([a-z][a-z0-9-]*) (-?[0-9.]*[0-9])", _setting, message)
    text = FLAG.sub(lambda flag: flag[1].replace("-", "_"), text)
    return COMMAND.sub(lambda c: f"headstart.{FUNCTIONS.get(c[1], c[1])}()", text)


def _setting(found: re.Match[str]) -> str:
    return f"{found[1].replace('-', '_')}={found[2]}"


def speaks_python(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function of the public API: its errors name keywords, not flags."""

    @wraps(function)
    def called(*args: P.args, **settings: P.kwargs) -> T:
        try:
            return function(*args, **settings)
        except HeadstartError as error:
            if error.args and isinstance(error.args[0], str):
                error.args = (in_python(error.args[0]), *error.args[1:])
            raise

    return called


def run_folder(run: str | Path | Run) -> Path:
    """Return the folder of a run that is given as a value or by its path; raises SpecError."""
    if isinstance(run, Run):
        return run.folder
    if not isinstance(run, str | Path):
        raise SpecError(f"Name the folder of a run; got a {type(run).__name__}.")
    return user_path(run)


def as_store(store: Store | str | Path | None) -> Any:
    """Return a store that is given as a value or by its folder."""
    return Store(Path(store)) if isinstance(store, str | Path) else store


def as_listener(listener: Listener | None) -> Listener:
    """Return the listener, a silent one for None; raises SpecError for anything else."""
    if listener is None:
        return Listener()
    if not hasattr(listener, "progress"):
        raise SpecError(f"listener is a Listener, or an object with its methods; got {listener!r}.")
    return listener


def tell_left_out(left_out: Iterable[LeftOut], listener: Listener) -> None:
    """Report to the listener what is left out, but for files that surely are no examples."""
    for item in unexpected(left_out):
        listener.stage("left out", f"{item.path}: {item.reason}")
