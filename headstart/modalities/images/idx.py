"""Read pictures and labels of MNIST and Fashion-MNIST in their own format, IDX.

A picture has a path below its file, as if the file were a folder: train-images-idx3-ubyte/00017.
"""

import re
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.modalities.images.encoding import encoded

PARTS = {"train": "train", "t10k": "test"}
MAX_BYTES = 200_000_000  # unpacked; the real ones have 47 million
NAME = re.compile(r"(train|t10k)-images[-.]idx3-ubyte(\.gz)?")


def is_pictures(name: str) -> bool:
    """Return whether a file's name is that of MNIST's pictures."""
    return NAME.fullmatch(name) is not None


def read_member(path: Path) -> bytes:
    """Return picture number `path.name` of the file `path.parent` as a BMP file."""
    pictures = read_idx(path.parent)
    if not re.fullmatch(r"[0-9]{1,9}", path.name) or int(path.name) >= len(pictures):
        raise DataError(f"{path.parent.name} holds pictures 0 to {len(pictures) - 1}")
    return encoded(Image.fromarray(pictures[int(path.name)]), "BMP")


def read_idx(file: Path) -> NDArray[np.uint8]:
    """Return the bytes of an IDX file in its shape; raises DataError for another or damaged one."""
    status = file.stat()
    return _read(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(file: Path, size: int, mtime_ns: int) -> NDArray[np.uint8]:
    if size > MAX_BYTES:
        raise _damaged(file, f"has {size:,} bytes")
    data = file.read_bytes()
    if file.suffix == ".gz":
        try:
            data = zlib.decompressobj(31).decompress(data, MAX_BYTES + 1)
        except zlib.error as error:
            raise _damaged(file, f"is not gzip ({error})") from None
    if len(data) > MAX_BYTES or data[:3] != b"\0\0\x08" or not 0 < data[3] <= 3:
        raise _damaged(file, "does not begin as an IDX file of bytes does")
    start = 4 + 4 * data[3]
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">u4"))
    if len(shape) != data[3] or len(data) - start != int(np.prod(shape, dtype=np.float64)):
        raise _damaged(file, f"holds {len(data) - start:,} bytes where {shape} are announced")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _damaged(file: Path, why: str) -> DataError:
    return DataError(f"{display(file)} is not as MNIST's: it {why}. Download it again.")
