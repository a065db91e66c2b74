"""Over 1,100 files of other programs, decoded by `decode` and by other readers.

    python bench/decoding.py [--every 1] [--seed 0]

Pictures are written by tifffile, imagecodecs (libpng, libjpeg-turbo, libwebp, …), pypng, libvips
and byte by byte here: formats x modes x depths x byte orders x compressions x planes x tiles. Each
is read again by an independent reader (tifffile with imagecodecs, libvips, imagecodecs, pypng),
and its samples become the expected levels by the rules that the guide states, written down here a
second time. A file must come out as expected, or be refused with the words that name what it is.
Files that must be refused (formats, kinds and damage that are not read) are among them.

Wrong are other pixels without a word, a refusal without those words, an error that is no
DataError. Needs the extra `dev`.
"""

import io
import re
import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib
from argparse import SUPPRESS
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import png
import pyvips
import tifffile
from harness import Bench
from numpy.typing import NDArray

from headstart.base.errors import DataError
from headstart.base.runtime import peak_rss_bytes
from headstart.modalities.images.decoding import Pixels, decode

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from pictures import photo  # noqa: E402

WIDTH, HEIGHT = 61, 45  # odd, so that rows of less than a byte and partial tiles occur
SLOW_S, LARGE_MB = 2.0, 300.0
MEMORY = "MB, its bytes among them"

Values = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A file, and what must come of it.

    pixels: the levels expected, (H, W, 3), or None if the file must be refused. words: a pattern
    that a refusal has to match. far: levels by which a pixel may be off.
    """

    family: str
    name: str
    data: bytes
    pixels: Values | None
    words: str = r"\Z."  # matches nothing: a refusal is wrong
    far: int = 0


def main() -> None:
    bench = Bench("decoding", __doc__)
    bench.flag("--every", type=int, default=1, quick=5, help="take every so-manieth file")
    bench.flag("--seed", type=int, default=0)
    bench.flag("--large", choices=LARGE, help=SUPPRESS)
    args = bench.arguments()
    warnings.simplefilter("ignore")
    if args.large:
        large_one(args.large, args.seed)
        return
    began = time.perf_counter()
    outcomes = [tried(case) for case in list(cases(args.seed))[:: args.every]]
    big = large_ones(LARGE[:1] if args.quick else LARGE, args.seed)
    slow = [
        f"{row['large']}: {row['processor s']:.2f} s" for row in big if row["processor s"] > SLOW_S
    ]
    slow += [f"{o.case.name}: {o.seconds:.2f} s" for o in outcomes if o.seconds > SLOW_S]
    heavy = [str(row["large"]) for row in big if row[MEMORY] > LARGE_MB]
    wrong = [f"{o.case.name}: {o.what}" for o in outcomes if o.wrong]
    facts = {
        "files": len(outcomes) + len(big),
        "as expected": sum(o.what == "as expected" for o in outcomes),
        "refused by the true reason": sum(o.what.startswith("refused") for o in outcomes),
        "silently wrong": sum(o.what.startswith("WRONG PIXELS") for o in outcomes),
        "refused by another reason": sum(o.what.startswith("WRONG REASON") for o in outcomes),
        "slowest, s": max([row["processor s"] for row in big] + [o.seconds for o in outcomes]),
        "largest, MB": max(row[MEMORY] for row in big),
        "seconds": time.perf_counter() - began,
    }
    failures = [*wrong, *slow, *heavy]
    print(*failures, sep="\n")
    bench.report(by_family(outcomes), facts, more={"Large files:": big})
    failed = bool(failures)
    print("FAILED" if failed else "nothing silently wrong, every refusal by its true reason")
    sys.exit(failed)


@dataclass(frozen=True)
class Outcome:
    case: Case
    what: str
    seconds: float

    @property
    def wrong(self) -> bool:
        return self.what.startswith(("WRONG", "ERROR"))


def tried(case: Case) -> Outcome:
    start = time.perf_counter()
    try:
        pixels = decode(case.data)
    except DataError as error:
        what = f"refused: {error}"
        if not re.search(case.words, str(error)):
            what = f"WRONG REASON: {error}"
    except Exception as error:
        what = f"ERROR: {type(error).__name__}: {error}"
    else:
        what = compared(pixels, case)
    return Outcome(case, what, time.perf_counter() - start)


def compared(pixels: Pixels, case: Case) -> str:
    if case.pixels is None:
        return "WRONG PIXELS: decoded, must be refused"
    if pixels.shape != case.pixels.shape:
        return f"WRONG PIXELS: {pixels.shape} for {case.pixels.shape}"
    off = np.abs(pixels.astype(int) - case.pixels.astype(int))
    if off.max() > case.far:
        return f"WRONG PIXELS: off by {off.mean():.1f}, at most {off.max()}"
    return "as expected"


def by_family(outcomes: list[Outcome]) -> list[dict[str, object]]:
    found = defaultdict[str, list[Outcome]](list)
    for outcome in outcomes:
        found[outcome.case.family].append(outcome)
    return [
        {
            "written as": family,
            "files": len(group),
            "as expected": sum(o.what == "as expected" for o in group),
            "refused, true reason": sum(o.what.startswith("refused") for o in group),
            "wrong": sum(o.wrong for o in group),
            "slowest, ms": 1e3 * max(o.seconds for o in group),
        }
        for family, group in found.items()
    ]


def cases(seed: int) -> Iterator[Case]:
    rgb = np.asarray(photo(np.random.default_rng(seed), WIDTH, HEIGHT))
    yield from tiffs(rgb)
    yield from tiffs_by_vips(rgb)
    yield from pngs(rgb)
    yield from jpegs(rgb)
    yield from others_read(rgb)
    yield from bmps(rgb)
    yield from not_read(rgb)
    yield from damaged(rgb)


# --- what the guide says that values become -------------------------------------------------


def levels(values: Values) -> Values:
    """Grey values as levels: whole range of up to 16 bits, else the smallest usual one."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return np.rint(values / (2.0 ** (8 * values.dtype.itemsize) - 1) * 255)
    v = values.astype(float)
    low, high = v.min(), v.max()
    if low >= 0:
        tops = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
        low, high = 0.0, next((t for t in tops if high <= t), high)
    return np.rint((v - low) / ((high - low) or 1.0) * 255)


