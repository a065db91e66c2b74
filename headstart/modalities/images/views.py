"""Augmented views of a picture, to check an augmentation by eye."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import SpecError
from headstart.base.values import check_seed
from headstart.modalities.images.augment import GAP, Augment, view_grid
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.inputs import ImageInput

MOST_SIZE = 2048  # pixels of a view in a grid of 16, which then takes 200 MB


def picture_grid(
    picture: Path | bytes, augment: Augment, *, size: int, seed: int
) -> NDArray[np.uint8]:
    """Draw a grid of the picture, squashed to `size` pixels, and 15 views, as one picture.

    Raises DataError or OSError if the picture can't be decoded, SpecError for a wrong size.
    """
    if not 1 <= size <= MOST_SIZE:
        raise SpecError(f"size is from 1 to {MOST_SIZE:,} pixels a view; got {size}.")
    check_seed(seed)
    square = ImageInput(size, size, fit="squash")(decode(picture))
    return view_grid(square, augment, seed=seed)


def cells_of(grid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the 16 pictures of a grid, row by row: (16, S, S, 3)."""
    wide = np.pad(grid, ((0, GAP), (0, GAP), (0, 0)))
    step = len(wide) // 4
    cells = wide.reshape(4, step, 4, step, 3).swapaxes(1, 2).reshape(16, step, step, 3)
    return np.ascontiguousarray(cells[:, :-GAP, :-GAP])
