"""Pictures made on the spot: a photograph-like one, and one picture saved in 24 ways."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# What Pillow must do to a picture so that its EXIF orientation turns it upright again.
TURNED: dict[int, Image.Transpose | None] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def photo(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Something like a photograph, RGB: coarse colours, fine grain, a few edges."""
    pixels = np.full((height, width, 3), 128.0)
    for cells in (2, 4, 8, 16, 32, 64):
        light = rng.normal(0, 60 / cells**0.5, (cells, cells, 1))
        colour = rng.normal(0, 20 / cells**0.5, (cells, cells, 3))
        grain = (128 + light + colour).clip(0, 255).astype(np.uint8)
        layer = Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC)
        pixels += np.asarray(layer) - 128.0
    for _ in range(4):
        top, left = rng.integers(0, height), rng.integers(0, width)
        pixels[top : top + height // 3, left : left + width // 3] += rng.normal(0, 30)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def variants(image: Image.Image) -> dict[str, bytes]:
    """The same picture saved in 24 ways: name -> file.

    Names with "grey" hold its grey levels only. All decode to within a few levels of it: exactly
    where nothing is lost, within 1 where it shines through from white, else as JPEG or a palette
    of 256 colours allow.
    """
    rgb, grey = image.convert("RGB"), image.convert("L")
    black = Image.new("RGB", rgb.size)
    pages: dict[str, object] = {"save_all": True, "append_images": [black, rgb.rotate(180)]}
    film = pages | {"duration": 100}
    levels = np.asarray(grey)
    wide = Image.fromarray(levels.astype(np.uint16) * 257)
    unit = Image.fromarray(levels.astype(np.float32) / 255)
    floats = Image.fromarray(levels.astype(np.float32))
    integers = Image.fromarray(levels.astype(np.int32))
    found = {
        "png": saved(rgb, "PNG"),
        "png grey": saved(grey, "PNG"),
        "png grey 16 bits": saved(wide, "PNG"),
        "png palette": saved(rgb.quantize(256), "PNG"),
        "png palette over white": _palette_over_white(rgb),
        "png over white": saved(over_white(rgb), "PNG"),
        "png grey over white": saved(over_white(grey), "PNG"),
        "png turned 5": turned(rgb, 5, "PNG"),
        "png grey turned 8": turned(grey, 8, "PNG"),
        "png animated": saved(rgb, "PNG", **film),
        "jpeg": saved(rgb, "JPEG", quality=95, subsampling=0),
        "jpeg progressive turned 2": turned(rgb, 2, "JPEG", quality=95, progressive=True),
        "jpeg grey turned 3": turned(grey, 3, "JPEG", quality=95),
        "jpeg cmyk turned 6": turned(rgb.convert("CMYK"), 6, "JPEG", quality=95, subsampling=0),
        "webp": saved(rgb, "WEBP", lossless=True),
        "webp animated": saved(rgb, "WEBP", lossless=True, **film),
        "gif": saved(rgb.quantize(256), "GIF"),
        "gif animated": saved(rgb.quantize(256), "GIF", **film),
        "bmp": saved(rgb, "BMP"),
        "tiff pages": saved(rgb, "TIFF", compression="tiff_lzw", **pages),
        "tiff grey 16 bits": saved(wide, "TIFF"),
        "tiff grey float 0..1": saved(unit, "TIFF"),
        "tiff grey float 0..255 turned 4": turned(floats, 4, "TIFF"),
        "tiff grey integers turned 7": turned(integers, 7, "TIFF"),
    }
    assert len(found) == 24
    return found


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of the file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(image: Image.Image, orientation: int, format: str, **options: object) -> bytes:
    """Saved lying on its side or mirrored, with the EXIF orientation that says so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = TURNED[orientation]
    return saved(image if how is None else image.transpose(how), format, exif=exif, **options)


def over_white(image: Image.Image) -> Image.Image:
    """As transparent as it can be (RGB -> RGBA, L -> LA) and still look the same on white."""
    pixels = np.asarray(image)
    colours, alpha = _unblended(pixels.reshape(*pixels.shape[:2], -1))
    return Image.fromarray(np.concatenate([colours, alpha], axis=-1))


def _palette_over_white(image: Image.Image) -> bytes:
    flat = image.quantize(256)
    colours, alpha = _unblended(np.array(flat.getpalette(), np.uint8).reshape(-1, 3))
    flat.putpalette(colours.tobytes())
    return saved(flat, "PNG", transparency=alpha.tobytes())


def _unblended(seen: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours (..., C), alpha (..., 1): seen on white as 255 + alpha (colour - 255) / 255."""
    dark = 255.0 - seen
    alpha = np.maximum(dark.max(axis=-1, keepdims=True), 1.0)
    colours = 255.0 - dark * 255.0 / alpha
    return np.rint(colours).astype(np.uint8), alpha.astype(np.uint8)
