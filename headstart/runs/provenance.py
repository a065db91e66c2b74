"""Where a run comes from: its data, the commit of the working folder, its command, its parent."""

import hashlib
import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from headstart.base.atomic import open_file
from headstart.base.command import command_line
from headstart.data.dataset import Content, Dataset
from headstart.reporting.run_files import Provenance

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # SHA-1, or git's newer SHA-256
REFERENCE = re.compile(r"refs/[^\0\s]+")
MOST = 4 * 2**20  # bytes read of a file in .git, at most


def provenance(parent: str = "") -> Provenance:
    """Return what is known when a run begins. parent: the run whose settings it starts from."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Provenance(began=now, command=command_line(), commit=git_commit(Path()), parent=parent)


def data_digest(rows: Dataset) -> str:
    """Return the SHA-256 over the name, the label and the digest of the file of every row.

    The order of the rows and the folder that they lie in do not matter.
    """
    labels = rows.target.decode(rows.y)
    contents = rows.contents or (Content(),) * len(rows)
    whole = hashlib.sha256()
    for row in sorted(range(len(rows)), key=rows.ids.__getitem__):
        line = json.dumps([rows.ids[row], str(labels[row]), contents[row].file])
        whole.update(f"{line}\n".encode())
    return whole.hexdigest()


def git_commit(folder: Path) -> str:
    """Return the commit that is checked out in the repository around `folder`; "" without one.

    Only files of `.git` are read: no program is run, and whether files were changed since is not
    looked at.
    """
    with suppress(OSError, ValueError):
        start = folder.resolve()
        for place in (start, *start.parents):
            if (place / ".git").exists():
                return _head_of(_git_folder(place / ".git"))
    return ""


def _git_folder(path: Path) -> Path:
    """Return the folder of a repository, which the `.git` of a second working tree names."""
    if path.is_dir():
        return path
    return path.parent / _text(path).removeprefix("gitdir:").strip()


def _head_of(git: Path) -> str:
    head = _text(git / "HEAD").strip()
    if not head.startswith("ref:"):
        return _commit(head)
    name = head.removeprefix("ref:").strip()
    if not REFERENCE.fullmatch(name) or ".." in name:
        return ""
    common = git
    if (git / "commondir").is_file():  # of a second working tree
        common = git / _text(git / "commondir").strip()
    for place in (git / name, common / name):
        if place.is_file():
            return _commit(_text(place).strip())
    packed = _text(common / "packed-refs") if (common / "packed-refs").is_file() else ""
    named = (line.partition(" ") for line in packed.splitlines())
    return next((_commit(commit) for commit, _, one in named if one == name), "")


def _commit(text: str) -> str:
    return text if COMMIT.fullmatch(text) else ""


def _text(path: Path) -> str:
    with open_file(path) as file:
        return file.read(MOST).decode("utf-8")
