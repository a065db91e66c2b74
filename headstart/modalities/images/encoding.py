"""Make the bytes of picture files; a PNG holds the pixels unchanged."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headstart.base.errors import DataError

LOSSLESS = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")  # modes of Pillow that a PNG can hold
CHANNELS = (1, 3, 4)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the PNG file of a picture (H, W, 3) uint8 RGB."""
    return encoded(Image.fromarray(pixels))


def encoded_picture(example: Any) -> bytes:
    """Return the PNG file of a PIL image, turned upright, or of an array.

    An array is (H, W), or (H, W, C) with 1, 3 or 4 channels, of uint8. Raises DataError for
    anything else.

    >>> encoded_picture(np.zeros((2, 3), np.uint8))[1:4]
    b'PNG'
    """
    if isinstance(example, Image.Image):
        if example.mode == "F":
            raise DataError(
                "A PIL image of mode F has no range of its own: convert it to RGB or L."
            )
        upright = ImageOps.exif_transpose(example)
        return encoded(upright if upright.mode in LOSSLESS else upright.convert("RGB"))
    if not hasattr(example, "__array__"):
        raise DataError(
            f"A picture is a path, a PIL image or an array; got a {type(example).__name__}."
        )
    array = np.asarray(example)
    if array.dtype != np.uint8 or not _is_picture(array.shape):
        raise DataError(
            f"The array of a picture is (H, W, 3) or (H, W) of uint8, 0 to 255; got "
            f"{array.dtype} of shape {array.shape}."
        )
    return encoded(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array))


def _is_picture(shape: tuple[int, ...]) -> bool:
    return 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in CHANNELS))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Return the file of an image; options: those of Pillow's `save`."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
