"""TIFF 6.0: read the layout of a file, and decode layouts that Pillow reads wrongly or not at all.

Pillow unpacks samples of more than 8 bits with errors that depend on byte order, compression and
planes. Pillow reads single bytes right, so here it decompresses such layouts as bytes, and this
module joins the bytes to samples. Layouts that neither way reads right are refused.
"""

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from headstart.base.errors import DataError
from headstart.modalities.images.levels import check_finite, to_levels, usual_range

BAND_VALUES = 8_000_000  # converted at a time, so that a large picture isn't held several times
MAX_SAMPLES = 10_000  # per pixel; multispectral sensors have hundreds
MAX_PAGES = 10_000  # counted in a file
OF_ANOTHER = 1 | 4  # bits of SUBFILE: a smaller copy, or a mask, of another picture of the file
MAX_VALUE_BYTES = 768_000_000  # of samples before scaling; 64 million pixels of 3 x 32 bits


class Tag(IntEnum):
    """The tags that describe how samples are stored; all others are skipped."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIPS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS = 278
    STRIP_BYTES = 279
    PLANAR = 284
    PREDICTOR = 317
    COLORMAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILES = 324
    TILE_BYTES = 325
    SUBIFDS = 330
    INKS = 332
    EXTRA = 338
    FORMAT = 339
    DEPTH = 32997
    SUBSAMPLING = 530
    DNG = 50706


WANTED = frozenset(Tag)
INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # tag types
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
PHOTOMETRICS = {
    **{MIN_IS_WHITE: "min-is-white grey", MIN_IS_BLACK: "grey", RGB: "RGB", PALETTE: "palette"},
    **{4: "mask", CMYK: "CMYK", YCBCR: "YCbCr", LAB: "CIE L*a*b*", 9: "ICC L*a*b*"},
    **{10: "ITU L*a*b*", 32844: "LogL", 32845: "LogLuv"},
}
RAW = {32803, 34892}  # photometrics of a sensor's values
COLOURS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
UINT, INT, FLOAT = 1, 2, 3
FORMATS = {UINT: "unsigned integers", INT: "signed integers", FLOAT: "floats"}
COMPRESSIONS = {
    **{1: "no compression", 2: "CCITT RLE", 3: "CCITT group 3", 4: "CCITT group 4", 5: "LZW"},
    **{6: "old-style JPEG", 7: "JPEG", 8: "deflate", 32771: "CCITT RLE", 32773: "PackBits"},
    **{32946: "deflate", 34925: "LZMA", 50000: "ZSTD", 50001: "WebP", 34887: "LERC"},
    **{33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000"},
    **{34676: "SGI LogLuv", 34677: "SGI LogLuv", 50002: "JPEG XL", 52546: "JPEG XL"},
    **{34934: "JPEG XR", 22610: "JPEG XR", 34892: "lossy JPEG of Tag.DNG", 34933: "PNG"},
}
OF_BYTES = {1, 5, 8, 32946, 32773, 34925, 50000}  # compressions of bytes, whatever the samples
BY_PILLOW = OF_BYTES | {2, 3, 4, 6, 7, 50001}
ASSOCIATED, UNASSOCIATED = 1, 2  # ExtraSamples: colours premultiplied by alpha, or not

Values = NDArray[Any]  # (H, W, samples)


@dataclass(frozen=True)
class TiffLayout:
    """How the samples of one picture of a TIFF file are stored."""

    order: str  # < or >
    big: bool  # BigTIFF
    tags: Mapping[int, NDArray[np.integer]]
    at: int = 0  # where its directory is, in bytes
    following: int = 0  # where the directory of the next picture is, in bytes; 0 for none

    @property
    def last(self) -> bool:
        """Whether no other picture follows."""
        return not self.following

    def first(self, tag: int, default: int = 0) -> int:
        values = self.tags.get(tag)
        return int(values[0]) if values is not None and len(values) else default

    def all(self, tag: int) -> tuple[int, ...]:
        return tuple(int(value) for value in self.tags.get(tag, ())[:MAX_SAMPLES])

    @property
    def size(self) -> tuple[int, int]:
        return self.first(Tag.WIDTH), self.first(Tag.HEIGHT)

    @property
    def samples(self) -> int:
        return self.first(Tag.SAMPLES, 1)

    @property
    def photometric(self) -> int:
        return self.first(Tag.PHOTOMETRIC, MIN_IS_WHITE)

    @property
    def compression(self) -> int:
        return self.first(Tag.COMPRESSION, 1)

    @cached_property
    def bits(self) -> int:
        """Bits per sample, 0 if samples differ."""
        return self._of_samples(Tag.BITS, 1)

    @cached_property
    def format(self) -> int:
        """Format of a sample (UINT, INT, FLOAT, …), 0 if samples differ."""
        return self._of_samples(Tag.FORMAT, UINT)

    def _of_samples(self, tag: int, default: int) -> int:
        values = set(self.all(tag)[: self.samples]) or {default}
        return values.pop() if len(values) == 1 else 0

    @property
    def planes(self) -> bool:
        """Whether each sample has its own strips or tiles."""
        return self.first(Tag.PLANAR, 1) == 2 and self.samples > 1

    @property
    def extra(self) -> tuple[int, ...]:
        """Kinds of the samples after the colours: 0 (unspecified), ASSOCIATED or UNASSOCIATED."""
        more = self.samples - COLOURS.get(self.photometric, self.samples)
        stated = self.all(Tag.EXTRA)[: max(0, more)]
        # RGB of four samples without ExtraSamples: all readers take the fourth for alpha
        default = UNASSOCIATED if self.photometric == RGB and more == 1 else 0
        return stated + (default,) * (more - len(stated))

    @cached_property
    def byte_palette(self) -> bytes:
        """RGB of a palette with 8-bit values where 16-bit ones belong, or b""; libtiff, and with it
        most readers, recognises such a palette by its largest value."""
        colours = self.tags.get(Tag.COLORMAP)
        if self.photometric != PALETTE or colours is None or len(colours) % 3:
            return b""
        if colours.max(initial=0) > 255:
            return b""
        return colours.reshape(3, -1).T.astype(np.uint8).tobytes()

    @property
    def is_raw(self) -> bool:
        """Whether this is a camera's raw file, whose first picture is a thumbnail at most."""
        thumbnail = self.first(Tag.SUBFILE) & 1 and (Tag.SUBIFDS in self.tags or not self.last)
        return bool(Tag.DNG in self.tags or self.photometric in RAW or thumbnail)

    def __str__(self) -> str:
        what = f"{self.bits}-bit {FORMATS.get(self.format, 'samples')}"
        if not self.bits or not self.format:
            what = "samples of different kinds"
        elif self.format in (5, 6):
            what = "complex numbers"
        how = COMPRESSIONS.get(self.compression, f"compression {self.compression}")
        colour = PHOTOMETRICS.get(self.photometric, f"photometric {self.photometric}")
        planes = " in planes" if self.planes else ""
        order = "little-endian" if self.order == "<" else "big-endian"
        name = "BigTIFF" if self.big else "TIFF"
        return f"a {name} of {colour}, {self.samples} x {what}{planes}, {how}, {order}"


