"""JPEG 2000 files: the components that Pillow does not read right."""

import struct
from collections.abc import Sequence

START = b"\xff\x4f\xff\x51"  # of a codestream: the markers SOC and SIZ (ISO/IEC 15444-1, A.4, A.5)
COUNT, DEPTHS = 40, 42  # offsets of the number of components and of their depths


def depths(data: bytes) -> Sequence[int]:
    """Return the bits of each component, of the first codestream; () if there is none."""
    at = data.find(START)
    if at < 0 or at + DEPTHS > len(data):
        return ()
    (n,) = struct.unpack_from(">H", data, at + COUNT)
    return [(bits & 127) + 1 for bits in data[at + DEPTHS : at + DEPTHS + 3 * n : 3]]


def refusal(data: bytes) -> str:
    """Return in a phrase why a file is not decoded, or ""."""
    bits = depths(data)
    if len(bits) > 4:
        return (
            f"a JPEG 2000 picture of {len(bits)} components that are not said to be colours; save "
            f"three as RGB"
        )
    if len(bits) == 2 and b"cdef" not in data[: max(0, data.find(START))]:
        return (
            "a JPEG 2000 picture of 2 components, not said to be grey and alpha; save one as grey"
        )
    if len(bits) >= 3 and max(bits) > 8:
        # Pillow rounds them to 8 bits with an overflow: white becomes black
        return (
            f"a JPEG 2000 picture of {max(bits)}-bit colours, which is not read right: save it as "
            f"TIFF or PNG"
        )
    return ""
