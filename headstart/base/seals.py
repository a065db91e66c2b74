"""Seals: a digest inside a safetensors file of its name and all its other bytes.

A seal detects flipped bits, altered metadata, and a file that was copied to another's place.
"""

import hashlib
import re
from typing import Any

SEAL = "seal"  # the key in the file's metadata
BLANK = "0" * 32  # the placeholder that `sealed` replaces
_WRITTEN = re.compile(rb'"%b":"([0-9a-f]{%d})"' % (SEAL.encode(), len(BLANK)))


def sealed(data: bytes, name: str) -> bytes:
    """Return the safetensors file `data`, whose metadata has {SEAL: BLANK}, sealed as `name`."""
    place = _place(data)
    if place is None:
        raise ValueError(f"A file to be sealed has {SEAL!r} in its metadata, once.")
    whole = bytearray(data)
    whole[place] = _digest(data, place, name)
    return bytes(whole)


def has_seal(data: bytes) -> bool:
    """Return whether a file has a seal: earlier versions wrote none."""
    return _place(data) is not None


def seal_holds(data: bytes, name: str) -> bool:
    """Return whether the bytes and the name are those that were sealed."""
    place = _place(data)
    return place is not None and data[place] == _digest(data, place, name)


def header_of(data: bytes) -> bytes:
    """Return the JSON header of a safetensors file, which follows its length in 8 bytes."""
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def _place(data: bytes) -> slice | None:
    """Return the seal's place in the file; None unless there is exactly one."""
    found = list(_WRITTEN.finditer(header_of(data)))
    return slice(8 + found[0].start(1), 8 + found[0].end(1)) if len(found) == 1 else None


def blanked(head: bytes) -> tuple[bytes, str]:
    """Return the beginning of a file, its header included, with a blank seal, and the seal; the
    same bytes and "" without one."""
    place = _place(head)
    if place is None:
        return head, ""
    return head[: place.start] + BLANK.encode() + head[place.stop :], head[place].decode()


def sealing(name: str) -> Any:
    """Return a hash of hashlib that, fed with a file whose seal is blank, gives its seal."""
    h = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=len(BLANK) // 2)
    return hashlib.blake2b(h.digest(), digest_size=len(BLANK) // 2)  # fixed length


def _digest(data: bytes, place: slice, name: str) -> bytes:
    whole = memoryview(data)
    h = sealing(name)
    h.update(whole[: place.start])
    h.update(BLANK.encode())
    h.update(whole[place.stop :])
    return str(h.hexdigest()).encode()