def seen(values: Values, colours: int, *, white_is_zero: bool = False, alpha: str = "") -> Values:
    """Samples (H, W, C) as a reader gives them -> the levels (H, W, 3) that must come."""
    colour, rest = values[..., :colours], values[..., colours : colours + 1]
    out = colour >> 8 if colours == 3 and values.dtype == np.uint16 else levels(colour)
    out = 255.0 - out if white_is_zero else out.astype(float)
    if alpha:
        a = rest / (1.0 if rest.dtype.kind == "f" else float(np.iinfo(rest.dtype).max))
        out = (out if alpha == "assocalpha" else out * a) + 255 * (1 - a)
    return np.broadcast_to(np.rint(out), (*values.shape[:2], 3))


# --- TIFF --------------------------------------------------------------------------------------

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
PACKED = ("none", "lzw", "adobe_deflate", "packbits", "lzma", "zstd")


def as_dtype(rgb: Values, dtype: str) -> Values:
    """The picture in another type, over much of its range."""
    kind, size = dtype[0], int(dtype[1])
    unit = rgb.astype(float) / 255
    if kind == "f":
        return (unit * 300 - 20).astype(dtype)
    top = 2.0 ** (8 * size - (kind == "i")) * 0.99
    return (unit * top - (top / 3 if kind == "i" else 0)).astype(dtype)


def tiff_bytes(values: Values, order: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=order, bigtiff=options.pop("big", False)) as out:
        out.write(values, metadata=None, **options)
    return file.getvalue()


def tiffs(rgb: Values) -> Iterator[Case]:
    for dtype in DTYPES:
        values = as_dtype(rgb, dtype)
        for order in "<>":
            for compression in PACKED:
                for photometric in ("minisblack", "miniswhite", "rgb", "planes"):
                    if compression in ("lzma", "packbits") and photometric in ("planes",):
                        continue
                    yield tiff_case(values, order, compression, photometric)
            yield tiff_case(values, order, "adobe_deflate", "minisblack", tile=(16, 32))
            yield tiff_case(values, order, "lzw", "rgb", tile=(32, 16), predictor=_predictor(dtype))
            yield tiff_case(values, order, "none", "planes", tile=(16, 16))
            if dtype not in ("u8", "i8"):
                for photometric in ("minisblack", "rgb"):
                    yield tiff_case(values, order, "lzw", photometric, predictor=_predictor(dtype))
            yield tiff_case(values, order, "zstd", "minisblack", rowsperstrip=7, big=True)
            if dtype in ("u1", "u2", "f4"):
                yield from tiffs_with_alpha(values, order)


def _predictor(dtype: str) -> int:
    return 3 if dtype[0] == "f" else 2


def tiff_case(
    values: Values, order: str, compression: str, photometric: str, **options: Any
) -> Case:
    grey = photometric.startswith("minis")
    shown = values[..., 1] if grey else values
    if photometric == "planes":
        shown, options = np.moveaxis(values, 2, 0), {**options, "planarconfig": "separate"}
    data = tiff_bytes(
        shown,
        order,
        photometric="rgb" if photometric == "planes" else photometric,
        compression=compression,
        **options,
    )
    found = tifffile.imread(io.BytesIO(data))
    found = np.moveaxis(found, 0, 2) if photometric == "planes" else found
    found = found[..., None] if grey else found
    name = f"TIFF {values.dtype} {order} {compression} {photometric} {options or ''}"
    pixels = seen(found, found.shape[2], white_is_zero=photometric == "miniswhite")
    scaled = (
        values.dtype.kind != "u" or values.dtype.itemsize > 2
    )  # a tie may be rounded either way
    return Case(f"TIFF {values.dtype}", name, data, pixels, words="TIFF of", far=int(scaled))


