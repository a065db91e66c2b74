"""Members of uncompressed tar archives, by their full names, and where their bytes lie."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headstart.base.display import display
from headstart.base.errors import DataError

BLOCK = tarfile.BLOCKSIZE  # 512 bytes: of a header, just before the bytes of its member
SHORT = 99  # bytes of a name that every kind of tar writes whole into the header
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstandard"}


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar. offset: of its first byte. fault: why it can't be read by range, or ""."""

    name: str
    offset: int
    size: int
    fault: str = ""


def members(file: BinaryIO, size: int) -> Iterator[TarMember]:
    """Yield the members of a tar of `size` bytes in order, folders apart.

    Names are full: two members that differ after a dot stay two. Raises DataError for a compressed
    archive, for anything but a tar, and for one that is damaged or cut off, after its good members.
    """
    head = file.read(8)
    file.seek(0)
    if kind := next((kind for start, kind in COMPRESSED.items() if head.startswith(start)), ""):
        raise DataError(
            f"is compressed ({kind}), so that no member can be read by itself: unpack it, or write "
            f"the tar without compression (pictures are compressed already)"
        )
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                vars(tar)["members"] = []  # tarfile keeps every one otherwise
                if not info.isdir():
                    yield _member(info, size)
            end = tar.offset
    except tarfile.TarError as error:
        raise DataError(f"is no tar that can be read ({error})") from error
    file.seek(max(0, end - BLOCK))  # tarfile ends in silence at a header that it can't read
    if file.read(BLOCK).strip(b"\0") and file.read(BLOCK).strip(b"\0"):
        raise DataError(f"is damaged at byte {end:,}: the members after it are not read")


def _member(info: tarfile.TarInfo, size: int) -> TarMember:
    fault = ""
    if not info.isreg() or info.issparse():
        fault = "a link or another special member of the tar, which holds no bytes of its own"
    elif info.offset_data + info.size > size:
        fault = "cut off at the end of the tar"
    return TarMember(clean(info.name), info.offset_data, info.size, fault)


def clean(name: str) -> str:
    """Return the name of a member without a leading "./"; it is only a name, never a path."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def is_header_of(block: bytes, id: str, size: int) -> bool:
    """Return whether a block is the header of a member of this size whose name ends the id.

    A long name stands in another header, before this one, and is not compared.
    """
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    name = display(Path(clean(info.name)))  # tidied as the id was
    whole = name.isascii() and id.isascii() and len(id) <= SHORT
    return info.size == size and (not whole or id.endswith(name))
