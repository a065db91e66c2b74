"""Formats x modes x bit depths by independent writers, against independent readers, to 1/255.

Every file is read right, or left out by its true name.
"""

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import pillow_heif
import png
import pydicom
import pytest
import tifffile
from dicom_files import dicom, ramp
from numpy.typing import NDArray
from pictures import photo
from PIL import Image
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from headstart.cli.printing import tell_left_out
from headstart.data.checks import check
from headstart.modalities.images.decoding import decode
from headstart.modalities.reading import read, survey

Array = NDArray[Any]
Made = tuple[bytes, Array]  # a file, and its levels (H, W) or (H, W, 3) by another reader
RGB = np.asarray(photo(np.random.default_rng(3), 28, 20))
GREY = np.ascontiguousarray(RGB[..., 0])
ALPHA = np.dstack([RGB, np.linspace(0, 255, GREY.size).astype("u1").reshape(GREY.shape)])
DEEP = RGB.astype("u2") * 257 - RGB // 3
GREY_DEEP = np.ascontiguousarray(DEEP[..., 0])


def on_white(pixels: Array, top: float = 255.0) -> Array:
    colours, alpha = pixels[..., :-1].astype(float), pixels[..., -1:].astype(float) / top
    return (colours / top * alpha + 1 - alpha) * 255.0


def scaled(values: Array, low: float, high: float) -> Array:
    return (values.astype(float) - low) / (high - low) * 255.0


def by_pypng(values: Array, mode: str, depth: int = 8, **options: Any) -> Made:
    file = io.BytesIO()
    rows = values.reshape(len(values), -1)
    png.from_array(rows, f"{mode};{depth}", {"width": values.shape[1], **options}).write(file)
    found = imagecodecs.png_decode(file.getvalue())
    top = 2.0 ** (16 if depth == 16 else 8) - 1
    if mode.endswith("A"):
        return file.getvalue(), on_white(found, top)
    return file.getvalue(), found / top * 255.0


def grey_png(depth: int) -> Made:
    return by_pypng(GREY >> (8 - depth), "L", depth)


def palette_png() -> Made:
    file = io.BytesIO()
    colours = [tuple(map(int, colour)) for colour in RGB[0]]
    numbers = np.arange(20 * 28).reshape(20, 28) % len(colours)
    png.Writer(28, 20, palette=colours, bitdepth=8).write(file, numbers.tolist())
    return file.getvalue(), RGB[0][numbers]


def by_tifffile(values: Array, low: float, high: float, **options: Any) -> Made:
    file = io.BytesIO()
    colours = options.pop("photometric", "rgb" if values.ndim == 3 else "minisblack")
    big, order = options.pop("big", False), options.pop("order", "<")
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=order) as out:
        out.write(values, metadata=None, photometric=colours, **options)
    found = scaled(tifffile.imread(io.BytesIO(file.getvalue())), low, high)
    if options.get("planarconfig") == 2:
        found = np.moveaxis(found, 0, 2)
    return file.getvalue(), 255.0 - found if colours == "miniswhite" else found


def by_codec(name: str, values: Array, **options: Any) -> Made:
    data = getattr(imagecodecs, f"{name}_encode")(values, **options)
    found = getattr(imagecodecs, f"{name}_decode")(data)
    bits = options.get("bitspersample", 8 * values.itemsize)
    return data, on_white(found) if found.shape[2:] == (4,) else found / (2.0**bits - 1) * 255.0


def heic(image: Image.Image) -> Made:
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, matrix_coefficients=0)
    levels = np.asarray(image.convert("L" if image.mode == "LA" else image.mode))
    if image.mode == "RGBA":
        return file.getvalue(), on_white(levels)
    return file.getvalue(), levels / (257.0 if image.mode == "I;16" else 1.0)


def by_pydicom(values: Array, low: float, high: float, *args: Any, **tags: Any) -> Made:
    """A DICOM file; low, high: the values, after rescaling, that are black and white."""
    data = dicom(values, *args, **tags)
    stored = pydicom.dcmread(io.BytesIO(dicom(values))).pixel_array
    stored = stored[0] if stored.ndim == 3 and stored.shape[2] != 3 else stored
    slope, shift = tags.get("RescaleSlope", 1), tags.get("RescaleIntercept", 0)
    return data, scaled(stored.astype(float) * slope + shift, low, high).clip(0, 255)


def inverted(made: Made) -> Made:
    return made[0], 255.0 - made[1]


