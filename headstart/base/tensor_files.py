"""Read safetensors files that a stranger may have written.

The library accepts keys that are there twice, and a header of 100 MB, which takes it 40 s and
2.5 GB. Here the header is small, each tensor lies right after the one before, and together they
are the rest of the file; so a file's size is known to be right before its numbers are read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import open_file
from headstart.base.errors import SpecError
from headstart.base.strict_json import read_strictly

LENGTH = 8  # bytes of the header's length, before the header
FIRST = LENGTH + 1  # and the first of the header
MOST_HEADER = 4 * 2**20  # bytes; of 10,000 tensors it has 1
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
OTHERS = {"BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8, "C64": 8}  # bytes
SIZES = {name: dtype.itemsize for name, dtype in DTYPES.items()} | OTHERS
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class TensorPlace:
    """A tensor as the header describes it. start, end: in the bytes after the header."""

    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


def header_size(first: bytes, size: int) -> int:
    """Return the bytes of a header from the first 9 bytes of a file; SpecError if it is none."""
    if first.startswith(PICKLES) and first[LENGTH:FIRST] != b"{":
        raise SpecError(
            "it is a pickle or an archive of torch.save under another name, and reading one can "
            "run code"
        )
    length = int.from_bytes(first[:LENGTH], "little")
    if len(first) < FIRST or not 2 <= length <= size - LENGTH:
        raise SpecError("its header is cut short")
    if length > MOST_HEADER:
        raise SpecError(f"its header has {length:,} bytes, and at most {MOST_HEADER:,} are read")
    return length


def read_places(header: bytes, size: int) -> dict[str, TensorPlace]:
    """Return the tensors of a header by name, in the file's order.

    size: of the bytes after the header, all of which must be tensors, each right after the last.
    """
    plain = read_strictly(header, MOST_HEADER)
    if not isinstance(plain, dict):
        raise SpecError("its header is no object")
    plain.pop("__metadata__", None)
    found = sorted(((name, _place(name, own)) for name, own in plain.items()), key=_order)
    at = 0
    for name, place in found:
        count = place.end - place.start
        if place.start != at or count != math.prod(place.shape) * SIZES[place.kind]:
            raise SpecError(f"the numbers of {name[:60]!r} are not where its shape says")
        at = place.end
    if at != size:
        raise SpecError(f"it holds {size:,} bytes of numbers, and its header says {at:,}")
    return dict(found)


def _order(item: tuple[str, TensorPlace]) -> tuple[int, int]:
    return item[1].start, item[1].end


def _place(name: str, own: Any) -> TensorPlace:
    if isinstance(own, dict) and own.keys() == {"dtype", "shape", "data_offsets"}:
        kind, shape, ends = own["dtype"], own["shape"], own["data_offsets"]
        whole = isinstance(shape, list) and isinstance(ends, list) and _counts(shape + ends)
        if whole and type(kind) is str and kind in SIZES and len(ends) == 2 and ends[0] <= ends[1]:
            return TensorPlace(kind, tuple(shape), *ends)
    raise SpecError(f"its header does not describe {name[:60]!r} as a tensor")


def _counts(values: list[Any]) -> bool:
    return all(type(n) is int and 0 <= n < 2**48 for n in values)


def check_tensor_file(path: Path) -> None:
    """Raise SpecError, whose message is the end of a sentence, unless the file's header is right.

    Its numbers are not read. Raises OSError for a file that cannot be opened.
    """
    with open_file(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = header_size(file.read(FIRST), size)
        file.seek(LENGTH)
        read_places(file.read(length), size - LENGTH - length)


def arrays_of(data: bytes, places: Mapping[str, TensorPlace]) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file's bytes as arrays of their own.

    Raises SpecError for a type that NumPy lacks.
    """
    begin = LENGTH + int.from_bytes(data[:LENGTH], "little")
    arrays = {}
    for name, place in places.items():
        if place.kind not in DTYPES:
            raise SpecError(f"{name[:60]!r} is of the type {place.kind}, which NumPy lacks")
        dtype, count = DTYPES[place.kind], math.prod(place.shape)
        array = np.empty(place.shape, dtype)
        if count:
            array.reshape(-1)[:] = np.frombuffer(data, dtype, count, begin + place.start)
        arrays[name] = array
    return arrays
