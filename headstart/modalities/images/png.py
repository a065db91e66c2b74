"""PNG files: chunks, damage, metadata, transparent colours."""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_TEXT = 1_000_000  # bytes of unpacked metadata that are searched for an orientation
ORIENTING = (b"XML:com.adobe.xmp", b"Raw profile type exif")  # texts that can hold one
GREY, RGB = 0, 2


@dataclass(frozen=True)
class Chunk:
    """A chunk of a PNG file, data[start:end]. intact: its checksum is right."""

    kind: bytes
    start: int
    end: int
    intact: bool

    @property
    def critical(self) -> bool:
        """Whether the pixels depend on the chunk: upper-case names, and tRNS, which holds alpha."""
        return self.kind[:1].isupper() or self.kind == b"tRNS"


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the complete chunks of a file, up to IEND."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        crc = zlib.crc32(memoryview(data)[at + 4 : end - 4])
        kind = data[at + 4 : at + 8]
        yield Chunk(kind, at, end, crc == int.from_bytes(data[end - 4 : end], "big"))
        if kind == b"IEND":
            return
        at = end


def damage(data: bytes) -> str:
    """Return in a phrase why a file should not be decoded, or ""."""
    for chunk in chunks(data):
        if chunk.kind == b"CgBI":
            return "a PNG in Apple's own variant (CgBI), which is not read: save it as plain PNG"
        if chunk.critical and not chunk.intact:
            name = chunk.kind.decode("ascii", "backslashreplace")
            return f"a damaged PNG (wrong checksum in its {name} chunk)"
    return ""


def without_metadata(data: bytes) -> bytes:
    """Return the file without chunks that pixels and orientation do not need."""
    kept, at = [data[:8]], 8
    for chunk in chunks(data):
        at = chunk.end
        body = data[chunk.start + 8 : chunk.end - 4]
        orients = chunk.intact and (chunk.kind == b"eXIf" or _orients(chunk.kind, body))
        if chunk.critical or orients:
            kept.append(data[chunk.start : chunk.end])
    return b"".join(kept) + data[at:]


def _orients(kind: bytes, body: bytes) -> bool:
    """Return whether a chunk is a text that can hold an orientation and is short when unpacked."""
    keyword, _, rest = body.partition(b"\0")
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or keyword not in ORIENTING:
        return False
    packed = rest[1:] if kind == b"zTXt" else b""
    if kind == b"iTXt" and rest[:1] == b"\1":
        packed = rest[2:].split(b"\0", 2)[-1]
    try:
        return len(packed and zlib.decompressobj().decompress(packed, MAX_TEXT) or rest) < MAX_TEXT
    except zlib.error:
        return False


def depth_and_colours(data: bytes) -> tuple[int, int]:
    """Return the bits per sample and the colour type, from IHDR."""
    return data[24], data[25]


def key(data: bytes) -> tuple[int, ...]:
    """Return the transparent grey (one number) or colour (three) of tRNS, or ()."""
    depth, colours = depth_and_colours(data)
    for chunk in chunks(data):
        if chunk.kind == b"IDAT":
            break
        if chunk.kind == b"tRNS" and colours in (GREY, RGB):
            body = data[chunk.start + 8 : chunk.end - 4]
            numbers = np.frombuffer(body[: len(body) // 2 * 2], ">u2")
            numbers = numbers[: 1 if colours == GREY else 3]
            return tuple(int(n) & (2**depth - 1) for n in numbers)  # PNG 11.3.2.1: the low bits
    return ()


def has_deep_key(data: bytes) -> bool:
    """Return whether a picture of 2, 4 or 16 bits per sample has a transparent grey or colour."""
    return len(data) > 26 and data[24] in (2, 4, 16) and bool(key(data))


def shows_key(data: bytes, upper: NDArray[np.uint8], colour: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which pixels (H, W) of a 16-bit RGB picture have exactly this colour.

    upper: the upper bytes of its samples (H, W, 3), as Pillow decodes them. With the opposite byte
    order, Pillow decodes the lower bytes.
    """
    same = _equals(upper, colour, 8)
    if same.any():
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            tiles: Any = image.tile
            image.tile = [tile[:3] + ("RGB;16L",) for tile in tiles]
            same &= _equals(np.asarray(image), colour, 0)
    return same


def _equals(levels: NDArray[np.uint8], colour: tuple[int, ...], shift: int) -> NDArray[np.bool_]:
    red, green, blue = ((n >> shift) & 255 for n in colour)
    same: NDArray[np.bool_] = levels[..., 0] == red
    return same & (levels[..., 1] == green) & (levels[..., 2] == blue)
