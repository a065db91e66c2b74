"""The one way a file is written: temporary file, fsync, rename, fsync of the folder.

After a crash or a power cut a file is either wholly there or not there; nobody ever reads half of
one. What was there before stays until the new one is complete.
"""

import errno
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from headstart.base.errors import PlaceError

TEMPORARY = ".part-"  # temporary names start so; readers skip them, `sweep` removes old ones
DAY_S = 86_400


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened to be read.

    Raises OSError for anything else, and never waits, as opening a pipe would for its writer.
    """
    wait_not = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(os.open(path, os.O_RDONLY | wait_not), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_bytes(path: Path) -> bytes:
    """All of a regular file; raises OSError for anything else."""
    with open_file(path) as file:
        return file.read()


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Make `path` hold exactly `data`, durably; raises OSError and leaves no trace on failure."""
    with _errors_about(path):
        make_folder(path.parent)
        part = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with open(part, "xb") as f:
                with suppress(AttributeError):  # a file in memory
                    _lock(f.fileno())
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        sync_folder(path.parent)


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    """Make every OSError in the block name `path`; of itself it names a temporary file, or none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


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
    _must_be_new(path)
    make_folder(path.parent)
    part = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    part.mkdir()
    try:
        yield part
        sync_folder(part)
        _must_be_new(path)  # another may have made it meanwhile; rename replaces an empty folder
        os.rename(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} is already there.")


def make_folder(folder: Path) -> None:
    """Make sure that `folder` is there, its parents too, and still is after a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def check_folder(folder: Path) -> None:
    """Raises PlaceError unless files can be written into `folder`, to be called before the work.

    It need not be there: what is missing is made, tried and removed again.
    """
    made = list(takewhile(lambda path: not os.path.exists(path), (folder, *folder.parents)))
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        make_folder(folder)
        _clock_of(folder)  # which makes a file, and removes it
        sweep(folder)
    except OSError as error:
        raise PlaceError(
            f"{folder} must be a folder, or a place for one, that can be written to; the system "
            f"says: {error.strerror or error}. Name another place."
        ) from error
    finally:
        for path in made:
            with suppress(OSError):  # it was never made, or another has put something there
                path.rmdir()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (POSIX; elsewhere a folder can't be opened)."""
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
    """Remove the temporary files in `folder` that killed writers left long ago.

    How old they are is told by the clock that dates files there, which may be another machine's.
    A file that is being written is locked, and stays however a clock may jump.
    """
    parts = [part for part in folder.glob(f"{TEMPORARY}*") if part.is_file()]
    if not parts:
        return
    with suppress(OSError):  # the folder is read-only
        now = _clock_of(folder)
        for part in parts:
            with suppress(OSError):  # another sweeps too
                if now - part.stat().st_mtime > older_than_s and not _is_locked(part):
                    part.unlink()


def _clock_of(folder: Path) -> float:
    """The time by the clock that dates files in `folder`, in s: on a network, the server's."""
    fd, probe = tempfile.mkstemp(prefix=f"{TEMPORARY}{os.getpid()}-", dir=folder)
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
        os.unlink(probe)


def _lock(fd: int) -> bool:
    """Lock an open file until it is closed; False if another holds it. Where there are no locks
    (Windows refuses to remove open files anyway), True."""
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


def _is_locked(path: Path) -> bool:
    with open_file(path) as file:
        return not _lock(file.fileno())
