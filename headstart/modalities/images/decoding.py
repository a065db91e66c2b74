"""Decode the bytes of a picture file to pixels: the only place that does so."""

import io
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from headstart.base.errors import DataError
from headstart.base.store import digest
from headstart.data import zip_files
from headstart.modalities.images import dicom, formats, heif, jpeg, jpeg2000, png, tiff
from headstart.modalities.images.archives import read_member
from headstart.modalities.images.levels import to_levels

VERSION = 1  # raise it when the same bytes would give other pixels: stored features depend on it
MAX_PIXELS = 64_000_000  # 192 MB as RGB; a 20 kB PNG can claim any number
FREE_PIXELS = 16_000_000  # that a file of any size may claim
PIXELS_PER_BYTE = 800  # limit of larger claims; a blank scan has some 700, a picture 0.5 to 50
MAX_BYTES = 1_000_000_000  # of a file; enough for many pages, too few for a misnamed disk image
BAND_PIXELS = 4_000_000  # converted at a time, so that a large picture isn't held several times
DCT_SCALES = (8, 4, 2)  # 1/n of a JPEG; other fractions shift the picture

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB


def decode(source: Path | bytes, *, short_side: int | None = None) -> Pixels:
    """Decode the first frame or page as RGB, upright, alpha blended on white: (H, W, 3) uint8.

    The content decides the format, not the name: one of `formats.READ`, of which HEIC and DICOM
    need an extra. Integers of more than 8 bits and floats are scaled to 0..255 rather than clipped
    (`levels.usual_range`; DICOM: `dicom.read_levels`). Colour profiles and gamma are not applied.

    short_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, cheaply from its DCT
    coefficients, as long as its shorter side keeps at least twice this many pixels.

    Raises DataError, with the reason in a phrase, for any other file, and for a picture that is
    truncated, has a layout not known to be read right, has more than MAX_PIXELS or claims too many
    for its bytes; OSError if the file cannot be read.
    """
    data = source if isinstance(source, bytes) else read_file(Path(source))
    if not data:
        raise DataError("the file is empty (0 bytes)")
    head = data[: formats.HEAD_BYTES]
    kind = formats.readable(head)
    if not kind:
        what, read = formats.described(head), ", ".join(formats.READ)
        other = f"not a picture in a format read here ({read})"
        raise DataError(formats.refusal(what) if what else other)
    if why := formats.why_missing(kind, head):
        raise DataError(why)
    _hush_libraries()
    try:
        if own := _OWN.get(kind):
            return _upright(*own(data))
        return _upright(*_decode(data, kind, short_side))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"claims more than {MAX_PIXELS / 1e6:.0f} million pixels") from None
    except Exception as error:  # hostile bytes raise any error in the parsers
        raise DataError(f"cannot be decoded: {_reason(data, kind, error)}") from error


def claimed_size(data: bytes) -> tuple[int, int]:
    """Return width and height by a file's header, before orientation, without decoding it.

    (0, 0) if there is no such header, so that `decode` fails too. Raises DataError for a claim of
    more than MAX_PIXELS.
    """
    kind = formats.readable(data[: formats.HEAD_BYTES])
    _hush_libraries()
    for mend in (False, True):
        try:
            if kind in _SIZES:
                return _SIZES[kind](data)
            with Image.open(
                io.BytesIO(_mended(data, kind) if mend else data), formats=(kind,)
            ) as i:
                return i.size
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DataError(f"claims more than {MAX_PIXELS / 1e6:.0f} million pixels") from None
        except Exception:  # hostile bytes raise any error in the parsers
            continue
    return 0, 0


def frames(data: bytes) -> int:
    """Return how many frames or pages a picture file has, of which `decode` reads the first.

    Smaller copies and masks of a TIFF's picture are not counted; 1 if the number is unknown.

    >>> frames(b"not a picture")
    1
    """
    kind = formats.readable(data[: formats.HEAD_BYTES])
    _hush_libraries()
    with suppress(Exception):  # a strange header is no reason to lose the picture
        if kind in _FRAMES:
            return max(1, _FRAMES[kind](data))
        if kind in ANIMATED:
            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                return int(getattr(image, "n_frames", 1))
    return 1


def store_key(data: bytes, file: bytes) -> bytes:
    """Return the store key of values computed from a file's pixels; file: its digest.

    The key is the digest, except for files that used to be decoded to wrong pixels: another key
    skips their stored values without raising VERSION, which would recompute everything.
    """
    kind = formats.readable(data[: formats.HEAD_BYTES])
    if kind == "PNG" and png.has_deep_key(data):
        return digest(file, b"transparent key of 2, 4 or 16 bits")
    if kind == "TIFF":
        try:
            layout = tiff.read_layout(data)
        except DataError:
            return file
        if not tiff.by_pillow(layout) or layout.byte_palette:
            return digest(file, b"TIFF put together from its samples")
    return file


