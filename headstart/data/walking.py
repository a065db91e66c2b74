"""List the files under a folder in the same order on every machine."""

import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.base.display import display as display  # imported from here by readers of folders
from headstart.data.dataset import LeftOut
from headstart.data.folder_files import FolderFiles

LEADS_OUT = "a link that leads out of the folder"
LEADS_NOWHERE = "a link that leads nowhere"
# Files that NAS systems, file managers and operating systems put beside pictures, in lower case.
# Other names that begin with a dot are passed over too.
THUMBNAILS = frozenset(
    "@eadir .@__thumb @__thumb .thumbnails .thumbs .sh_thumbnails _thumbs _thumbnails .wdmc "
    "thumbs.db ehthumbs.db ehthumbs_vista.db zbthumbnail.info".split()
)
DELETED = frozenset(
    {"#recycle", "@recycle", "$recycle.bin", "network trash folder", ".recycle", ".trash"}
    | {".trashes"}
)
SYSTEM = frozenset(
    {"__macosx", "desktop.ini", "lost+found", "system volume information", "icon\r", "picasa.ini"}
    | {"@tmp", "@sharebin", "#snapshot", "@recently-snapshot", "temporary items", "_vti_cnf"}
)
# Folder links are followed until this many names were reached through them, or this many per real
# name if that is more: links to folders that hold links can double at every step.
LINKED_NAMES = 10_000
LINKED_NAMES_EACH = 20


@dataclass(frozen=True)
class Walk:
    """The content of a folder; all paths are relative to it and sorted by their bytes."""

    files: Sequence[Path]
    folders: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def walk(root: Path) -> Walk:
    """List the files under `root` without leaving it.

    Hard links and links to files under `root` are listed by their own names; a linked folder is
    listed under its own name and the link's, but never inside itself, so that loops end. Links to
    folders are followed until LINKED_NAMES files and folders in linked folders are listed. Folders
    are identified by resolved paths, since some file systems give all files one inode.

    A folder that is passed over is one entry of `left_out`, with the count of its files.
    """
    walker = _Walker(root.resolve())
    walker.run()
    return Walk(
        FolderFiles(Path(), tuple(sorted(walker.files, key=os.fsencode))),
        tuple(sorted(walker.folders, key=_order)),
        tuple(sorted(walker.left_out, key=lambda out: out.path)),
    )