def pages(data: bytes) -> int:
    """Return how many pictures a TIFF holds; smaller copies and masks of others don't count."""
    layout, seen, found = read_layout(data), set[int](), 0
    while layout.at not in seen and len(seen) < MAX_PAGES:
        seen.add(layout.at)
        found += not layout.first(Tag.SUBFILE) & OF_ANOTHER
        if not layout.last:
            layout = read_layout(data, layout.following)
    return found


def read_layout(data: bytes, at: int = 0) -> TiffLayout:
    """Read the tags of a picture of a TIFF or BigTIFF; raises DataError.

    at: where its directory is, in bytes; 0 for the first picture.
    """
    order, big = "<" if data[:2] == b"II" else ">", 43 in data[2:4]
    count, entry, pointer = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    try:
        if not at:
            (at,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
        (n,) = struct.unpack_from(order + count, data, at)
        entries = struct.Struct(order + entry)
        first = at + struct.calcsize(order + count)
        if n > 65_535 or first + n * entries.size > len(data):
            raise DataError("a TIFF whose directory is cut short or damaged")
        end = first + n * entries.size
        tags, taken = {}, 0
        for tag, kind, many, value in entries.iter_unpack(data[first:end]):
            size = many * SIZES.get(kind, 8)
            taken += min(size, len(data)) if size > 8 else 0  # up to 8 lie in the entry
            if tag in WANTED and kind in INTEGERS:
                tags[tag] = _values(data, order, INTEGERS[kind], many, value)
    except (struct.error, ValueError, OverflowError):
        raise DataError("a TIFF that is cut short or damaged") from None
    if taken > 4 * len(data) + 16_000_000:  # Pillow copies each tag when it opens the file
        raise DataError(f"a TIFF of {len(data):,} bytes whose tags claim {taken:,}")
    following = int.from_bytes(
        data[end : end + struct.calcsize(pointer)], "little" if order == "<" else "big"
    )
    layout = TiffLayout(order, big, tags, at, following)
    if not 0 < layout.samples <= MAX_SAMPLES:
        raise DataError(f"a damaged TIFF (it claims {layout.samples:,} samples a pixel)")
    return layout


def _values(data: bytes, order: str, kind: str, many: int, value: bytes) -> NDArray[np.integer]:
    dtype = np.dtype(order + kind)
    size = many * dtype.itemsize
    if size <= len(value):
        return np.frombuffer(value[:size], dtype)
    at = int.from_bytes(value, "little" if order == "<" else "big")
    return np.frombuffer(data[at : at + size][: size // dtype.itemsize * dtype.itemsize], dtype)


def by_pillow(layout: TiffLayout) -> bool:
    """Return whether Pillow is known to read this layout right; none of more than 8 bits is."""
    if layout.format != UINT or layout.bits not in (1, 2, 4, 8) or layout.first(Tag.DEPTH, 1) > 1:
        return False
    if layout.compression not in BY_PILLOW or layout.photometric not in COLOURS:
        return False
    if layout.big and layout.order == ">":
        return False
    extra, byte = layout.extra, layout.bits == 8
    if layout.samples < COLOURS[layout.photometric]:
        return layout.compression in (6, 7)  # YCbCr of one sample
    if layout.photometric in (MIN_IS_BLACK, MIN_IS_WHITE, PALETTE):
        alike = layout.photometric != MIN_IS_WHITE and byte and not layout.planes
        return not extra or (alike and extra in ((0,), (UNASSOCIATED,)))
    if layout.photometric == YCBCR and layout.compression == 1:
        return False  # Pillow assumes a Cb and Cr for every pixel
    if layout.photometric == CMYK:
        return byte and layout.first(Tag.INKS, 1) == 1 and set(extra) <= {0} and not layout.planes
    return byte and len(extra) <= 3 and set(extra[1:]) <= {0} and not (extra and layout.planes)


def is_put_together(layout: TiffLayout) -> bool:
    """Return whether `read_levels` reads this layout."""
    if layout.photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB, CMYK, YCBCR):
        return False
    if layout.compression not in OF_BYTES or layout.first(Tag.DEPTH, 1) > 1:
        return False
    predictor = layout.first(Tag.PREDICTOR, 1) if layout.compression != 1 else 1
    known = {UINT: {*range(8, 17), 32, 64}, INT: {8, 16, 32, 64}, FLOAT: {16, 32, 64}}
    if layout.bits not in known.get(layout.format, ()):
        return False
    if predictor not in (1, 2, 3) or (predictor == 3) > (layout.format == FLOAT):
        return False
    if layout.bits % 8 and (predictor > 1 or layout.photometric == CMYK):
        return False
    if layout.first(Tag.FILL_ORDER, 1) != 1 and layout.bits > 8:
        return False
    return _colours_are_known(layout)


def _colours_are_known(layout: TiffLayout) -> bool:
    extra, photometric = layout.extra, layout.photometric
    if layout.samples < COLOURS[photometric] or set(extra[1:]) - {0} or set(extra) - {0, 1, 2}:
        return False
    if photometric == CMYK:
        return layout.first(Tag.INKS, 1) == 1 and not any(extra) and layout.format == UINT
    if photometric == RGB:
        return True
    if photometric == YCBCR:
        whole = layout.all(Tag.SUBSAMPLING) == (1, 1) and layout.compression == 1
        return whole and layout.format == UINT and layout.bits == 8 and not extra
    return len(extra) <= 1  # more bands are a multispectral picture


def why_not(layout: TiffLayout) -> str:
    """Return the message for a layout that neither Pillow nor `read_levels` reads right."""
    if layout.photometric in (MIN_IS_BLACK, MIN_IS_WHITE) and layout.samples > 2:
        return (
            f"{layout}: {layout.samples} bands that are not said to be colours; save three as RGB"
        )
    return f"{layout}: this layout is not read; save it as 8-bit grey or RGB"


def read_levels(data: bytes, layout: TiffLayout) -> tuple[str, NDArray[np.uint8]]:
    """Return Pillow's mode (L, RGB, CMYK, YCbCr, RGBA, RGBa) and the levels (H, W, C) of a picture.

    More than 8 bits become 8: of RGB and CMYK integers the upper 8 are kept, as in Pillow; grey is
    rounded, and numbers without a range of their own are scaled (`levels.usual_range`).
    """
    width, height = layout.size
    stored = width * height * layout.samples * math.ceil(layout.bits / 8)
    if stored > min(MAX_VALUE_BYTES, max(64_000_000, 800 * len(data))):
        raise DataError(f"claims {stored / 1e6:,.0f} MB of samples in only {len(data):,} bytes")
    colours = COLOURS[layout.photometric]
    alpha = next(iter(layout.extra), 0)
    values = _samples(data, layout, colours + bool(alpha))
    low, high = _range(values[..., :colours], layout)
    levels = np.empty(values.shape, np.uint8)
    step = max(1, BAND_VALUES // (width * values.shape[2]))
    for top in range(0, height, step):
        band, out = values[top : top + step], levels[top : top + step]
        out[..., :colours] = _levels(band[..., :colours], layout, low, high)
        if alpha:
            out[..., colours:] = _alpha(band[..., colours:], layout)
    if not alpha:
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[colours]
        return ("YCbCr" if layout.photometric == YCBCR else mode), levels
    if colours == 1:
        levels = np.ascontiguousarray(levels[..., [0, 0, 0, 1]])
    return "RGBa" if alpha == ASSOCIATED else "RGBA", levels


def _range(colours: Values, layout: TiffLayout) -> tuple[float, float]:
    """Return the values of black and white; raises DataError for numbers that are not finite."""
    if layout.format == UINT and layout.bits <= 16:
        return 0.0, 2.0**layout.bits - 1
    low, high = np.inf, -np.inf
    for row in range(0, len(colours), 256):
        band = colours[row : row + 256]
        check_finite(band)
        low, high = min(low, float(band.min())), max(high, float(band.max()))
    return usual_range(low, high, floats=layout.format == FLOAT)


def _levels(band: Values, layout: TiffLayout, low: float, high: float) -> NDArray[np.uint8]:
    if layout.format == UINT and layout.bits == 16 and layout.photometric in (RGB, CMYK):
        return (band >> 8).astype(np.uint8)
    levels = to_levels(band, low, high)
    return 255 - levels if layout.photometric == MIN_IS_WHITE else levels


def _alpha(band: Values, layout: TiffLayout) -> NDArray[np.uint8]:
    if layout.format == UINT and layout.bits in (8, 16):
        return (band >> (layout.bits - 8)).astype(np.uint8)
    white = 1.0 if layout.format == FLOAT else 2.0 ** (layout.bits - (layout.format == INT)) - 1
    check_finite(band)
    if band.min() < 0 or band.max() > white:
        raise DataError(f"{layout}: its alpha must lie between 0 and {white:g}")
    return to_levels(band, 0.0, white)


def _samples(data: bytes, layout: TiffLayout, wanted: int) -> Values:
    """Return the first `wanted` samples of every pixel, (H, W, wanted), in native byte order."""
    (width, height), (wide, high) = layout.size, _segment_size(layout)
    kind = {UINT: "u", INT: "i", FLOAT: "f"}[layout.format]
    values = np.empty((height, width, wanted), f"{kind}{math.ceil(layout.bits / 8)}")
    each, planes = (1, wanted) if layout.planes else (layout.samples, 1)
    places = (  # lazily: a damaged file may claim millions
        (plane, top, left)
        for plane in range(planes)
        for top in range(0, height, high)
        for left in range(0, width, wide)
    )
    for number, (plane, top, left) in enumerate(places):
        rows = high if Tag.TILE_WIDTH in layout.tags else min(high, height - top)
        raw = _bytes(data, layout, number, rows, math.ceil(wide * each * layout.bits / 8))
        part = _unpredicted(raw, layout, (rows, wide, each))[: height - top, : width - left]
        to = slice(plane, plane + 1) if layout.planes else slice(0, wanted)
        values[top : top + high, left : left + wide, to] = part[..., : to.stop - to.start]
    return values


def _segment_size(layout: TiffLayout) -> tuple[int, int]:
    """Return width and height of a strip or tile."""
    width, height = layout.size
    if Tag.TILE_WIDTH not in layout.tags:
        return width, min(layout.first(Tag.ROWS, height) or height, height)
    wide, high = layout.first(Tag.TILE_WIDTH), layout.first(Tag.TILE_HEIGHT)
    if not 0 < wide * high <= 4 * width * height + 1_000_000:
        raise DataError(f"a TIFF of {width}x{height} pixels in tiles of {wide}x{high}")
    return wide, high


def _bytes(data: bytes, layout: TiffLayout, number: int, rows: int, row: int) -> NDArray[np.uint8]:
    """Return the decompressed bytes of one strip or tile, (rows, bytes of a row)."""
    tiled = Tag.TILE_WIDTH in layout.tags
    offsets, sizes = (Tag.TILES, Tag.TILE_BYTES) if tiled else (Tag.STRIPS, Tag.STRIP_BYTES)
    starts, counts = layout.tags.get(offsets), layout.tags.get(sizes)
    if starts is None or number >= len(starts) or (counts is not None and number >= len(counts)):
        raise DataError("a TIFF whose strips or tiles are not all there")
    start, size = int(starts[number]), rows * row
    packed = data[start : start + (size if counts is None else int(counts[number]))]
    if layout.compression == 1 and layout.first(Tag.FILL_ORDER, 1) == 1:
        if len(packed) < size:
            raise DataError("a TIFF that is cut short (its last samples are missing)")
        return np.frombuffer(packed, np.uint8, size).reshape(rows, row)
    return _unpacked(packed, layout, rows, row)


def _unpacked(packed: bytes, layout: TiffLayout, rows: int, row: int) -> NDArray[np.uint8]:
    """Decompress a strip by Pillow, as the only strip of an 8-bit grey TIFF."""
    tags = {
        **{Tag.WIDTH: row, Tag.HEIGHT: rows, Tag.BITS: 8, Tag.COMPRESSION: layout.compression},
        **{
            Tag.PHOTOMETRIC: MIN_IS_BLACK,
            Tag.FILL_ORDER: layout.first(Tag.FILL_ORDER, 1),
            Tag.STRIPS: 0,
            Tag.SAMPLES: 1,
        },
        **{Tag.ROWS: rows, Tag.STRIP_BYTES: len(packed)},
    }
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    entries[list(tags).index(Tag.STRIPS)] = struct.pack("<HHII", Tag.STRIPS, 4, 1, start)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(entries) + bytes(4)
    try:
        with TiffImagePlugin.TiffImageFile(io.BytesIO(head + packed)) as image:
            return np.asarray(image)
    except OSError:
        how = COMPRESSIONS[layout.compression]
        unknown = f", or this Pillow was built without {how}" if how in ("LZMA", "ZSTD") else ""
        raise DataError(f"a TIFF that is cut short or damaged ({how}){unknown}") from None


def _unpredicted(raw: NDArray[np.uint8], layout: TiffLayout, shape: tuple[int, int, int]) -> Values:
    """Turn bytes (rows, bytes of a row) into samples of this shape, and undo the predictor."""
    size, kind = layout.bits // 8, {UINT: "u", INT: "i", FLOAT: "f"}[layout.format]
    rows, wide, each = shape
    predictor = layout.first(Tag.PREDICTOR, 1) if layout.compression != 1 else 1
    if layout.bits % 8:
        return _packed_bits(raw, layout.bits, shape)
    if predictor == 3:  # bytes grouped by significance, highest first (Adobe's TechNote 3)
        summed = np.cumsum(raw.reshape(rows, -1, each), axis=1, dtype=np.uint8)
        bytewise = summed.reshape(rows, size, wide * each).swapaxes(1, 2)
        return np.ascontiguousarray(bytewise).view(f">{kind}{size}").reshape(shape)
    values = np.ascontiguousarray(raw).view(f"{layout.order}u{size}").reshape(shape)
    if predictor == 2:
        values = np.cumsum(values, axis=1, dtype=f"u{size}")
    return values.view(values.dtype.str.replace("u", kind))


def _packed_bits(raw: NDArray[np.uint8], bits: int, shape: tuple[int, int, int]) -> Values:
    """Unpack samples of 9 to 15 bits, highest bit first; rows are padded to whole bytes."""
    rows, wide, each = shape
    values = np.empty((rows, wide * each), np.uint16)
    for top in range(0, rows, step := max(1, 1_000_000 // raw.shape[1])):
        ones = np.unpackbits(raw[top : top + step], axis=1)[:, : wide * each * bits]
        weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
        values[top : top + step] = ones.reshape(-1, wide * each, bits) @ weights
    return values.reshape(shape)
