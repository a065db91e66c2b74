"""A digest inside a safetensors file, of every other byte of it and of the name it goes by.

A flipped bit in the header, the padding or the tensors, facts that were altered, and a file that
was copied to where another belongs are all told from what was written.
"""

import hashlib
import re

SEAL = "seal"  # the key of the file's metadata
BLANK = "0" * 32  # what `sealed` replaces
_WRITTEN = re.compile(rb'"%b":"([0-9a-f]{%d})"' % (SEAL.encode(), len(BLANK)))


def sealed(data: bytes, name: str) -> bytes:
    """The safetensors file `data`, whose metadata has {SEAL: BLANK}, sealed under `name`."""
    place = _place(data)
    if place is None:
        raise ValueError(f"A file to be sealed has {SEAL!r} in its metadata, once.")
    whole = bytearray(data)
    whole[place] = _digest(data, place, name)
    return bytes(whole)


def has_seal(data: bytes) -> bool:
    """Whether a file was ever sealed: earlier versions sealed nothing."""
    return _place(data) is not None


def seal_holds(data: bytes, name: str) -> bool:
    """Whether every byte is as it was sealed, and under this name."""
    place = _place(data)
    return place is not None and data[place] == _digest(data, place, name)


def header_of(data: bytes) -> bytes:
    """The JSON header of a safetensors file: its length, in 8 bytes, comes before it."""
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def _place(data: bytes) -> slice | None:
    """Where the seal is written; None unless there is just one."""
    found = list(_WRITTEN.finditer(header_of(data)))
    return slice(8 + found[0].start(1), 8 + found[0].end(1)) if len(found) == 1 else None


def _digest(data: bytes, place: slice, name: str) -> bytes:
    whole = memoryview(data)
    h = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=len(BLANK) // 2)
    h = hashlib.blake2b(h.digest(), digest_size=len(BLANK) // 2)  # so that no name runs into bytes
    h.update(whole[: place.start])
    h.update(BLANK.encode())
    h.update(whole[place.stop :])
    return h.hexdigest().encode()
