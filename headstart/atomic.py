"""The one way a file is written: temporary file, fsync, rename, fsync of the folder.

After a crash or a power cut a file is either wholly there or not there; nobody ever reads half of
one. What was there before stays until the new one is complete.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY = ".part-"  # temporary names start so; readers skip them, a later writer may sweep them


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Make `path` hold exactly `data`, durably; raises OSError and leaves no trace on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(part, "xb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """UTF-8; lone surrogates (names of files that are not UTF-8) are written as \\udcXX."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Indented, for people; NaN and infinity are refused, since they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` when the block ends well.

    Raises FileExistsError if `path` is there already: a folder is never written over.
    """
    if path.exists():
        raise FileExistsError(f"{path} is already there.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    part.mkdir()
    try:
        yield part
        sync_folder(part)
        os.rename(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (POSIX; elsewhere a folder can't be opened)."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
