"""Draw a picture with augmented views, to check an augmentation by eye."""

from pathlib import Path

from headstart.base.atomic import write_bytes
from headstart.base.errors import SpecError
from headstart.base.values import check_seed
from headstart.modalities.images.augment import Augment, png, view_grid
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.inputs import ImageInput

MOST_SIZE = 2048  # pixels of a view in a grid of 16, which then takes 200 MB


def draw_views(
    picture: Path, out: Path, augment: Augment, *, size: int = 224, seed: int = 0
) -> None:
    """Write a PNG grid of the picture, squashed to `size` pixels, and 15 views.

    Raises DataError or OSError if the picture can't be decoded, SpecError for a wrong size.
    """
    if not 1 <= size <= MOST_SIZE:
        raise SpecError(f"size is from 1 to {MOST_SIZE:,} pixels a view; got {size}.")
    check_seed(seed)
    square = ImageInput(size, size, fit="squash")(decode(picture))
    write_bytes(out, png(view_grid(square, augment, seed=seed)))
