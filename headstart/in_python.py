"""Messages of errors as a Python user needs them: keywords in place of command-line flags."""

import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from headstart.base.errors import HeadstartError

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