def tiffs_with_alpha(values: Values, order: str) -> Iterator[Case]:
    unit = values.dtype.kind == "f"
    values = np.clip(values / 300.0, 0, 1).astype(values.dtype) if unit else values
    top = 1.0 if unit else np.iinfo(values.dtype).max
    ramp = np.linspace(0, top, WIDTH).astype(values.dtype)
    alpha = np.broadcast_to(ramp, (HEIGHT, WIDTH))[..., None]
    for kind in ("assocalpha", "unassalpha", "unspecified"):
        for colours in (1, 3):
            colour = values[..., :colours]
            if kind == "assocalpha":
                colour = (colour * (alpha / top)).astype(values.dtype)
            both = np.concatenate([colour, alpha], axis=2)
            photometric = "rgb" if colours == 3 else "minisblack"
            data = tiff_bytes(both, order, photometric=photometric, extrasamples=[kind])
            pixels = seen(both, colours, alpha="" if kind == "unspecified" else kind)
            name = f"TIFF {values.dtype} {order} {photometric} with {kind}"
            yield Case("TIFF with alpha", name, data, pixels, "TIFF of", far=2)


def vips(values: Values, space: str = "") -> Any:
    """A picture of libvips' own from samples (H, W, C)."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(values))
    return image.copy(interpretation=space) if space else image


def vips_levels(data: bytes) -> Values:
    """What libvips sees in a file, as sRGB with alpha laid on white."""
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if image.hasalpha():
        image = image.flatten(background=[255])
    if image.interpretation not in ("srgb", "b-w") or image.format != "uchar":
        image = image.colourspace("srgb")
    found = np.asarray(image.numpy())
    found = found.reshape(image.height, image.width, -1)
    return np.broadcast_to(found, (*found.shape[:2], 3))


def tiffs_by_vips(rgb: Values) -> Iterator[Case]:
    grey = rgb[..., 1:2]
    ramp = np.broadcast_to(np.linspace(0, 255, WIDTH).astype("u1"), (HEIGHT, WIDTH))[..., None]
    alpha = np.concatenate([rgb, ramp], axis=2)
    cmyk = np.concatenate([255 - rgb, ramp // 3], axis=2)
    pictures = {
        "rgb": vips(rgb),
        "grey": vips(grey),
        "rgba": vips(alpha),
        "grey+alpha": vips(alpha[..., 2:]),
        "cmyk": vips(cmyk, "cmyk"),
        "lab": vips(rgb).colourspace("lab"),
        "labs": vips(rgb).colourspace("labs"),
        "rgb16": vips(rgb.astype("u2") * 257, "rgb16"),
        "grey16": vips(grey.astype("u2") * 257, "grey16"),
        "float": vips(grey.astype("f4") / 255),
        "double": vips(rgb.astype("f8") / 255),
    }
    layouts: tuple[dict[str, Any], ...] = (
        *({"compression": c} for c in ("none", "lzw", "deflate", "packbits")),
        *({"compression": c, "predictor": "horizontal"} for c in ("lzw", "deflate")),
        {"compression": "lzw", "tile": True, "tile_width": 16, "tile_height": 16},
        {
            "compression": "deflate",
            "tile": True,
            "pyramid": True,
            "tile_width": 16,
            "bigtiff": True,
        },
        {"compression": "deflate", "tile": True, "pyramid": True, "subifd": True},
    )
    for name, image in pictures.items():
        for layout in layouts:
            yield vips_case(image, name, layout)
    for name in ("rgb", "grey"):
        for q in (60, 95):
            yield vips_case(pictures[name], name, {"compression": "jpeg", "Q": q}, far=6)
    yield vips_case(pictures["rgb"], "rgb", {"compression": "webp", "lossless": True})
    yield vips_case(pictures["cmyk"], "cmyk", {"compression": "jpeg", "Q": 95}, far=8)
    for bits in (1, 2, 4):
        for white_is_zero in (False, True):
            for packed in ("none", "lzw", "deflate", "packbits"):
                layout = {"compression": packed, "bitdepth": bits, "miniswhite": white_is_zero}
                yield vips_case(pictures["grey"], f"grey {bits} bits", layout)
    yield vips_case(pictures["grey"], "fax", {"compression": "ccittfax4", "bitdepth": 1})
    for turn in range(1, 9):
        for name in ("rgb", "rgb16", "float"):
            image = pictures[name].copy()
            image.set_type(pyvips.GValue.gint_type, "orientation", turn)
            yield vips_case(image, f"{name} turned {turn}", {"compression": "lzw"})


def vips_case(image: Any, name: str, layout: dict[str, Any], far: int = 0) -> Case:
    fixed = {"predictor": "none"} if "bitdepth" in layout else {}
    data = image.tiffsave_buffer(**layout, **fixed)
    words = r"TIFF of (CIE L\*a\*b\*|.*WebP)" if "lab" in name or "webp" in str(layout) else r"\Z."
    if "lab" in name or "cmyk" in name:
        far = max(far, 3)
    far = max(far, int(name in ("rgba", "grey+alpha")), int("16" in name))
    if name == "cmyk":
        kept = tifffile.imread(io.BytesIO(data)).reshape(HEIGHT, WIDTH, 4).astype(float)
        pixels = np.rint((255 - kept[..., :3]) * (255 - kept[..., 3:]) / 255)
    elif name.startswith(("float", "double")):
        pixels = turned_levels(tifffile.TiffFile(io.BytesIO(data)).pages[0])
        far = 1
    else:
        pixels = vips_levels(data)
    return Case("TIFF by libvips", f"TIFF by vips {name} {layout}", data, pixels, words, far)


def turned_levels(page: Any) -> Values:
    """Floats as levels, upright, by TIFF's tag 274 and NumPy."""
    values = page.asarray().reshape(page.imagelength, page.imagewidth, -1)
    found = seen(values, values.shape[2])
    turn = page.tags[274].value if 274 in page.tags else 1
    if turn in (5, 6, 7, 8):
        found = found.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        found = found[:, ::-1]
    return found[::-1] if turn in (3, 4, 7, 8) else found


