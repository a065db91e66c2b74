"""Arrays of rows that may exceed memory: large ones lie in a nameless file that is mapped.

The system writes pages of a mapped file to disk and drops them when memory is short. Where the
array would need more than a share of memory it is made in this way, and so is a selection of its
rows; the bytes are the same.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headstart.base.errors import StoreError
from headstart.base.runtime import memory_bytes

SHARE = 4  # an array of more than one part in this many of the memory is mapped
AT_ONCE = 2**24  # bytes copied at a time


def empty_rows(
    shape: tuple[int, ...], kind: DTypeLike = np.float32, folder: Path | None = None
) -> NDArray[Any]:
    """Return an array to be filled, mapped if it is large. folder: of the file; None for the usual
    folder of temporary files.

    StoreError if the disk has no room for it.

    >>> empty_rows((2, 3)).shape
    (2, 3)
    """
    dtype = np.dtype(kind)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    most = memory_bytes() // SHARE
    if not most or size <= most:
        return np.empty(shape, dtype)
    place = folder if folder is not None and folder.is_dir() else None
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            if hasattr(os, "posix_fallocate"):  # or writing to a full disk would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "w+", shape=shape)
    except OSError as error:
        raise StoreError(
            f"These features need {size / 1e6:,.0f} MB and do not fit into memory, so a file in "
            f"{place or tempfile.gettempdir()} must hold them, but: {error.strerror or error}. "
            f"Free some space, or name another place with --store."
        ) from error


def rows_of_array(
    x: NDArray[Any], rows: Sequence[int] | NDArray[np.integer[Any]], folder: Path | None = None
) -> NDArray[Any]:
    """Return these rows of an array, in this order; of a mapped one a part of it, or mapped too."""
    chosen = np.asarray(rows, np.int64)
    if not isinstance(x, np.memmap):
        return np.asarray(x[chosen])
    if len(chosen) and (np.diff(chosen) == 1).all():
        return x[int(chosen[0]) : int(chosen[-1]) + 1]
    out = empty_rows((len(chosen), *x.shape[1:]), x.dtype, folder)
    step = max(1, AT_ONCE // max(1, x.dtype.itemsize * int(np.prod(x.shape[1:]))))
    for start in range(0, len(chosen), step):
        out[start : start + step] = x[chosen[start : start + step]]
    return out