def link_fault(root: Path, path: Path) -> str:
    """Return why a link is not followed (it leads out of the resolved `root` or nowhere), or ""."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, on Python < 3.13
        return LEADS_NOWHERE
    return "" if target.is_relative_to(root) else LEADS_OUT


def about_links(left_out: Iterable[LeftOut]) -> str:
    """Return a sentence, after a blank, on the links not followed and the remedy, or ""."""
    links = [out.path for out in left_out if out.reason in (LEADS_OUT, LEADS_NOWHERE)]
    if not links:
        return ""
    n = "A link leads" if len(links) == 1 else f"{len(links):,} links lead"
    named = ", ".join(links[:3]) + (", …" if len(links) > 3 else "")
    return (
        f" {n} out of the folder or nowhere ({named}), and "
        f"such links are not followed: copy the files there, or name the folder that holds them."
    )


def passed_over(name: str) -> str:
    """Return why a file or folder is no example, by its name ("deleted file"); "" for others."""
    lower = name.lower()
    if lower in THUMBNAILS or lower.endswith(".thm") or re.match(r"syno\w*[_:]thumb_", lower):
        return "file of thumbnails"  # .thm: a camera's, beside its films
    if lower in DELETED or lower.startswith(".trash-"):
        return "deleted file"
    if name.startswith(".") or lower in SYSTEM:
        return "hidden or system file"
    return ""


def counted(what: str, n: int) -> str:
    """Return how many files are passed over, by the reason that `passed_over` gives.

    >>> counted("file of thumbnails", 2)
    '2 files of thumbnails'
    """
    return f"{n:,} {what if n == 1 else what.replace('file', 'files', 1)}"


def _order(path: Path) -> bytes:
    return os.fsencode(path.as_posix())


@dataclass(frozen=True)
class _Folder:
    """A file or folder, by its name relative to the root and by its real path.

    above: the real paths of the folders above it. linked: whether a link led to one of them.
    """

    name: Path
    real: Path
    above: tuple[Path, ...] = ()
    linked: bool = False

    def inner(self, name: str) -> "_Folder":
        return _Folder(self.name / name, self.real / name, (*self.above, self.real), self.linked)


@dataclass
class _Walker:
    """The state of a walk. links: links still to follow."""

    root: Path
    files: list[str] = field(default_factory=list)  # with slashes
    folders: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    links: deque[_Folder] = field(default_factory=deque)
    real_names: int = 0
    linked_names: int = 0

    def run(self) -> None:
        self.enter(_Folder(Path(), self.root))
        while self.links:  # after all real names, whose number limits the linked ones
            self.follow(self.links.popleft())

    def enter(self, folder: _Folder) -> None:
        """Visit everything below a folder; links are queued."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            if here.real in here.above:
                self.leave_out(here.name, f"another name of {self.shown(here)}", expected=True)
                continue
            if here.name != Path():
                self.folders.append(here.name)
            waiting += self.subfolders(here)

    def subfolders(self, folder: _Folder) -> list[_Folder]:
        """Add the files of one folder, and return the folders in it."""
        try:
            names = sorted(os.listdir(folder.real), key=os.fsencode)
        except OSError as error:
            self.leave_out(folder.name, f"cannot be listed: {error.strerror or error}")
            return []
        self.real_names += 0 if folder.linked else len(names)
        self.linked_names += len(names) if folder.linked else 0
        return [inner for name in names if self.place(inner := folder.inner(name))]

    def place(self, entry: _Folder) -> bool:
        """Add one entry to the list of its sort; return True for a folder to enter."""
        path = entry.name
        if what := passed_over(path.name):
            self.pass_over(entry, what)
            return False
        try:
            mode = os.lstat(entry.real).st_mode
        except OSError as error:
            self.leave_out(path, f"cannot be read: {error.strerror or error}")
            return False
        if stat.S_ISLNK(mode):
            self.links.append(entry)
        elif stat.S_ISREG(mode):
            self.files.append(path.as_posix())
        elif not stat.S_ISDIR(mode):
            self.leave_out(path, "neither a file nor a folder")
        return stat.S_ISDIR(mode)

    def follow(self, link: _Folder) -> None:
        """Add the file or folder that a link leads to, if inside the root."""
        most = max(LINKED_NAMES, LINKED_NAMES_EACH * self.real_names)
        if fault := link_fault(self.root, link.real):
            self.leave_out(link.name, fault)
        elif os.path.isfile(target := link.real.resolve()):
            self.files.append(link.name.as_posix())
        elif not os.path.isdir(target):
            self.leave_out(link.name, "neither a file nor a folder")
        elif self.linked_names < most:
            self.enter(_Folder(link.name, target, link.above, linked=True))
        else:
            self.leave_out(
                link.name, f"a link to a folder, after {most:,} names through such links"
            )

    def pass_over(self, entry: _Folder, what: str) -> None:
        """List an entry that is never an example; for a folder, count its files."""
        if os.path.isdir(entry.real) and not os.path.islink(entry.real):
            n = sum(len(files) for _, _, files in os.walk(entry.real))
            what = counted(what, n)
        self.leave_out(entry.name, what, expected=True)

    def shown(self, folder: _Folder) -> str:
        inside = folder.real.relative_to(self.root)
        return "the folder that is read" if inside == Path() else f"{display(inside)} around it"

    def leave_out(self, path: Path, reason: str, *, expected: bool = False) -> None:
        self.left_out.append(LeftOut(display(path), reason, expected))