# --- PNG ---------------------------------------------------------------------------------------


def pngs(rgb: Values) -> Iterator[Case]:
    for depth in (1, 2, 4, 8, 16):
        for interlaced in (False, True):
            for keyed in (False, True):
                yield png_case(rgb, depth, "grey", interlaced, keyed)
                if depth >= 8:
                    yield png_case(rgb, depth, "rgb", interlaced, keyed)
                if depth <= 8:
                    yield png_case(rgb, depth, "palette", interlaced, keyed)
            if depth >= 8:
                yield png_case(rgb, depth, "grey+alpha", interlaced, False)
                yield png_case(rgb, depth, "rgba", interlaced, False)
    for dtype in ("u1", "u2"):
        for colours in (1, 2, 3, 4):
            values = as_dtype(np.concatenate([rgb, rgb[..., :1]], axis=2)[..., :colours], dtype)
            data = imagecodecs.png_encode(values.squeeze())
            found = imagecodecs.png_decode(data).reshape(HEIGHT, WIDTH, colours)
            pixels = seen(
                found, colours - (colours in (2, 4)), alpha="un" if colours in (2, 4) else ""
            )
            yield Case("PNG by libpng", f"PNG {dtype} x {colours}", data, pixels, far=2)


def png_case(rgb: Values, depth: int, kind: str, interlaced: bool, keyed: bool) -> Case:
    """Written by pypng; what it should look like is worked out from the samples it was given."""
    values = rgb.astype(int) * (2**depth - 1) // 255
    far = 2 if kind in ("grey+alpha", "rgba") else 0
    top = 2**depth - 1
    options: dict[str, Any] = {"bitdepth": depth, "interlace": interlaced}
    if kind == "palette":
        palette = [(i * 255 // top, 255 - i * 255 // top, (i * 7) % 256) for i in range(top + 1)]
        options["palette"] = [(*c, 0 if keyed and i == 1 else 255) for i, c in enumerate(palette)]
        if not keyed:
            options["palette"] = palette
        rows = values[..., 1]
        colours = np.array(palette)[rows]
        pixels = np.where(keyed & (rows == 1)[..., None], 255, colours)
    else:
        options["greyscale"] = kind.startswith("grey")
        shown = values if not options["greyscale"] else values[..., 1:2]
        as_read = shown.astype("u2") if depth == 16 else shown
        pixels = seen(as_read, shown.shape[2]) if depth == 16 else shown * 255 // top
        pixels = np.array(np.broadcast_to(pixels, rgb.shape))
        if keyed:
            key = tuple(int(v) for v in shown[HEIGHT // 2, WIDTH // 2])
            options["transparent"] = key[0] if options["greyscale"] else key
            pixels[(shown == np.array(key)).all(axis=2)] = 255
        if kind in ("grey+alpha", "rgba"):
            options["alpha"] = True
            ramp = np.broadcast_to(np.linspace(0, top, WIDTH).astype(int), (HEIGHT, WIDTH))
            shown = np.concatenate([shown, ramp[..., None]], axis=2)
            pixels = np.rint(pixels + (255 - pixels) * (1 - ramp[..., None] / top))
        rows = shown.reshape(HEIGHT, -1)
    file = io.BytesIO()
    writer = png.Writer(WIDTH, HEIGHT, **options)
    writer.write(file, rows.tolist())
    name = f"PNG {kind} {depth} bits{' Adam7' * interlaced}{' tRNS' * keyed}"
    return Case("PNG by pypng", name, file.getvalue(), pixels, far=far)


def with_chunk(data: bytes, kind: bytes, body: bytes, *, intact: bool = True) -> bytes:
    """A PNG with one more chunk behind its header."""
    crc = zlib.crc32(kind + body) ^ (not intact)
    return (
        data[:33] + struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc) + data[33:]
    )


def big_metadata() -> dict[str, tuple[bytes, bytes]]:
    packed = zlib.compress(bytes(3_000_000))
    return {
        "zTXt": (b"zTXt", b"Comment\0\0" + packed),
        "iTXt": (b"iTXt", b"Comment\0\1\0\0\0" + packed),
        "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed),
        "iCCP": (b"iCCP", b"profile\0\0" + packed),
    }


SMALL_CHUNKS = {
    **{b"tEXt": b"a\0b", b"pHYs": bytes(9), b"gAMA": bytes(4), b"cHRM": bytes(32), b"sRGB": b"\0"},
    **{b"tIME": bytes(7), b"bKGD": bytes(6), b"sBIT": b"\x08\x08\x08", b"eXIf": b"II*\0\x08\0\0\0"},
    **{b"zTXt": b"a\0\0x", b"iTXt": b"a\0\0\0\0\0b", b"iCCP": b"a\0\0x", b"sPLT": b"a\0\x08"},
    **{b"abCd": b"private", b"hIST": bytes(2), b"acTL": bytes(8)},
}

# --- JPEG, WebP, GIF and BMP -------------------------------------------------------------------


def jpegs(rgb: Values) -> Iterator[Case]:
    for quality in (40, 75, 95):
        for subsampling in ("444", "422", "420"):
            data = imagecodecs.jpeg8_encode(rgb, level=quality, subsampling=subsampling)
            yield jpeg_case(f"JPEG {quality} {subsampling}", data)
            ends = data.removesuffix(b"\xff\xd9")
            yield jpeg_case(f"JPEG {quality} {subsampling} without end", ends, like=data)
        grey = imagecodecs.jpeg8_encode(np.ascontiguousarray(rgb[..., 1]), level=quality)
        yield jpeg_case(f"JPEG grey {quality}", grey)
        yield jpeg_case(f"JPEG grey {quality} without end", grey[:-2], like=grey)
    for options in ({"interlace": True}, {"restart_interval": 3}, {"optimize_coding": True}):
        data = vips(rgb).jpegsave_buffer(Q=90, **options)
        yield jpeg_case(f"JPEG by vips {options}", data)
        yield jpeg_case(f"JPEG by vips {options} without end", data[:-2], like=data)
    for cut in (0.5, 0.9, 0.99):
        for options in ({}, {"interlace": True}, {"restart_interval": 1}):
            data = vips(rgb).jpegsave_buffer(Q=90, **options)
            part = data[: int(len(data) * cut)]
            yield Case("JPEG", f"JPEG cut at {cut} {options}", part, None, "truncated|cut short")
    data = imagecodecs.jpeg8_encode(rgb, level=90)
    for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE):
        for body in (b"", b"\0", b"JFIF", b"Exif\0\0MM", b"ICC_PROFILE\0", b"x" * 65_000):
            segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
            yield jpeg_case(f"JPEG, {marker:x} of {len(body)} bytes", data[:2] + segment + data[2:])
    for extra in (b"\0" * 9, b"trailing", data):
        yield jpeg_case("JPEG with trailing bytes", data + extra, like=data)
    whole = data[:-300] + bytes(500)
    yield Case("JPEG", "JPEG filled up with zeros", whole, None, "cut short .*zeros")
    inks = np.concatenate([255 - rgb, rgb[..., :1] // 3], axis=2)
    data = vips(inks, "cmyk").jpegsave_buffer(Q=95)
    kept = 255.0 - imagecodecs.jpeg8_decode(data, outcolorspace="cmyk")
    mixed = np.rint((255 - kept[..., :3]) * (255 - kept[..., 3:]) / 255)
    yield Case("JPEG", "JPEG CMYK by vips", data, mixed, far=4)
    deep = (rgb.astype("u2") << 4) + 7
    yield Case(
        "JPEG", "JPEG 12 bits", imagecodecs.jpeg8_encode(deep, bitspersample=12), None, "12 bits"
    )
    data = imagecodecs.jpeg8_encode(rgb, lossless=True)  # read by newer libjpeg-turbos
    yield Case("JPEG", "JPEG lossless", data, rgb, "lossless")
    yield Case("JPEG", "JPEG-LS", imagecodecs.jpegls_encode(rgb), None, "JPEG-LS")


def jpeg_case(name: str, data: bytes, *, like: bytes = b"") -> Case:
    found = imagecodecs.jpeg8_decode(like or data)
    found = np.broadcast_to(found.reshape(HEIGHT, WIDTH, -1), (HEIGHT, WIDTH, 3))
    return Case("JPEG", name, data, found, far=2)


def others_read(rgb: Values) -> Iterator[Case]:
    alpha = np.concatenate([rgb, np.full((HEIGHT, WIDTH, 1), 77, "u1")], axis=2)
    for name, values in (("rgb", rgb), ("rgba", alpha)):
        for options in ({"lossless": True}, {"level": 80}):
            data = imagecodecs.webp_encode(values, **options)
            found = imagecodecs.webp_decode(data)
            pixels = seen(found, 3, alpha="un" if found.shape[2] == 4 else "")
            yield Case("WebP", f"WebP {name} {options}", data, pixels, far=2)
    for bits in (1, 3, 8):
        for interlaced in (False, True):
            data = vips(rgb).gifsave_buffer(bitdepth=bits, interlace=interlaced)
            yield Case("GIF", f"GIF {bits} bits {interlaced}", data, vips_levels(data))
            data = vips(alpha).gifsave_buffer(bitdepth=bits, interlace=interlaced)
            yield Case("GIF", f"GIF alpha {bits} bits {interlaced}", data, vips_levels(data))


def bmp(rows: Values, bits: int, *, header: int = 40, compression: int = 0, **more: Any) -> bytes:
    """A BMP of packed rows (H, bytes), bottom-up, or with `down` from the top."""
    palette, masks, down = more.get("palette", b""), more.get("masks", b""), more.get("down", False)
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    body = (padded if down else padded[::-1]).tobytes()
    if header == 12:
        head = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        high = -HEIGHT if down else HEIGHT
        head = struct.pack(
            "<IiiHHIIiiII", header, WIDTH, high, 1, bits, compression, len(body), 0, 0, 0, 0
        )
        head = (head + masks)[:header].ljust(header, b"\0") if header > 40 else head + masks
    start = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + head + palette + body


def bmps(rgb: Values) -> Iterator[Case]:
    bgr = rgb[..., ::-1].reshape(HEIGHT, -1)
    bgrx = np.concatenate([rgb[..., ::-1], np.zeros((HEIGHT, WIDTH, 1), "u1")], axis=2)
    bgrx = bgrx.reshape(HEIGHT, -1)
    made: dict[str, tuple[bytes, Values]] = {}
    for header in (12, 40, 108, 124):
        made[f"24 bits, header of {header}"] = (bmp(bgr, 24, header=header), rgb)
    made["24 bits, top down"] = (bmp(bgr, 24, down=True), rgb)
    made["32 bits"] = (bmp(bgrx, 32), rgb)
    fields = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    made["32 bits, fields"] = (bmp(bgrx, 32, compression=3, masks=fields), rgb)
    five = rgb.astype(int) >> 3
    packed = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    made["16 bits"] = (bmp(packed.view("u1"), 16), np.rint(five * 255 / 31))
    six = rgb[..., 1].astype(int) >> 2
    packed = (five[..., 0] << 11 | six << 5 | five[..., 2]).astype("<u2")
    fields = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    expected = np.stack([five[..., 0] * 255 / 31, six * 255 / 63, five[..., 2] * 255 / 31], axis=2)
    made["16 bits, 565"] = (bmp(packed.view("u1"), 16, compression=3, masks=fields), expected)
    for bits in (1, 4, 8):
        number = rgb[..., 1].astype(int) * (2**bits - 1) // 255
        ones = np.unpackbits(number.astype("u1")[..., None], axis=2)[..., 8 - bits :]
        rows = np.packbits(ones.reshape(HEIGHT, -1), axis=1)
        colours = [(i * 255 // (2**bits - 1), i * 37 % 256, 255 - i) for i in range(2**bits)]
        table = b"".join(bytes([b, g, r, 0]) for r, g, b in colours)
        made[f"{bits} bits"] = (bmp(rows, bits, palette=table), np.array(colours)[number])
    quarter = np.concatenate([rgb[..., ::-1], np.full((HEIGHT, WIDTH, 1), 64, "u1")], axis=2)
    fields = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    on_white = np.rint(rgb / 255.0 * 64 + 191)
    for header in (108, 124):
        data = bmp(quarter.reshape(HEIGHT, -1), 32, header=header, compression=3, masks=fields)
        made[f"16-level alpha, header of {header}"] = (data, on_white)
    runs = b"".join(
        b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in rgb[::-1, :, 1].tolist()
    )
    greys = b"".join(bytes([i, i, i, 0]) for i in range(256))
    sizes = (40, WIDTH, HEIGHT, 1, 8, 1, len(runs) + 2, 0, 0, 0, 0)
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 14 + 40 + 1024, *sizes)
    made["run lengths"] = (head + greys + runs + b"\0\1", rgb[..., 1:2])
    for name, (data, pixels) in made.items():
        pixels = np.broadcast_to(pixels, rgb.shape)
        yield Case("BMP", f"BMP {name}", data, np.asarray(pixels), far=4 * ("16" in name))


# --- what must be refused, or read in spite of its metadata --------------------------------------


def not_read(rgb: Values) -> Iterator[Case]:
    grey = np.ascontiguousarray(rgb[..., 1])
    deep = rgb.astype("u2") * 257
    encoders: dict[str, tuple[Callable[..., bytes], Values]] = {
        "AVIF": (imagecodecs.avif_encode, rgb),
        "JPEG 2000": (imagecodecs.jpeg2k_encode, rgb),
        "JPEG XL": (imagecodecs.jpegxl_encode, rgb),
        "JPEG XR": (imagecodecs.jpegxr_encode, rgb),
        "QOI": (imagecodecs.qoi_encode, rgb),
        "HDR": (imagecodecs.rgbe_encode, rgb.astype("f4") / 255),
    }
    for name, (encode, values) in encoders.items():
        try:
            data = bytes(encode(values))
        except (imagecodecs.DelayedImportError, RuntimeError, ValueError):
            continue  # a build of imagecodecs without it
        yield Case("not read", name, data, None, name)
    texts = {
        "PNM": b"P6\n# made by hand\n61 45\n255\n" + rgb.tobytes(),
        "FITS": b"SIMPLE  =                    T".ljust(2880),
        "OpenEXR": b"\x76\x2f\x31\x01\2\0\0\0" + bytes(99),
        "HTML": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>",
        "SVG": b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PDF": b"%PDF-1.7\n",
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "text": b"Not Found",
        "zero": bytes(5000),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99),
        "HEIF|HEIC": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99),
        "AVIF": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(99),
        "QuickTime": b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(99),
        "MP4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(99),
        "WAV": b"RIFF\x24\0\0\0WAVEfmt " + bytes(99),
        "DICOM": bytes(128) + b"DICM" + bytes(99),
        "ZIP": b"PK\3\4" + bytes(99),
        "Photoshop": b"8BPS\0\1" + bytes(99),
    }
    for words, data in texts.items():
        yield Case("not read", words, data, None, words)
    tags: dict[str, dict[str, Any]] = {
        "raw picture": {
            "photometric": "cfa",
            "extratags": [(33421, 3, 2, (2, 2)), (33422, 1, 4, (0, 1, 1, 2))],
        },
        "LERC": {"compression": "lerc"},
        "JPEG 2000": {"compression": "jpeg2000"},
        "JPEG XR": {"compression": "jpegxr"},
        "JPEG XL": {"compression": "jpegxl"},
    }
    for words, options in tags.items():
        values = grey if words == "raw picture" else rgb
        yield Case("TIFF refused", words, tiff_bytes(values, "<", **options), None, words)
    for bands in (4, 5, 8):
        many = np.repeat(deep[..., :1], bands, axis=2)
        data = tiff_bytes(many, "<", photometric="minisblack", planarconfig="contig")
        yield Case("TIFF refused", f"{bands} bands", data, None, f"{bands} bands")
    for dtype in ("c8", "c16"):
        data = tiff_bytes(rgb[..., 1].astype(dtype), "<", photometric="minisblack")
        yield Case("TIFF refused", dtype, data, None, "complex")
    for bad in (np.nan, np.inf):
        values = np.where(grey == grey.max(), bad, grey / 255).astype("f4")
        data = tiff_bytes(values, "<", photometric="minisblack")
        yield Case("TIFF refused", str(bad), data, None, "not finite")
    twelve = (grey.astype("u2") << 4) + 9
    data = tiff_bytes(twelve, "<", photometric="minisblack", bitspersample=12)  # ">" is faulty
    expected = np.broadcast_to(np.rint(twelve[..., None] / 4095 * 255), rgb.shape)
    yield Case("TIFF packed", "TIFF 12 bits", data, expected, "12-bit")
    lab = np.rint(np.asarray(vips(rgb).colourspace("lab").numpy()) * [2.55, 1, 1])
    for packed in ("none", "lzw", "adobe_deflate"):
        values = lab.astype(int).astype("u1")
        data = tiff_bytes(values, "<", photometric="cielab", compression=packed)
        yield Case("TIFF CIE L*a*b*", f"TIFF L*a*b* {packed}", data, rgb, far=8)
    yield from more_tiffs(rgb)
    table = np.stack([np.arange(256) * 257, 65535 - np.arange(256) * 257, np.arange(256) * 128])
    data = tiff_bytes(grey, "<", photometric="palette", colormap=table.astype("u2"))
    yield Case("TIFF palette", "TIFF palette", data, table.T[grey] >> 8)


def more_tiffs(rgb: Values) -> Iterator[Case]:
    """Palettes, inks, extra samples and JPEG in TIFF."""
    grey = np.ascontiguousarray(rgb[..., 1])
    inks = np.concatenate([255 - rgb, grey[..., None] // 3], axis=2)
    mixed = np.rint((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255)
    more = np.concatenate([rgb, rgb, rgb[..., :2]], axis=2)
    ycc = imagecodecs.jpeg8_decode(
        imagecodecs.jpeg8_encode(rgb, level=100, subsampling="444"), outcolorspace="ycbcr"
    )
    shown = np.repeat(grey[..., None], 3, axis=2)
    contig = {"planarconfig": "contig"}
    layouts: dict[str, tuple[Values, dict[str, Any], Values, int]] = {
        "CMYK": (inks, {"photometric": "separated", **contig}, mixed, 1),
        "CMYK 16": (inks.astype("u2") * 257, {"photometric": "separated", **contig}, mixed, 1),
        "CMYK planes": (
            *(np.moveaxis(inks, 2, 0), {"photometric": "separated", "planarconfig": "separate"}),
            *(mixed, 1),
        ),
        "2 extra": (
            more[..., :5],
            {"photometric": "rgb", "extrasamples": [0] * 2, **contig},
            rgb,
            0,
        ),
        "5 extra": (more, {"photometric": "rgb", "extrasamples": [0] * 5, **contig}, rgb, 0),
        "YCbCr": (ycc, {"photometric": "ycbcr", "subsampling": (1, 1)}, rgb, 6),
        "one bit": (grey > 127, {"photometric": "minisblack"}, 255 * (shown > 127), 0),
    }
    for top in (255, 65535):
        colours = (np.stack([np.arange(256)] * 3) * (top // 255)).astype("u2")
        layouts[f"palette to {top}"] = (
            grey,
            {"photometric": "palette", "colormap": colours},
            shown,
            0,
        )
    for name, (values, options, pixels, far) in layouts.items():
        for order in "<>":
            for packed in ("none", "lzw", "adobe_deflate"):
                data = tiff_bytes(values, order, compression=packed, **options)
                yield Case("TIFF, more", f"TIFF {name} {order} {packed}", data, pixels, far=far)
    for order in "<>":
        data = tiff_bytes(rgb, order, photometric="rgb", compression="jpeg")
        yield Case("TIFF, more", f"TIFF JPEG {order}", data, vips_levels(data), far=6)
        data = tiff_bytes(np.stack([rgb, 255 - rgb]), order, photometric="rgb")
        yield Case("TIFF, more", f"TIFF of two pages {order}", data, rgb)


def damaged(rgb: Values) -> Iterator[Case]:
    data = bytes(imagecodecs.png_encode(rgb))
    for name, (kind, body) in big_metadata().items():
        yield Case("metadata", f"PNG, {name} of 3 MB", with_chunk(data, kind, body), rgb)
    for kind, body in SMALL_CHUNKS.items():
        for intact in (True, False):
            file = with_chunk(data, kind, body, intact=intact)
            yield Case("metadata", f"PNG, {kind!r} {intact}", file, rgb)
    yield Case("damage", "PNG without IEND", data[:-12], rgb)
    yield Case("damage", "PNG of Apple", with_chunk(data, b"CgBI", bytes(4)), None, "CgBI")
    for kind in (b"IHDR", b"IDAT", b"tRNS"):
        torn = bytearray(with_chunk(data, b"tRNS", bytes(6)))
        at = torn.index(kind)
        torn[at + 4 + int.from_bytes(torn[at - 4 : at], "big")] ^= 1
        yield Case("damage", f"PNG, {kind!r} of wrong checksum", bytes(torn), None, kind.decode())
    for order in "<>":
        for compression in PACKED:
            whole = tiff_bytes(
                as_dtype(rgb, "u2"), order, compression=compression, photometric="rgb"
            )
            words = "cut short|damaged|not all there"
            for part in (whole[:-200], whole[: len(whole) // 2], whole[:9]):
                yield Case("damage", f"TIFF {compression} {order} cut", part, None, words)


# --- large ones: time and memory --------------------------------------------------------------


def large(name: str, seed: int) -> bytes:
    """A picture of 12 megapixels (6 in floats, each of 4 bytes) as a camera or scanner saves it."""
    small = np.asarray(photo(np.random.default_rng(seed), 500, 375))
    rgb = np.tile(small, (8 if "f4" not in name else 4, 8, 1))
    if name == "JPEG":
        return bytes(imagecodecs.jpeg8_encode(rgb, level=90))
    if name == "JPEG without end":
        return bytes(imagecodecs.jpeg8_encode(rgb, level=90))[:-2]
    if name == "PNG":
        return bytes(imagecodecs.png_encode(rgb, level=1))
    deep = as_dtype(rgb, name.split()[1])
    if name.startswith("PNG"):
        return with_chunk(bytes(imagecodecs.png_encode(deep, level=1)), b"tRNS", bytes(6))
    options: dict[str, Any] = {"compression": "lzw", "predictor": True, "photometric": "rgb"}
    if "planes" in name:
        deep, options["planarconfig"] = np.moveaxis(deep, 2, 0), "separate"
    return tiff_bytes(np.ascontiguousarray(deep), ">", rowsperstrip=16, **options)


LARGE = ("JPEG", "JPEG without end", "PNG", "PNG u2 with tRNS", "TIFF u2 planes", "TIFF f4")


def large_one(name: str, seed: int) -> None:
    """In a process of its own: print the seconds and the bytes that decoding takes."""
    code = f"import decoding, sys; sys.stdout.buffer.write(decoding.large({name!r}, {seed}))"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=HERE)
    decode(bytes(imagecodecs.png_encode(np.zeros((9, 9, 3), "u1"))))  # what is imported is there
    before, start = rss_bytes(), time.process_time()  # of one thread; the machine may be busy
    pixels = decode(made.stdout)
    print(time.process_time() - start, peak_rss_bytes() - before + len(made.stdout), pixels.shape)


def rss_bytes() -> int:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def large_ones(names: Sequence[str], seed: int) -> list[dict[str, Any]]:
    rows = list[dict[str, Any]]()
    for name in names:
        command = [sys.executable, __file__, "--large", name, "--seed", str(seed)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        rows.append({"large": name, "processor s": float(said[0]), MEMORY: int(said[1]) / 1e6})
    return rows


if __name__ == "__main__":
    main()
