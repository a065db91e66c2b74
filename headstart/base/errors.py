"""Every error raised on purpose: a HeadstartError that is also the builtin a caller would catch."""

import errno
import os
from collections import defaultdict
from collections.abc import Iterable
from difflib import get_close_matches

MANY = 30  # names listed in a message
LONGEST = 100  # characters of an unknown name in a message


class HeadstartError(Exception):
    """Base class of every error that Headstart raises on purpose.

    >>> issubclass(DataError, HeadstartError) and issubclass(DataError, ValueError)
    True
    """


class DataError(HeadstartError, ValueError):
    """The examples are not as described."""


class SpecError(HeadstartError, ValueError):
    """A setting is unknown, missing or out of range."""


class Mismatch(HeadstartError, ValueError):
    """Two values that must agree do not."""


class BundleError(HeadstartError, ValueError):
    """A saved folder is incomplete or was altered."""


class Diverged(HeadstartError, ArithmeticError):
    """Training produced a number that is not finite, and was stopped."""


class LostRank(HeadstartError, ConnectionError):
    """Another process of a training on several has ended, or does not answer."""


class StoreError(HeadstartError, OSError):
    """The store cannot be written or read."""


class PlaceError(HeadstartError, OSError):
    """The output cannot be written to its folder."""


class SourceError(HeadstartError, OSError):
    """Weights are not on this machine and could not be fetched."""


class MissingPackage(HeadstartError, ImportError):
    """An optional library is needed and not installed.

    extra: the extra that installs it. command: what installs it if no extra can.

    >>> print(MissingPackage("a", purpose="This", command="pip install --no-deps a==1"))
    This needs the package 'a', which is not installed. Install it with: pip install --no-deps a==1
    """

    def __init__(self, package: str, *, purpose: str, extra: str = "", command: str = "") -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: {command or install_command(extra)}"
        )


def install_command(extra: str) -> str:
    """Return the commands that install an extra, or the core, from the index or in a clone.

    >>> install_command("keras")
    "pip install 'headstart[keras]' (in a clone: pip install '.[keras]')"
    >>> install_command("")
    'pip install headstart (in a clone: pip install .)'
    """
    if not extra:
        return "pip install headstart (in a clone: pip install .)"
    return f"pip install 'headstart[{extra}]' (in a clone: pip install '.[{extra}]')"


class UnknownName(HeadstartError, KeyError):
    """No backbone, head or command has that name."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.what, self.name, self.known, self.hint = what, str(name), sorted(known), hint
        super().__init__(name)

    def __str__(self) -> str:
        name = self.name if len(self.name) <= LONGEST else f"{self.name[:LONGEST]}…"
        near = _nearest(name, self.known)
        known = ", ".join(self.known[:MANY])
        if len(self.known) > MANY:
            known += f" and {len(self.known) - MANY:,} more"
        if self.hint:
            return f"There is no {self.what} named {name!r}. {self.hint}"
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {known}."
        return f"There is no {self.what} named {name!r}. {hint}"


def _nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names nearest to `name`, ignoring case.

    >>> _nearest("FLower", ["Flower", "Bee"])
    ['Flower']
    """
    written = defaultdict[str, list[str]](list)
    for own in known:
        written[own.casefold()].append(own)
    near = get_close_matches(name.casefold(), written, n=most)
    return [own for folded in near for own in written[folded]][:most]


FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


def sentence_of(error: BaseException) -> str:
    """Return the message of an error for a person; an OSError's begins with its file.

    >>> sentence_of(OSError(28, "No space left on device", "run/model"))
    'run/model: No space left on device. Free some space, or name another place.'
    """
    if isinstance(error, MemoryError) or is_of_the_machine(error):
        text = str(error).strip().partition("\n")[0] or "no more is available"
        return f"This machine has too little memory, or too few threads ({text}). Ask for less."
    if isinstance(error, HeadstartError) or not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    names = [os.fsdecode(n) for n in (error.filename2 or error.filename,) if isinstance(n, _PATH)]
    advice = " Free some space, or name another place." if error.errno in FULL else ""
    return (
        f"{''.join(f'{name}: ' for name in names)}{error.strerror}{'.' if advice else ''}{advice}"
    )


def is_of_the_machine(error: BaseException) -> bool:
    """Return whether PyTorch or Python raised the error for lack of memory or threads."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _WANTS)


_PATH = (str, bytes, os.PathLike)
_WANTS = ("allocate memory", "out of memory", "can't start new thread")
