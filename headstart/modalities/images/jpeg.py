"""JPEG files: segments, kinds that are not read, missing end markers."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

END = b"\xff\xd9"
SOS, DRI = 0xDA, 0xDD
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, JPEG-LS
PROGRESSIVE = (0xC2, 0xCA)
KINDS = {
    **dict.fromkeys((0xC3, 0xCB), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA), "a JPEG with arithmetic coding"),
    0xF7: "a JPEG-LS picture",
}
# start and least length of the segments that pixels (Adobe's: colour transform) or orientation need
NEEDED = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 6), 0xEE: (b"Adobe", 12)}
STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_NEXT = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # the marker that ends a scan's coded data
FOREIGN = b"\x55" * 64  # bits that continue no scan
ZEROS = 16  # bytes at the end from which a file counts as filled up, not finished


@dataclass(frozen=True)
class Segment:
    """A marker and its bytes. start: offset of the marker's 0xFF."""

    marker: int
    start: int
    body: bytes


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a file, without coded data, up to the end marker or damage."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker == END[1]:
            return
        size = 0 if marker in STANDALONE else int.from_bytes(data[at + 2 : at + 4], "big")
        yield Segment(marker, at, data[at + 4 : at + 2 + size])
        at += 2 + size
        if marker == SOS:
            marked = _NEXT.search(data, at)
            at = marked.start() if marked else len(data)


def damage(data: bytes) -> str:
    """Return in a phrase that a file ends in zeros, or "".

    A download or copy that broke off often leaves zeros; other readers show the part before.
    """
    bare = data.rstrip(b"\0")
    zeros = len(data) - len(bare)
    if zeros < ZEROS or END in bare[max(0, bare.rfind(b"\xff\xda")) :]:
        return ""
    return f"a JPEG that is cut short (its last {zeros:,} bytes are zeros, without an end marker)"


def refusal(data: bytes) -> str:
    """Return in a phrase why a file of a rare kind is not read, or ""."""
    for segment in segments(data):
        if segment.marker in FRAMES and segment.body:
            what = KINDS.get(segment.marker, "a JPEG")
            if segment.body[0] != 8:
                what += f" of {segment.body[0]} bits a sample"
            elif segment.marker not in KINDS and segment.body[5:6] not in (b"\1", b"\3", b"\4"):
                what += f" of {(segment.body[5:6] or bytes(1))[0]} components"
            if what != "a JPEG":
                return f"{what}, which is not read: save it as an ordinary 8-bit JPEG or PNG"
            return ""
    return "a JPEG that is cut short or damaged before its pixels begin"


def without_metadata(data: bytes) -> bytes:
    """Return the file without segments that pixels and orientation do not need."""
    kept, at = [data[:2]], 2
    for segment in segments(data):
        if segment.marker == SOS:
            break
        end = segment.start + 4 + len(segment.body)
        if not _is_metadata(segment):
            kept.append(data[segment.start : end])
        at = end
    return b"".join(kept) + data[at:]


def _is_metadata(segment: Segment) -> bool:
    if segment.marker in NEEDED:
        start, least = NEEDED[segment.marker]
        return not (segment.body.startswith(start) and len(segment.body) >= least)
    return 0xE2 <= segment.marker <= 0xEF or segment.marker == 0xFE


def with_end(data: bytes) -> bytes:
    """Return the file with its missing end marker; b"" if anything else is missing.

    All scans must be there. The last one is complete if no pixel depends on the bytes after it: the
    end marker, foreign bits, or the next restart interval.
    """
    body = data.rstrip(b"\xff")
    if not _has_all_scans(body):
        return b""
    ended, others = body + END, [body + FOREIGN + END]
    if any(segment.marker == DRI for segment in segments(body)):
        restarts = re.findall(rb"\xff([\xd0-\xd7])", body)
        number = (restarts[-1][0] + 1) % 8 if restarts else 0
        others.append(body + bytes([0xFF, 0xD0 + number]) + FOREIGN + END)
    for scale in (8, 1):  # most truncated files differ at an eighth of the size already
        pixels = _pixels(ended, scale)
        if not all(np.array_equal(pixels, _pixels(other, scale)) for other in others):
            return b""
    return ended


def _has_all_scans(data: bytes) -> bool:
    """Return whether every coefficient of every component is there in full precision."""
    left: dict[int, set[int]] = {}
    progressive = False
    for segment in segments(data):
        body = segment.body
        if segment.marker in FRAMES:
            progressive = segment.marker in PROGRESSIVE
            left = {body[at]: set(range(64)) for at in range(6, len(body) - 2, 3)}
        if segment.marker == SOS and body and len(body) >= 2 * body[0] + 4:
            names = body[1 : 2 * body[0] + 1 : 2]
            first, last, bits = body[-3:]
            exact = set(range(first, last + 1)) if progressive else set(range(64))
            for name in names:
                left[name] = left.get(name, set()) - (set() if progressive and bits & 15 else exact)
    return bool(left) and not any(left.values())


def _pixels(data: bytes, scale: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image.draft(image.mode, (image.width // scale, image.height // scale))
        return np.asarray(image)