def _reason(data: bytes, kind: str, error: Exception) -> str:
    """Return why Pillow failed; its message is useful only when this format alone is tried."""
    if isinstance(error, UnidentifiedImageError):
        try:
            Image.OPEN[kind][0](io.BytesIO(data), "")
        except Exception as why:
            error = why
        return f"a damaged {kind} ({_phrase(error)})"
    return _phrase(error)


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; raises DataError if it has more than MAX_BYTES or is a pipe.

    A path below a file names one of the pictures in that file (`archives.read_member`, or
    `zip_files.read_member` of a ZIP archive).
    """
    try:
        status = path.stat()
    except (NotADirectoryError, FileNotFoundError):  # the latter on Windows
        if archive := zip_files.archive_of(path):
            return zip_files.read_member(path, archive)
        if path.parent.is_file():
            return read_member(path)
        raise
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        raise DataError("not a file but a pipe, which is never waited for")
    if status.st_size > MAX_BYTES:
        raise DataError(f"the file is too large ({status.st_size / 1e9:.1f} GB)")
    return path.read_bytes()


def _decode(data: bytes, kind: str, short_side: int | None) -> tuple[Pixels, int]:
    """Call `_read`; if it fails, try again without metadata, or with an end marker."""
    if why := _REFUSALS.get(kind, lambda data: "")(data):
        raise DataError(why)
    try:
        return _read(data, kind, short_side)
    except (DataError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:
        with suppress(Exception):  # the first error is the useful one
            return _read(_mended(data, kind), kind, short_side)
        if kind == "JPEG" and (why := jpeg.refusal(data)):
            raise DataError(why) from None
        raise


# Why files of a format are not given to Pillow.
_REFUSALS = {"PNG": png.damage, "JPEG": jpeg.damage, "JPEG2000": jpeg2000.refusal}


def _mended(data: bytes, kind: str) -> bytes:
    """Return the file repaired: without metadata, or with an end marker; b"" if neither helps."""
    if kind == "PNG" and (bare := png.without_metadata(data)) != data:
        return bare
    if kind != "JPEG":
        return b""
    bare = jpeg.without_metadata(data)
    try:
        _check_size(Image.open(io.BytesIO(data), formats=(kind,)).size, len(data))
    except UnidentifiedImageError:
        return bare if bare != data else b""
    return jpeg.with_end(data)


def _check_size(size: tuple[int, int], file_bytes: int) -> None:
    width, height = size
    if not width * height:
        raise DataError("has no pixels")
    if width * height > MAX_PIXELS:
        raise DataError(f"has {width}x{height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")
    if width * height > max(FREE_PIXELS, PIXELS_PER_BYTE * file_bytes):
        raise DataError(f"claims {width}x{height} pixels in only {file_bytes} bytes")


def _read(
    data: bytes, kind: str, short_side: int | None, palette: bytes = b""
) -> tuple[Pixels, int]:
    """Return the stored pixels and their EXIF orientation; palette: RGB, replaces the file's."""
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        width, height = image.size
        _check_size(image.size, len(data))
        if kind == "JPEG":
            scale = _dct_scale(min(width, height), short_side)
            turned = orientation(image)
            pixels = _fast_jpeg(data, image, scale)
            if pixels is None:
                if scale > 1:
                    image.draft(image.mode, (width // scale, height // scale))
                pixels = _to_rgb(image)
            return pixels, turned
        image.load()  # Pillow turns a TIFF upright here and resets its orientation
        if palette and image.mode == "P":
            image.putpalette(palette)
        pixels = _to_rgb(image) if kind != "PNG" else _png_to_rgb(data, image)
        return pixels, orientation(image)


def _decode_tiff(data: bytes) -> tuple[Pixels, int]:
    """Decode a TIFF by Pillow, or from its samples if Pillow is not known to read it right."""
    layout = tiff.read_layout(data)
    if layout.is_raw:
        raise DataError(formats.refusal("a camera's raw picture"))
    _check_size(layout.size, len(data))
    if tiff.by_pillow(layout):
        try:
            return _read(data, "TIFF", None, layout.byte_palette)
        except (OSError, SyntaxError) as error:
            raise DataError(
                f"{layout}, cannot be decoded: {_reason(data, 'TIFF', error)}"
            ) from error
    if not tiff.is_put_together(layout):
        raise DataError(tiff.why_not(layout))
    mode, levels = tiff.read_levels(data, layout)
    image = Image.frombuffer(mode, layout.size, levels, "raw", mode, 0, 1)
    return _to_rgb(image), layout.first(tiff.Tag.ORIENTATION, 1)


def _decode_heif(data: bytes) -> tuple[Pixels, int]:
    picture = heif.open_heif(data)
    _check_size(picture.size, len(data))
    return _to_rgb(heif.upright_image(picture)), 1


def _decode_dicom(data: bytes) -> tuple[Pixels, int]:
    file = dicom.open_dicom(data)
    _check_size(dicom.size(file), len(data))
    levels = dicom.read_levels(file)
    return np.broadcast_to(levels, (*levels.shape[:2], 3)), 1


# Formats that are not decoded by Pillow alone, and the size (width, height) by their headers.
_OWN = {"TIFF": _decode_tiff, "HEIF": _decode_heif, "DICOM": _decode_dicom}
# Formats whose upright size is only sure once they are decoded: a TIFF's directory may be anywhere,
# and Pillow may read it wrongly.
UPRIGHT_BY_DECODING = frozenset(_OWN)
_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "TIFF": lambda data: tiff.read_layout(data).size,
    "HEIF": lambda data: heif.open_heif(data).size,
    "DICOM": lambda data: dicom.size(dicom.open_dicom(data)),
}

ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")  # formats of which Pillow counts the frames
_FRAMES: dict[str, Callable[[bytes], int]] = {
    "TIFF": tiff.pages,
    "HEIF": lambda data: len(heif.open_heif(data)),
    "DICOM": lambda data: dicom.frames(dicom.open_dicom(data)),
}


def _png_to_rgb(data: bytes, image: Image.Image) -> Pixels:
    """Convert a PNG, whose transparent colour Pillow applies to samples of 8 bits only."""
    key = png.key(data)
    if not key:
        return _to_rgb(image)
    depth, colours = png.depth_and_colours(data)
    image.info.pop("transparency", None)
    if depth < 16:
        scaled = tuple(n * 255 // (2**depth - 1) for n in key)
        image.info["transparency"] = scaled if colours == png.RGB else scaled[0]
        return _to_rgb(image)
    pixels = _to_rgb(image)
    grey = colours == png.GREY
    pixels[np.asarray(image) == key[0] if grey else png.shows_key(data, pixels, key)] = 255
    return pixels


def _dct_scale(shorter: int, short_side: int | None) -> int:
    if short_side is None:
        return 1
    # at twice the side, the later resize hides the difference (0.4 of 255 levels, else 1.1)
    return next((n for n in DCT_SCALES if shorter // n >= 2 * short_side), 1)


def _fast_jpeg(data: bytes, image: Image.Image, scale: int) -> Pixels | None:
    """Decode by libjpeg-turbo into an array, faster than Pillow and to the same bytes.

    Returns None without simplejpeg, or for a damaged or unusual file: Pillow then decides.
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
    deep = image.mode[0] == "I"  # 16-bit grey PNG: I;16, in older Pillows I
    out = np.empty((image.height, image.width, 3), np.uint8)
    step = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, step):
        rows = out[top : top + step]
        box = (0, top, image.width, top + len(rows))
        band = image.crop(box) if step < image.height else image
        rows[:] = to_levels(np.asarray(band), 0, 65535)[:, :, None] if deep else _flat(band)
    return out


def _flat(image: Image.Image) -> Pixels:
    if image.has_transparency_data:
        on_white = Image.new("RGBA", image.size, "white")
        on_white.alpha_composite(image.convert("RGBA"))
        image = on_white
    return np.asarray(image.convert("RGB"))


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened picture, 1 for none."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the turn and mirroring of EXIF tag 0x0112 (CIPA DC-008, table 'Orientation')."""
    turned = np.ascontiguousarray(pixels).view("V3")[..., 0]  # whole pixels move 3 times as fast
    if orientation in (5, 6, 7, 8):
        turned = turned.T
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned).view(np.uint8).reshape(*turned.shape, 3)


def _hush_libraries() -> None:
    """Turn Pillow's bomb warnings into errors, and silence warnings about odd metadata.

    All threads share the warning filters, and changing them is not thread-safe. So the filters are
    added only if missing: at first, and after `catch_warnings` has removed them.
    """
    if _BOMBS not in warnings.filters:
        for library in ("PIL", "pydicom"):
            warnings.filterwarnings("ignore", module=library, category=UserWarning)
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


_BOMBS = ("error", None, Image.DecompressionBombWarning, None, 0)


def _phrase(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else f"damaged ({type(error).__name__})"
    return text[:200]
