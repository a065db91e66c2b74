"""Every file under a folder once, in an order that is the same on every machine."""

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.dataset import LeftOut

SYSTEM_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
Inode = tuple[int, int]  # (st_dev, st_ino)


@dataclass(frozen=True)
class Walk:
    """What is under a folder; all paths are relative to it and sorted by their bytes."""

    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def walk(root: Path) -> Walk:
    """Visit each real file under `root` once, and never leave it.

    Links are followed last and only to what lies under `root` and was not seen before, so loops
    end. Hidden and system files, links that lead out or nowhere, further names of a file already
    seen and folders that may not be read are listed in `left_out`; an ignored folder is one entry.
    """
    walker = _Walker(root.resolve())
    walker.run()
    return Walk(
        tuple(sorted(walker.files, key=_order)),
        tuple(sorted(walker.folders, key=_order)),
        tuple(sorted(walker.left_out, key=lambda out: out.path)),
    )


def display(path: Path) -> str:
    r"""A path as printable text that is unique and can be encoded: no UTF-8 byte reads \xNN.

    A backslash in a name is doubled, so that no two names read the same.

    >>> display(Path(os.fsdecode(b"caf\xe9/1.png")))
    'caf\\xe9/1.png'
    """
    return "".join(_printable(c) for c in path.as_posix())


def _printable(character: str) -> str:
    if character == "\\":
        return r"\\"
    if character.isprintable() or character == "\u3000":
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _order(path: Path) -> bytes:
    return os.fsencode(path.as_posix())


@dataclass
class _Walker:
    """The state of one walk: what was found, and which inodes were seen."""

    root: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    seen: dict[Inode, Path] = field(default_factory=dict)
    links: deque[Path] = field(default_factory=deque)

    def run(self) -> None:
        self.enter(Path())
        while self.links:  # only after all real files, so that a link never takes a file's place
            self.follow(self.links.popleft())

    def enter(self, folder: Path) -> None:
        """Visit everything below a real folder, given relative to the root."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            if not self.is_new(here):
                continue
            if here != Path():
                self.folders.append(here)
            waiting += self.subfolders(here)

    def subfolders(self, folder: Path) -> list[Path]:
        """Take the files of one folder and name the folders in it."""
        try:
            names = sorted(os.listdir(self.root / folder), key=os.fsencode)
        except OSError as error:
            self.leave_out(folder, f"cannot be listed: {error.strerror or error}")
            return []
        return [path for name in names if self.place(path := folder / name)]

    def place(self, path: Path) -> bool:
        """File one entry where it belongs; True for a folder to be entered."""
        if path.name.startswith(".") or path.name in SYSTEM_NAMES:
            self.leave_out(path, "hidden or system file", expected=True)
            return False
        try:
            mode = os.lstat(self.root / path).st_mode
        except OSError as error:
            self.leave_out(path, f"cannot be read: {error.strerror or error}")
            return False
        if stat.S_ISLNK(mode):
            self.links.append(path)
        elif stat.S_ISREG(mode):
            if self.is_new(path):
                self.files.append(path)
        elif not stat.S_ISDIR(mode):
            self.leave_out(path, "neither a file nor a folder")
        return stat.S_ISDIR(mode)

    def follow(self, link: Path) -> None:
        """Visit what a link leads to, if that is inside the root and new."""
        try:
            target = (self.root / link).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a link to itself, on Python < 3.13
            self.leave_out(link, "a link that leads nowhere")
            return
        if not target.is_relative_to(self.root):
            self.leave_out(link, "a link that leads out of the folder")
        elif target.is_dir():
            self.enter(link)
        elif target.is_file():
            if self.is_new(link):
                self.files.append(link)
        else:
            self.leave_out(link, "neither a file nor a folder")

    def is_new(self, path: Path) -> bool:
        """Whether the file or folder was not seen before, under this name or another."""
        try:
            status = os.stat(self.root / path)
        except OSError as error:
            self.leave_out(path, f"cannot be read: {error.strerror or error}")
            return False
        first = self.seen.setdefault((status.st_dev, status.st_ino), path)
        if first is not path:
            what = display(first) if first != Path() else "the folder that is read"
            self.leave_out(path, f"another name of {what}", expected=True)
        return first is path

    def leave_out(self, path: Path, reason: str, *, expected: bool = False) -> None:
        self.left_out.append(LeftOut(display(path), reason, expected))