def by_imageio(extension: str, values: Array) -> Made:
    data = imageio.imwrite("<bytes>", values, extension=extension)
    return data, np.asarray(imageio.imread(data, extension=extension))


FLOATS = scaled(GREY, 0, 255) / 255
READ: dict[str, Callable[[], Made]] = {
    **{f"PNG grey of {depth} bits": partial(grey_png, depth) for depth in (1, 2, 4, 8)},
    "PNG grey of 16 bits": lambda: by_pypng(GREY_DEEP, "L", 16),
    "PNG RGB": lambda: by_pypng(RGB, "RGB"),
    "PNG RGB of 16 bits": lambda: by_pypng(DEEP, "RGB", 16),
    "PNG grey and alpha": lambda: by_pypng(np.ascontiguousarray(ALPHA[..., 2:]), "LA"),
    "PNG RGBA": lambda: by_pypng(ALPHA, "RGBA"),
    "PNG RGBA of 16 bits": lambda: by_pypng(ALPHA.astype("u2") * 257, "RGBA", 16),
    "PNG palette": palette_png,
    "TIFF grey": lambda: by_tifffile(GREY, 0, 255),
    "TIFF grey of 12 bits": lambda: by_tifffile(GREY_DEEP >> 4, 0, 4095, bitspersample=12),
    "TIFF grey of 16 bits": lambda: by_tifffile(GREY_DEEP, 0, 65535),
    "TIFF min-is-white": lambda: by_tifffile(GREY_DEEP, 0, 65535, photometric="miniswhite"),
    "TIFF big-endian LZW": lambda: by_tifffile(GREY_DEEP, 0, 65535, order=">", compression="lzw"),
    "TIFF signed": lambda: by_tifffile(ramp(16, True), -32768, 32767),
    "TIFF of 32 bits": lambda: by_tifffile(GREY_DEEP.astype("u4"), 0, 65535),
    "TIFF half floats": lambda: by_tifffile(FLOATS.astype("f2"), 0, 1),
    "TIFF floats": lambda: by_tifffile(FLOATS.astype("f4"), 0, 1, compression="adobe_deflate"),
    "TIFF doubles": lambda: by_tifffile(FLOATS * 1e6, 0, FLOATS.max() * 1e6),
    "TIFF RGB": lambda: by_tifffile(RGB, 0, 255, compression="packbits"),
    "TIFF RGB in planes": lambda: by_tifffile(
        np.moveaxis(RGB, 2, 0), 0, 255, photometric="rgb", planarconfig=2
    ),
    "TIFF RGB of 16 bits": lambda: by_tifffile(DEEP, 0, 65535, tile=(16, 16), big=True),
    "TIFF RGB floats": lambda: by_tifffile((RGB / 255).astype("f4"), 0, 1),
    "TIFF RGB as JPEG": lambda: by_tifffile(RGB, 0, 255, compression="jpeg"),
    "JPEG grey": lambda: by_codec("jpeg8", GREY, level=90),
    "JPEG 4:4:4": lambda: by_codec("jpeg8", RGB, level=90, subsampling="444"),
    "JPEG 4:2:0": lambda: by_codec("jpeg8", RGB, level=90, subsampling="420"),
    "WebP lossless": lambda: by_codec("webp", RGB, lossless=True),
    "WebP lossy": lambda: by_codec("webp", RGB, level=80, lossless=False),
    "WebP RGBA": lambda: by_codec("webp", ALPHA, lossless=True),
    "GIF": lambda: by_imageio(".gif", GREY),
    "BMP": lambda: by_codec("bmp", RGB),
    "AVIF RGB": lambda: by_codec("avif", RGB, level=100),
    "AVIF grey": lambda: by_codec("avif", GREY, level=100),
    "AVIF RGBA": lambda: by_codec("avif", ALPHA, level=100),
    "AVIF of 10 bits": lambda: by_codec("avif", DEEP >> 6, level=100, bitspersample=10),
    "HEIC RGB": lambda: heic(Image.fromarray(RGB)),
    "HEIC grey": lambda: heic(Image.fromarray(GREY)),
    "HEIC RGBA": lambda: heic(Image.fromarray(ALPHA)),
    "HEIC of 12 bits": lambda: heic(Image.fromarray(GREY_DEEP)),
    "JPEG 2000 grey": lambda: by_codec("jpeg2k", GREY, level=0, reversible=True),
    "JPEG 2000 grey of 12 bits": lambda: by_codec(
        "jpeg2k", GREY_DEEP >> 4, level=0, reversible=True, bitspersample=12
    ),
    "JPEG 2000 grey of 16 bits": lambda: by_codec("jpeg2k", GREY_DEEP, level=0, reversible=True),
    "JPEG 2000 RGB": lambda: by_codec("jpeg2k", RGB, level=0, reversible=True),
    "JPEG 2000 codestream": lambda: by_codec("jpeg2k", RGB, level=0, codecformat="j2k"),
    "JPEG 2000 RGBA": lambda: by_codec("jpeg2k", ALPHA, level=0, reversible=True),
    "DICOM of 8 bits": lambda: by_pydicom(GREY, 0, 255),
    "DICOM MONOCHROME1": lambda: inverted(by_pydicom(ramp(), 0, 4095, "MONOCHROME1", bits=12)),
    "DICOM with a window": lambda: by_pydicom(
        ramp(), 500, 1499, bits=12, WindowCenter=1000, WindowWidth=1000
    ),
    "DICOM rescaled": lambda: by_pydicom(
        ramp(12, True),
        -160,
        239,
        bits=12,
        RescaleSlope=2,
        RescaleIntercept=-100,
        WindowCenter=40,
        WindowWidth=400,
    ),
    "DICOM RGB": lambda: by_pydicom(RGB, 0, 255, "RGB"),
    "DICOM RLE": lambda: by_pydicom(ramp(), 0, 4095, bits=12, syntax=RLELossless),
    "DICOM JPEG-LS": lambda: by_pydicom(ramp(), 0, 4095, bits=12, syntax=JPEGLSLossless),
    "DICOM implicit": lambda: by_pydicom(RGB, 0, 255, "RGB", syntax=ImplicitVRLittleEndian),
    "DICOM of frames": lambda: by_pydicom(np.stack([ramp(), ramp() // 2]), 0, 4095, bits=12),
}


def lossless_jpeg() -> bytes:
    file = pydicom.dcmread(io.BytesIO(dicom(ramp(), syntax=RLELossless)))
    file.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def tiff_of(values: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="minisblack", metadata=None, **options)
    return file.getvalue()


BANDS = np.zeros((8, 9, 5), "u2")
LEFT_OUT: dict[str, tuple[Callable[[], bytes], str]] = {
    "5 bands.tif": (lambda: tiff_of(BANDS, planarconfig=1), "5 bands"),
    "complex.tif": (lambda: tiff_of(GREY.astype("c8")), "complex numbers"),
    "deep.jp2": (lambda: imagecodecs.jpeg2k_encode(DEEP), "JPEG 2000 picture of 16-bit colours"),
    "two.jp2": (lambda: imagecodecs.jpeg2k_encode(RGB[..., :2].copy()), "JPEG 2000 picture of 2"),
    "lossless.dcm": (lossless_jpeg, "DICOM picture compressed as JPEG Lossless"),
    "12 bits.jpg": (lambda: imagecodecs.jpeg8_encode(DEEP >> 4, bitspersample=12), "12 bits"),
    "a.jxl": (lambda: imagecodecs.jpegxl_encode(RGB), "a JPEG XL picture"),
    "a.jls": (lambda: imagecodecs.jpegls_encode(RGB), "a JPEG-LS picture"),
    "a.qoi": (lambda: imagecodecs.qoi_encode(RGB), "a QOI picture"),
    "a.jxr": (lambda: imagecodecs.jpegxr_encode(RGB), "a JPEG XR picture"),
}


def test_the_matrix_has_more_than_60_files() -> None:
    assert len(READ) + len(LEFT_OUT) >= 60


@pytest.mark.parametrize("name", READ)
def test_a_format_is_read_as_another_reader_reads_it(name: str) -> None:
    data, levels = READ[name]()
    pixels = decode(data).astype(float)
    wanted = np.squeeze(np.asarray(levels, float))
    wanted = wanted[..., None] if wanted.ndim == 2 else wanted
    assert pixels.shape[:2] == wanted.shape[:2]
    assert np.abs(pixels - wanted).max() <= 1.01


def test_all_others_are_left_out_by_their_true_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gdcm", None)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "good.bmp").write_bytes(READ["BMP"]()[0])
    for name, (make, _) in LEFT_OUT.items():
        (tmp_path / "cat" / name).write_bytes(make())
    data = read(tmp_path)
    left_out = check(data, survey(data)).left_out
    assert tell_left_out(left_out) == 3
    reasons = {Path(out.path).name: out.reason for out in left_out}
    assert reasons.keys() == LEFT_OUT.keys()
    assert [n for n, (_, reason) in LEFT_OUT.items() if reason not in reasons[n]] == []
