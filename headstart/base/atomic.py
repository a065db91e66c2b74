"""Atomic writes: temporary file, fsync, rename, fsync of the folder.

After a crash or a power cut a file has either its old content or its new content, never a part.
"""

import errno
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from headstart.base.errors import PlaceError

TEMPORARY = ".part-"  # prefix of temporary names; readers skip them, `sweep` removes old ones
DAY_S = 86_400
WINDOWS = sys.platform == "win32"
RENAME_S = 2.0  # for which a rename is tried again on Windows, where an open file can't be replaced


def open_file(path: Path) -> BinaryIO:
    """Open a regular file; raises OSError for anything else, and never waits as for a pipe."""
    wait_not = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(os.open(path, os.O_RDONLY | wait_not), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file; raises OSError for anything else."""
    with open_file(path) as file:
        return file.read()


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically and durably; raises OSError, with the old file kept, on failure."""
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write piece by piece, which replaces `path` at the end of the block, durably.

    Raises OSError, with the old file kept, on failure; any error of the block keeps it too.
    """
    with _errors_about(path):
        make_folder(path.parent)
        part = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with open(part, "xb") as file:
                with suppress(AttributeError):  # an in-memory file has no fileno
                    lock(file.fileno())
                yield file
                file.flush()
                os.fsync(file.fileno())
            _moved(os.replace, part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        sync_folder(path.parent)


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    """Make every OSError of the block name `path` rather than a temporary file or nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; lone surrogates (from file names that are not UTF-8) become \\udcXX."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; raises ValueError for NaN and infinity, which are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder, renamed to `path` after the block; FileExistsError if it exists."""
    _must_be_new(path)
    make_folder(path.parent)
    part = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    part.mkdir()
    try:
        yield part
        sync_folder(part)
        _must_be_new(path)  # another process may have made it; rename replaces an empty folder
        _moved(os.rename, part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _moved(move: Callable[[Path, Path], None], part: Path, path: Path) -> None:
    """Rename `part` to `path`.

    Windows refuses while any program has the file open, such as a virus scanner that looks at each
    new file; so there it is tried again for RENAME_S.
    """
    end = time.monotonic() + RENAME_S
    while True:
        try:
            return move(part, path)
        except PermissionError:
            if not WINDOWS or time.monotonic() > end:
                raise
        time.sleep(0.05)


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} is already there.")


def make_folder(folder: Path) -> None:
    """Create `folder` and its missing parents durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def check_folder(folder: Path) -> None:
    """Raise PlaceError unless files can be written into `folder`, which may not exist yet."""
    made = list(takewhile(lambda path: not os.path.exists(path), (folder, *folder.parents)))
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        make_folder(folder)
        _clock_of(folder)  # creates a file and removes it
        sweep(folder)
    except OSError as error:
        raise PlaceError(
            f"{folder} must be a folder, or a place for one, that can be written to; the system "
            f"says: {error.strerror or error}. Name another place."
        ) from error
    finally:
        for path in made:
            with suppress(OSError):  # never created, or no longer empty
                path.rmdir()


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable (POSIX only: elsewhere a folder can't be opened)."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems can't
            raise
    finally:
        os.close(fd)


def sweep(folder: Path, *, older_than_s: float = DAY_S) -> None:
    """Remove old temporary files in `folder`, left by killed writers.

    Ages are measured by the file system's clock, which may run on another machine. Files being
    written are locked, and stay even if a clock jumps.
    """
    parts = [part for part in folder.glob(f"{TEMPORARY}*") if part.is_file()]
    if not parts:
        return
    with suppress(OSError):  # the folder is read-only
        now = _clock_of(folder)
        for part in parts:
            with suppress(OSError):  # another process has removed it
                if now - part.stat().st_mtime > older_than_s and not is_locked(part):
                    part.unlink()


def _clock_of(folder: Path) -> float:
    """Return the file system's time in s; for a network folder, the time of the file server."""
    fd, probe = tempfile.mkstemp(prefix=f"{TEMPORARY}{os.getpid()}-", dir=folder)
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
        os.unlink(probe)


def lock(fd: int) -> bool:
    """Lock an open file until it is closed; return False if another process holds the lock.

    On a file system without locks nothing is locked, and every process gets True.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
    return True


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file; raises OSError without such a file."""
    with open_file(path) as file:
        return not lock(file.fileno())


@contextmanager
def alone(path: Path, wait_s: float = 0.01) -> Iterator[None]:
    """Hold the lock of a file in the block; wait for other processes and threads that hold it.

    The kernel gives the lock of a killed process back.
    """
    with open(path, "ab") as file:
        while not lock(file.fileno()):
            time.sleep(wait_s)
        yield
