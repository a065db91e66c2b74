"""Read a ZIP archive in place: its members are files below its path, `photos.zip/cat/1.jpg`.

Nothing is unpacked to disk. Names that lead out of the archive, links, encrypted members and those
that claim far more than they hold are left out.
"""

import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.data.dataset import LeftOut
from headstart.data.walking import Walk, counted, passed_over

SUFFIX = ".zip"
MAX_BYTES = 1_000_000_000  # of a member, unpacked
FREE_BYTES, RATIO = 64_000_000, 100  # a larger member holds at most RATIO times its packed bytes
SPARE_BYTES = 2**14  # read beside the head of a member: a packed head may be longer than unpacked
LEADS_OUT = "its name leads out of the archive"
NAMELESS = "it has no name of its own"
UNPACK = "unpack the archive and give the folder"


@dataclass(frozen=True)
class _Index:
    """members: by their cleaned names. left_out: entries that are never read."""

    members: Mapping[str, zipfile.ZipInfo]
    left_out: tuple[LeftOut, ...]


def archive_of(path: Path) -> Path | None:
    """Return the ZIP archive that a path leads into, or None."""
    for parent in path.parents:
        if parent.suffix.lower() == SUFFIX and parent.is_file():
            return parent
    return None


def read_member(path: Path, archive: Path) -> bytes:
    """Return the bytes of a member, checked by its CRC.

    Raises FileNotFoundError if there is none, DataError for one that is damaged or not read.
    """
    member = _member(path, archive)
    size, packed_size = member.file_size, member.compress_size
    if size > MAX_BYTES or (size > FREE_BYTES and size > RATIO * packed_size):
        raise DataError(f"claims {size:,} bytes in {packed_size:,} of {archive.name}")
    data = _unpacked(member, archive, packed_size, size + 1)
    if len(data) != size or zlib.crc32(data) != member.CRC:
        raise _damaged(archive)
    return data


def read_head(path: Path, archive: Path, length: int) -> bytes:
    """Return the first bytes of a member, which are not checked; little more of it is read.

    length: at most so many. Raises as `read_member` does, but for a member that claims too much.
    """
    member = _member(path, archive)
    return _unpacked(member, archive, min(member.compress_size, length + SPARE_BYTES), length)


def _member(path: Path, archive: Path) -> zipfile.ZipInfo:
    name = path.relative_to(archive).as_posix()
    member = _index(archive).members.get(name)
    if member is None:
        raise FileNotFoundError(2, "No such file in the archive", str(path))
    if member.flag_bits & 1:
        raise DataError(f"encrypted in {archive.name}: {UNPACK}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"packed by method {member.compress_type}, which is not read: {UNPACK}")
    return member


def _unpacked(member: zipfile.ZipInfo, archive: Path, packed: int, most: int) -> bytes:
    """Return at most `most` bytes of a member, from its first `packed` bytes in the archive."""
    with open(archive, "rb") as file:
        file.seek(member.header_offset)
        head = file.read(30)
        file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
        data = file.read(packed)
    if head[:4] != b"PK\3\4":
        raise _damaged(archive)
    if member.compress_type == zipfile.ZIP_STORED:
        return data[:most]
    try:
        return zlib.decompressobj(-15).decompress(data, most)
    except zlib.error:
        raise _damaged(archive) from None


def _damaged(archive: Path) -> DataError:
    return DataError(f"damaged in {archive.name} (wrong checksum or length)")


def walk_zip(archive: Path) -> tuple[Path, Walk]:
    """Return the folder that holds all others, below the archive's path, and what it contains.

    Raises DataError if the archive is damaged.
    """
    index = _index(archive)
    names = sorted(index.members, key=os.fsencode)
    top = _top(names)
    inner = [PurePosixPath(name).relative_to(top) for name in names]
    folders = {folder for name in inner for folder in name.parents if folder.parts}
    files = tuple(Path(name) for name in inner)
    listed = tuple(sorted((Path(f) for f in folders), key=lambda f: os.fsencode(f.as_posix())))
    return archive / top, Walk(files, listed, index.left_out)


def _top(names: list[str]) -> PurePosixPath:
    """Return the folder in which all members are, above the last folders that hold folders."""
    tops = [PurePosixPath(name).parts[:-1] for name in names]
    common = list(os.path.commonprefix(tops)) if tops else []  # of tuples, part by part
    while common and all(len(t) == len(common) for t in tops):
        common.pop()  # a folder of pictures alone is a class
    return PurePosixPath(*common)


def _index(archive: Path) -> _Index:
    status = archive.stat()
    return _read(archive, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(archive: Path, size: int, mtime_ns: int) -> _Index:
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DataError(
            f"{display(archive)} must be a ZIP archive, and can't be read as one ({error}). Load "
            f"it again."
        ) from error
    members, left_out, hidden = dict[str, zipfile.ZipInfo](), list[LeftOut](), Counter[str]()
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        path = PurePosixPath(name)
        if name.endswith("/"):
            continue
        if fault := _fault(entry, path):
            left_out.append(LeftOut(display(Path(name)), fault))
        elif what := next(filter(None, map(passed_over, path.parts)), ""):
            hidden[what] += 1
        elif members.setdefault(path.as_posix(), entry) is not entry:
            left_out.append(LeftOut(display(Path(name)), "a second member of this name"))
    left_out += (
        LeftOut(display(archive), f"{counted(what, n)} in it", True) for what, n in hidden.items()
    )
    return _Index(members, tuple(left_out))


def _fault(entry: zipfile.ZipInfo, path: PurePosixPath) -> str:
    if not path.parts:  # called "." or nothing
        return NAMELESS
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        return LEADS_OUT
    return "a link, which is not followed" if stat.S_ISLNK(entry.external_attr >> 16) else ""
