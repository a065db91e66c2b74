"""From a file's bytes to pixels: the one decode function, for everything."""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from headstart.data.archives import read_member
from headstart.errors import DataError

VERSION = 1  # raise it when the same bytes would give other pixels: stored features depend on it
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
)
MAX_PIXELS = 64_000_000  # 192 MB as RGB; a 20 kB PNG can claim any number
FREE_PIXELS = 16_000_000  # that a file may claim however small it is; beyond it, no more than
PIXELS_PER_BYTE = 800  # times its bytes: a blank scan has some 700, a picture 0.5 to 50
MAX_BYTES = 1_000_000_000  # of a file; many pages fit, a disk image under a wrong name does not
BAND_PIXELS = 4_000_000  # converted at a time, so that a large picture isn't held several times
DCT_SCALES = (8, 4, 2)  # 1/n of a JPEG; other fractions shift the picture

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB


def decode(source: Path | bytes, *, short_side: int | None = None) -> Pixels:
    """The first frame as RGB, upright, alpha laid on white: (H, W, 3) uint8.

    What the file is, its content says, not its name; JPEG, PNG, WebP, GIF, BMP and TIFF are read.
    16-bit and floating-point pictures are scaled to 0..255 rather than clipped (`_to_bytes`).
    With `short_side`, a JPEG may come back at 1/2, 1/4 or 1/8 of its size, cheaply from its
    DCT coefficients, so long as its shorter side keeps at least twice that many pixels.

    Raises DataError, with the reason in a phrase, for anything that is not such a picture, is
    truncated, has more than MAX_PIXELS or claims too many for its few bytes; OSError when the
    file cannot be read at all.
    """
    data = source if isinstance(source, bytes) else read_file(Path(source))
    if not data:
        raise DataError("the file is empty (0 bytes)")
    _hush_pillow()
    try:
        pixels, turned = _decode(data, short_side)
        return _upright(pixels, turned)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"not a picture in a format read here ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"claims more than {MAX_PIXELS / 1e6:.0f} million pixels") from None
    except Exception as error:  # hostile bytes reach deep into the parsers: any error is the file's
        raise DataError(f"cannot be decoded: {_phrase(error)}") from error


def sniffed(path: Path) -> bool:
    """Whether the first bytes are those of a format that `decode` reads."""
    with open(path, "rb") as f:
        head = f.read(16)
    starts = (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n",
        b"GIF8",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"II+\0",
        b"MM\0+",
    )
    return head.startswith(starts) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_file(path: Path) -> bytes:
    """The bytes of a file that may be a picture; DataError if it has more than MAX_BYTES.

    A path below a file names one of the pictures that this file holds (`archives.read_member`).
    """
    try:
        size = path.stat().st_size
    except (NotADirectoryError, FileNotFoundError):  # the latter on Windows
        if path.parent.is_file():
            return read_member(path)
        raise
    if size > MAX_BYTES:
        raise DataError(f"the file is too large ({size / 1e9:.1f} GB)")
    return path.read_bytes()


def _decode(data: bytes, short_side: int | None) -> tuple[Pixels, int]:
    """The pixels as they are stored, and the EXIF orientation that says how they were turned."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if not width * height:
            raise DataError("has no pixels")
        if width * height > MAX_PIXELS:
            raise DataError(
                f"has {width}x{height} pixels, more than {MAX_PIXELS / 1e6:.0f} million"
            )
        if width * height > max(FREE_PIXELS, PIXELS_PER_BYTE * len(data)):
            raise DataError(f"claims {width}x{height} pixels in only {len(data)} bytes")
        if image.format in ("JPEG", "MPO"):
            scale = _dct_scale(min(width, height), short_side)
            turned = _orientation(image)
            pixels = _fast_jpeg(data, image, scale)
            if pixels is None:
                if scale > 1:
                    image.draft(image.mode, (width // scale, height // scale))
                pixels = _to_rgb(image)
            return pixels, turned
        image.load()  # TIFF turns itself upright here and then says so
        return _to_rgb(image), _orientation(image)


def _dct_scale(shorter: int, short_side: int | None) -> int:
    if short_side is None:
        return 1
    # twice: the resize that follows then hides the difference (0.4 of 255 levels, else 1.1)
    return next((n for n in DCT_SCALES if shorter // n >= 2 * short_side), 1)


def _fast_jpeg(data: bytes, image: Image.Image, scale: int) -> Pixels | None:
    """libjpeg-turbo straight into an array: the bytes that Pillow gives, sooner; None if it can't.

    A file that is damaged or unusual in any way is left to Pillow, which then has the last word.
    """
    if image.mode not in ("RGB", "L"):
        return None
    try:
        import simplejpeg
    except ImportError:
        return None
    width, height = image.size
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height // scale), min_width=-(-width // scale)
        )
    except ValueError:
        return None
    return pixels


def _to_rgb(image: Image.Image) -> Pixels:
    grey = image.mode[0] in "IF"  # I, I;16, I;16B, F
    low, high = _range(image) if grey else (0.0, 255.0)
    out = np.empty((image.height, image.width, 3), np.uint8)
    for top, band in _bands(image):
        rows = out[top : top + band.height]
        rows[:] = _to_bytes(np.asarray(band), low, high)[:, :, None] if grey else _flat(band)
    return out


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in bands of some rows, from the top, each with its first row's number."""
    step = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, step):
        box = (0, top, image.width, min(top + step, image.height))
        yield top, image.crop(box) if step < image.height else image


def _flat(image: Image.Image) -> Pixels:
    if image.has_transparency_data:
        on_white = Image.new("RGBA", image.size, "white")
        on_white.alpha_composite(image.convert("RGBA"))
        image = on_white
    return np.asarray(image.convert("RGB"))


def _range(image: Image.Image) -> tuple[float, float]:
    """Which values of more than 8 bits are black and white, by what their type or they tell.

    16-bit: 65535 is white. 32-bit integers and floats carry no range, so the smallest usual one
    that holds all values is taken: 0..1 (floats only), 0..255, 0..65535, or else min..max.
    """
    low, high = np.inf, -np.inf
    for _, band in _bands(image):
        values = np.asarray(band)
        if not np.isfinite(values).all():
            raise DataError("holds values that are not finite numbers")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if image.mode.startswith("I;16") or image.format == "PNG":  # older Pillows call PNG's 16 bits I
        return 0.0, 65535.0
    if low < 0:
        return low, high
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    return 0.0, next((top for top in usual if high <= top), high)


def _to_bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scale = 255.0 / ((high - low) or 1.0)
    return np.rint((values.astype(np.float64) - low) * scale).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo what EXIF tag 0x0112 says was done (CIPA DC-008, table 'Orientation')."""
    turned = np.ascontiguousarray(pixels).view("V3")[..., 0]  # whole pixels move 3 times as fast
    if orientation in (5, 6, 7, 8):
        turned = turned.T
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned).view(np.uint8).reshape(*turned.shape, 3)


def _hush_pillow() -> None:
    """Bomb warnings become errors; what Pillow says of odd metadata is not repeated a file.

    The list of filters is the process's own and changing it is not safe in threads, so it is
    touched only when ours are not in it: at first, and after a `catch_warnings` has put it back.
    """
    if _BOMBS not in warnings.filters:
        warnings.filterwarnings("ignore", module="PIL", category=UserWarning)
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


_BOMBS = ("error", None, Image.DecompressionBombWarning, None, 0)


def _phrase(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200]
