"""Which files of a store this machine has verified: a file is read whole once, not in each process.

    STORE/.verified/<machine>/<table>    a line a file: its name, size, modification time, inode

A file that was changed since, and one so young that a change may have left its modification time,
is verified again; `headstart store verify` verifies all of them again.
"""

import hashlib
import os
import platform
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from headstart.base.atomic import make_folder
from headstart.base.shards import Stamp

FOLDER = ".verified"
YOUNG_NS = 2 * 10**9  # some file systems note times to two seconds


@cache
def machine_name() -> str:
    """Return a name for this machine, from which nothing of it can be read."""
    machine = f"{platform.node()} {uuid.getnode()}"
    return hashlib.blake2b(machine.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class VerifiedFiles:
    """The verified files of one table; a place that can't be written to remembers nothing."""

    def __init__(self, table: Path) -> None:
        self.path = table.parent / FOLDER / machine_name() / table.name
        self._known: dict[str, str] | None = None

    def holds(self, path: Path, file: BinaryIO) -> bool:
        """Return whether an open file is the one that was verified."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(path.name) == _line(Stamp.of(file))

    def remember(self, path: Path, stamp: Stamp) -> None:
        """Note that a file was verified, unless it is too young."""
        if stamp.checked - stamp.changed < YOUNG_NS or self._known is None:
            return
        self._known[path.name] = _line(stamp)
        with suppress(OSError):
            make_folder(self.path.parent)
            with open(self.path, "a", encoding="utf-8") as notes:
                notes.write(f"{path.name} {_line(stamp)}\n")

    def forget(self) -> None:
        """Forget all files of the table."""
        self._known = {}
        with suppress(OSError):
            os.unlink(self.path)

    def _read(self) -> dict[str, str]:
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        return {name: rest for name, _, rest in (line.partition(" ") for line in lines)}


def _line(stamp: Stamp) -> str:
    return f"{stamp.size} {stamp.changed} {stamp.number}"
