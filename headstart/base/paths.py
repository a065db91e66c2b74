"""Paths as a user names them."""

import os
from pathlib import Path


def user_path(given: str | os.PathLike[str]) -> Path:
    """Return a path with the user's home folder in place of a ~ at its start.

    A ~name stays as it is if there is no such user, as in a shell.

    >>> user_path("runs/x").as_posix()
    'runs/x'
    """
    return Path(os.path.expanduser(given))
