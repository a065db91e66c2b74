import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import png
import pytest
import tifffile
from numpy.typing import NDArray
from pictures import TURNED, over_white, photo, saved, turned, variants
from PIL import Image

from headstart.base.errors import DataError
from headstart.modalities.images import decoding, formats
from headstart.modalities.images.decoding import Pixels, decode

PHOTO = photo(np.random.default_rng(0), 240, 180)
VARIANTS = variants(PHOTO)
LOSSY = {"png palette": 5, "png palette over white": 5, "gif": 5, "gif animated": 5}  # levels


def rgb(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def apart(a: Pixels, b: Pixels) -> NDArray[np.int64]:
    assert a.shape == b.shape
    return np.abs(a.astype(np.int64) - b)


@pytest.mark.parametrize("name", VARIANTS)
def test_one_picture_saved_24_ways_looks_the_same(name: str) -> None:
    pixels = decode(VARIANTS[name])
    original = rgb(PHOTO.convert("L") if "grey" in name else PHOTO)
    limit = 2 if "jpeg" in name else LOSSY.get(name, 0)
    assert pixels.dtype == np.uint8
    assert apart(pixels, original).mean() <= limit


def test_there_are_24_ways_and_all_are_recognised(tmp_path: Path) -> None:
    assert len(VARIANTS) == 24
    for data in VARIANTS.values():
        (tmp_path / "file").write_bytes(data)
        assert not formats.why_not_decoded(tmp_path / "file")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_comes_out_upright(orientation: int, format: str) -> None:
    pixels = decode(turned(PHOTO, orientation, format))
    assert apart(pixels, rgb(PHOTO)).mean() < 8  # another orientation is off by 40


@pytest.mark.parametrize("short_side", [None, 80, 40, 20])
@pytest.mark.parametrize("orientation", TURNED)
def test_the_fast_way_turns_as_pillow_does(
    orientation: int, short_side: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = turned(PHOTO, orientation, "JPEG")
    fast = decode(data, short_side=short_side)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    np.testing.assert_array_equal(fast, decode(data, short_side=short_side))


@pytest.mark.parametrize("size", [(240, 180), (241, 179), (97, 333), (16, 16), (7, 9)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_simplejpeg_gives_the_bytes_that_pillow_gives(
    mode: str, subsampling: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photo(np.random.default_rng(1), *size).convert(mode)
    files = [
        saved(image, "JPEG", quality=quality, progressive=progressive, subsampling=subsampling)
        for quality, progressive in ((95, False), (60, True))
    ]
    sides = [None, *(max(1, min(size) // n // 2) for n in (2, 4, 8))]
    fast = [decode(f, short_side=side) for f in files for side in sides]
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    slow = [decode(f, short_side=side) for f in files for side in sides]
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("short_side", "shape"),
    [(None, (180, 240)), (91, (180, 240)), (90, (180, 240)), (45, (90, 120)), (22, (45, 60))],
)
def test_a_jpeg_keeps_twice_the_pixels_that_are_needed(
    short_side: int | None, shape: tuple[int, int]
) -> None:
    assert decode(saved(PHOTO, "JPEG"), short_side=short_side).shape == (*shape, 3)


def test_only_jpegs_are_scaled() -> None:
    assert decode(VARIANTS["png"], short_side=10).shape == (180, 240, 3)


def test_transparent_is_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    for format in ("PNG", "WEBP", "TIFF"):
        assert (decode(saved(clear, format)) == 255).all()


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (1, 2, 3)), ("P", 0), ("1", 0)])
def test_the_transparent_colour_of_a_png_is_white(mode: str, key: object) -> None:
    image = Image.new("RGB", (4, 4), (1, 2, 3)) if mode == "RGB" else Image.new(mode, (4, 4), key)  # type: ignore[arg-type]
    assert (decode(saved(image, "PNG", transparency=key)) == 255).all()


def test_half_transparent_is_half_white() -> None:
    grey = decode(saved(Image.new("LA", (2, 2), (0, 128)), "PNG"))
    assert (grey == 127).all()
    assert apart(decode(saved(over_white(PHOTO), "PNG")), rgb(PHOTO)).max() <= 1


def test_one_bit_is_black_and_white() -> None:
    image = PHOTO.convert("1")
    for format in ("PNG", "BMP", "TIFF", "GIF"):
        np.testing.assert_array_equal(decode(saved(image, format)), rgb(image))


@pytest.mark.parametrize("byteorder", ["<u2", ">u2"])
def test_16_bits_are_scaled_not_clipped(byteorder: str) -> None:
    levels = np.array([[0, 257, 32896, 65535]], np.uint16)
    image = Image.frombytes("I;16", (4, 1), levels.astype("<u2").tobytes())
    if byteorder == ">u2":
        image = Image.frombytes("I;16B", (4, 1), levels.astype(">u2").tobytes())
    assert decode(saved(image, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_dark_16_bit_picture_stays_dark() -> None:
    dark = Image.fromarray(np.full((3, 3), 200, np.uint16))
    assert decode(saved(dark, "PNG")).max() == 1


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 51.0, 255.0], [0, 51, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([0.0, 5e5, 1e6], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([-3.0, -3.0, -3.0], [0, 0, 0]),
    ],
)
def test_floats_are_scaled_by_the_usual_range_that_holds_them(
    values: list[float], levels: list[int]
) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert decode(saved(image, "TIFF"))[0, :, 1].tolist() == levels


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    image = Image.fromarray(np.array([[0.5, bad]], np.float32))
    with pytest.raises(DataError, match="not finite"):
        decode(saved(image, "TIFF"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "F", "CMYK"])
def test_bands_make_no_difference(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.asarray(PHOTO.convert("L"))
    special: dict[str, NDArray[Any]] = {
        "I;16": grey.astype(np.uint16) * 200,
        "F": grey.astype(np.float32) - 50,
    }
    image = Image.fromarray(special[mode]) if mode in special else PHOTO.convert(mode)
    data = saved(image, "TIFF")
    whole = decode(data)
    monkeypatch.setattr(decoding, "BAND_PIXELS", 1000)
    np.testing.assert_array_equal(decode(data), whole)


def test_the_first_picture_of_an_mpo_is_taken() -> None:
    data = saved(PHOTO, "MPO", save_all=True, append_images=[PHOTO.rotate(180)])
    np.testing.assert_array_equal(decode(data), decode(saved(PHOTO, "JPEG")))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk" * 9])
def test_a_broken_exif_block_is_no_reason_to_lose_a_picture(format: str, exif: bytes) -> None:
    data = saved(PHOTO, format, exif=exif)
    np.testing.assert_array_equal(decode(data), decode(saved(PHOTO, format)))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_broken_colour_profile_does_not_matter(format: str) -> None:
    data = saved(PHOTO, format, icc_profile=b"not a profile")
    np.testing.assert_array_equal(decode(data), decode(saved(PHOTO, format)))


def test_pillow_is_quiet_about_odd_metadata() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        decode(saved(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"))
    assert not said


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9])
def test_a_file_cut_short_is_refused(name: str, kept: float) -> None:
    if "animated" in name or "pages" in name:
        pytest.skip("its first frame may be whole")
    data = VARIANTS[name]
    with pytest.raises(DataError):
        decode(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not a picture but a text file"),
        (b"\xfe\xed\xfa\xce" * 9, "not a picture in a format read here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG picture"),
        (VARIANTS["jpeg"][:5000], "truncated"),
        (VARIANTS["png"][:5000], "truncated"),
    ],
)
def test_what_is_no_whole_picture_is_refused_with_the_reason(
    data: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "picture.jpg").write_bytes(data)
    with pytest.raises(DataError, match=reason):
        decode(tmp_path / "picture.jpg")


def test_a_picture_under_another_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(VARIANTS["png"])
    np.testing.assert_array_equal(decode(tmp_path / "picture.txt"), rgb(PHOTO))


def test_a_file_that_cannot_be_read_stays_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "nothing.png")
    with pytest.raises(IsADirectoryError):
        decode(tmp_path)


def test_a_file_larger_than_any_picture_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "disk.jpg", "wb") as f:
        os.truncate(f.fileno(), decoding.MAX_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(DataError, match=r"too large \(1.0 GB\)"):
        decode(tmp_path / "disk.jpg")


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has so many white pixels, and holds a thousandth of them."""
    white = Image.new("1", (width, height // 1000), 1)
    data = bytearray(saved(white, "PNG"))
    data[20:24] = height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("height", "reason"),
    [
        (60_000, "more than 64 million"),
        (4_000, "has 20000x4000 pixels, more than 64 million"),
        (3_000, "in only .* bytes"),
    ],
)
def test_a_bomb_is_refused_before_it_takes_memory(height: int, reason: str, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(20_000, height))
    assert (tmp_path / "bomb.png").stat().st_size < 20_000
    probe = (
        "import sys; from headstart.modalities.images.decoding import decode\n"
        "from headstart.base.runtime import peak_rss_bytes\n"
        "before = peak_rss_bytes()\n"
        "try: decode(open(sys.argv[1], 'rb').read())\n"
        "except ValueError as error: print((peak_rss_bytes() - before) // 10**6, error)\n"
    )
    command = [sys.executable, "-c", probe, str(tmp_path / "bomb.png")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    megabytes, error = said.split(" ", 1)
    assert int(megabytes) < 20
    with pytest.raises(DataError, match=reason):
        raise DataError(error)


def test_a_bomb_is_refused_after_somebody_reset_the_warnings() -> None:
    for _ in range(2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with pytest.raises(DataError, match="64 million"):
                decode(bomb(20_000, 60_000))
        assert not said


def test_a_large_blank_scan_is_a_picture() -> None:
    page = Image.new("1", (2480, 3508), 1)  # A4 at 300 dots an inch: one bit a line
    assert (decode(saved(page, "TIFF", compression="group4")) == 255).all()


def test_errors_are_told_in_a_phrase() -> None:
    with pytest.raises(DataError) as caught:
        decode(VARIANTS["bmp"][:60])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


Options = dict[str, Any]
RGB8 = rgb(PHOTO)
ORDERS = ("<", ">")


def tiff(values: NDArray[Any], order: Any = "<", **options: Any) -> bytes:
    """A TIFF by tifffile, which shares no code with Pillow."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=order, bigtiff=options.pop("big", False)) as out:
        out.write(values, metadata=None, **{"photometric": "minisblack", **options})
    return file.getvalue()


def ramp(dtype: str) -> NDArray[Any]:
    """5 x 9 values over the whole range of a type; of floats 0 to 1."""
    if dtype[0] == "f":
        return np.linspace(0, 1, 45).astype(dtype).reshape(5, 9)
    lowest, highest = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return np.rint(np.linspace(lowest, highest * (1 - 1e-9), 45)).astype(dtype).reshape(5, 9)


def ramp_levels(values: NDArray[Any]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return np.rint((values.astype(float) - low) / (high - low) * 255)


PACKED: list[Options] = [
    {},
    {"compression": "adobe_deflate"},
    {"compression": "lzw", "rowsperstrip": 2},
    {"compression": "packbits"},
    {"compression": "adobe_deflate", "tile": (16, 16), "big": True},
    {"compression": "lzw", "predictor": True},
]


@pytest.mark.parametrize("options", PACKED)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_every_sample_of_a_tiff_is_read_as_it_was_written(
    dtype: str, order: str, options: Options
) -> None:
    values = ramp(dtype)
    pixels = decode(tiff(values, order, **options))
    assert np.abs(pixels[..., 1] - ramp_levels(values)).max() <= 1  # a tie either way
    white = decode(tiff(values, order, **{**options, "photometric": "miniswhite"}))
    np.testing.assert_array_equal(white, 255 - pixels)


@pytest.mark.parametrize("options", PACKED)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
def test_planes_of_a_tiff_are_its_colours(dtype: str, order: str, options: Options) -> None:
    top = 1.0 if dtype[0] == "f" else np.iinfo(dtype).max / 255
    values = (RGB8[:40, :50] / (255 if dtype[0] == "f" else 1) * top).astype(dtype)
    planes = tiff(
        np.moveaxis(values, 2, 0), order, **{**options, "photometric": "rgb"}, planarconfig=2
    )
    assert apart(decode(planes), RGB8[:40, :50]).max() <= 1
    chunky = tiff(values, order, **{**options, "photometric": "rgb"})
    np.testing.assert_array_equal(decode(chunky), decode(planes))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("colours", [1, 3])
def test_alpha_of_a_tiff_lies_on_white(colours: int, alpha: str, dtype: str) -> None:
    top = 1.0 if dtype[0] == "f" else float(np.iinfo(dtype).max)
    values = np.array([0.4] * colours + [0.8]) * top
    data = tiff(
        np.broadcast_to(values.astype(dtype), (4, 4, colours + 1)),
        photometric="rgb" if colours == 3 else "minisblack",
        extrasamples=[alpha],
        planarconfig=1,
    )
    white = {"assocalpha": 0.4 + 0.2, "unassalpha": 0.4 * 0.8 + 0.2, "unspecified": 0.4}[alpha]
    assert np.abs(decode(data)[0, 0] - white * 255.0).max() <= 1.5


def test_12_bits_are_white_at_4095() -> None:
    data = tiff(np.array([[0, 2048, 4095]], np.uint16), bitspersample=12)
    assert decode(data)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiffs_come_out_upright(orientation: int) -> None:
    how = TURNED[orientation]
    turned_photo = PHOTO if how is None else PHOTO.transpose(how)
    tag = (274, 3, 1, orientation, True)
    data = tiff(rgb(turned_photo).astype("u2") * 257, ">", photometric="rgb", extratags=[tag])
    np.testing.assert_array_equal(decode(data), RGB8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(ramp("u1").astype("c8")), "complex numbers"),
        (tiff(np.zeros((8, 8, 5), "u2"), planarconfig=1), "5 bands"),
        (tiff(RGB8, photometric="rgb", compression="lerc"), "LERC"),
        (tiff(RGB8, photometric="rgb", compression="jpegxl"), "JPEG XL"),
        (tiff(RGB8.astype("f4"), photometric="cielab"), r"CIE L\*a\*b\*, 3 x 32-bit floats"),
        (tiff(np.full((4, 4), np.nan, "f8")), "not finite"),
    ],
)
def test_a_layout_that_is_not_read_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode(data)


def test_a_cameras_raw_file_is_not_taken_for_its_thumbnail() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as out:
        out.write(RGB8, photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        out.write(ramp("u2"), photometric="cfa", metadata=None)
    with pytest.raises(DataError, match="a camera's raw picture"):
        decode(file.getvalue())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("options", PACKED)
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_deep_tiff_that_is_cut_short_is_refused(
    kept: float, options: Options, order: str
) -> None:
    data = tiff(RGB8.astype("u2") * 257, order, **{**options, "photometric": "rgb"})
    with pytest.raises(DataError, match="cut short|damaged|not all there"):
        decode(data[: int(len(data) * kept)])


def test_tags_that_claim_the_file_over_and_over_are_refused() -> None:
    size, n = 1_000_000, 40
    entries = b"".join(struct.pack("<HHII", 40_000 + i, 1, size, 8) for i in range(n))
    data = struct.pack("<2sHI", b"II", 42, size) + bytes(size - 8)
    with pytest.raises(DataError, match="whose tags claim"):
        decode(data + struct.pack("<H", n) + entries + bytes(4))


def test_a_tiff_of_absurdly_many_samples_is_refused() -> None:
    data = bytearray(tiff(RGB8.astype("u2"), photometric="rgb"))
    at = data.index(struct.pack("<HHI", 277, 3, 1))
    data[at : at + 12] = struct.pack("<HHII", 277, 4, 1, 2**32 - 1)
    with pytest.raises(DataError, match="claims 4,294,967,295 samples a pixel"):
        decode(bytes(data))


def keyed(values: NDArray[Any], depth: int, key: tuple[int, ...]) -> bytes:
    """A PNG by pypng in which one grey or colour is transparent."""
    grey = len(key) == 1
    file = io.BytesIO()
    transparent: Any = key[0] if grey else key
    writer = png.Writer(
        values.shape[1], len(values), greyscale=grey, bitdepth=depth, transparent=transparent
    )
    writer.write(file, values.reshape(len(values), -1).tolist())
    return file.getvalue()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_transparent_grey_of_a_png_is_white_and_no_other(depth: int) -> None:
    top = 2**depth - 1
    greys = np.array([[0, top // 3, top // 3 + 1, top]])
    pixels = decode(keyed(greys, depth, (top // 3,)))[0, :, 0]
    expected = np.rint(greys[0] * 255 / top)
    assert pixels.tolist() == np.where(greys[0] == top // 3, 255, expected).tolist()


def test_one_transparent_colour_of_16_bits_is_white_and_no_other() -> None:
    colours = np.array([[(4660, 300, 9), (4661, 300, 9), (300, 4660, 9)]])
    pixels = decode(keyed(colours, 16, (4660, 300, 9)))[0]
    assert pixels.tolist() == [[255, 255, 255], [18, 1, 0], [1, 18, 0]]


def with_chunk(kind: bytes, body: bytes, *, intact: bool = True, before: bytes = b"IDAT") -> bytes:
    data = VARIANTS["png"]
    at = data.index(before) - 4
    crc = zlib.crc32(kind + body) ^ (not intact)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)
    return data[:at] + chunk + data[at:]


LARGE_TEXT = zlib.compress(bytes(3_000_000))


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"zTXt", b"Comment\0\0" + LARGE_TEXT),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE_TEXT),
        (b"iCCP", b"profile\0\0" + LARGE_TEXT),
        (b"iCCP", b"profile\0\0nothing packed"),
        (b"gAMA", b"\0"),
        (b"pHYs", b""),
        (b"cHRM", b"\0" * 5),
        (b"acTL", b"\0"),
    ],
)
@pytest.mark.parametrize("intact", [True, False])
def test_a_png_is_not_lost_for_its_metadata(
    kind: bytes, body: bytes, before: bytes, intact: bool
) -> None:
    np.testing.assert_array_equal(
        decode(with_chunk(kind, body, intact=intact, before=before)), RGB8
    )


def test_the_orientation_survives_metadata_that_is_dropped() -> None:
    data = turned(PHOTO, 6, "PNG")
    bad = struct.pack(">I4sI", 0, b"tIME", 1)
    np.testing.assert_array_equal(decode(data[:33] + bad + data[33:]), RGB8)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"tRNS"])
def test_a_wrong_checksum_where_pixels_are_is_damage(kind: bytes) -> None:
    data = bytearray(with_chunk(b"tRNS", bytes(6)))
    at = data.index(kind)
    data[at + 4 + int.from_bytes(data[at - 4 : at], "big")] ^= 1
    with pytest.raises(DataError, match=f"wrong checksum in its {kind.decode()} chunk"):
        decode(bytes(data))


JPEGS: dict[str, Options] = {
    "baseline": {},
    "grey": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 5},
    "progressive, restarts": {"progressive": True, "restart_marker_blocks": 5},
}


def jpeg_of(kind: str) -> bytes:
    return saved(PHOTO.convert("L") if kind == "grey" else PHOTO, "JPEG", **JPEGS[kind])


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_lacks_its_end_marker_alone_is_read(kind: str) -> None:
    data = jpeg_of(kind)
    for short in (data[:-1], data[:-2]):
        np.testing.assert_array_equal(decode(short), decode(data))
        np.testing.assert_array_equal(decode(short, short_side=20), decode(data, short_side=20))


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_lacks_more_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg_of(kind)
    scans = [at for at in range(len(data)) if data[at : at + 2] in (b"\xff\xda", b"\xff\xd3")]
    for cut in (len(data) - 12, len(data) // 2, *scans[1:]):
        with pytest.raises(DataError, match="truncated"):
            decode(data[:cut])


def test_a_jpeg_that_was_filled_up_with_zeros_is_refused() -> None:
    data = jpeg_of("baseline")
    with pytest.raises(DataError, match="cut short .its last 4,096 bytes are zeros"):
        decode(data[: len(data) // 2].rstrip(b"\0") + bytes(4096))
    np.testing.assert_array_equal(decode(data + bytes(4096)), decode(data))


def test_a_palette_of_8_bit_values_in_a_tiff_is_not_black() -> None:
    grey = RGB8[..., 0]
    for top in (255, 65535):
        colours = (np.stack([np.arange(256)] * 3) * (top // 255)).astype("u2")
        data = tiff(grey, photometric="palette", colormap=colours)
        np.testing.assert_array_equal(decode(data)[..., 0], grey)


def test_a_colour_profile_changes_nothing() -> None:
    profile = imagecodecs.cms_profile("adobergb")
    for format in ("PNG", "JPEG", "TIFF", "WEBP"):
        tagged = decode(saved(PHOTO, format, icc_profile=profile))
        np.testing.assert_array_equal(tagged, decode(saved(PHOTO, format)))


@pytest.mark.parametrize("marker", [0xE0, 0xE2, 0xED, 0xEE, 0xFE])
@pytest.mark.parametrize("body", [b"", b"JFIF", b"ICC_PROFILE\0", b"Adobe", b"MPF\0II*\0"])
def test_a_jpeg_is_not_lost_for_its_metadata(marker: int, body: bytes) -> None:
    data = VARIANTS["jpeg"]
    segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    np.testing.assert_array_equal(decode(data[:2] + segment + data[2:]), decode(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (imagecodecs.jpeg8_encode(RGB8.astype("u2") * 16, bitspersample=12), "12 bits a sample"),
        (imagecodecs.jpegls_encode(RGB8), "a JPEG-LS picture"),
        (imagecodecs.jpeg2k_encode(RGB8.astype("u2") * 257), "JPEG 2000 picture of 16-bit colours"),
        (imagecodecs.jpeg2k_encode(RGB8[..., :2].copy()), "JPEG 2000 picture of 2 components"),
        (imagecodecs.jpegxl_encode(RGB8), "a JPEG XL picture"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a QuickTime video"),
        (b"<!DOCTYPE html><title>404</title>", "an HTML page"),
        (b"%PDF-1.4\n1 0 obj\n", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (bytes(4000), "zero bytes only"),
    ],
)
def test_what_a_file_is_its_refusal_says(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode(bytes(data))


def test_only_layouts_that_used_to_come_wrong_have_a_new_name_in_the_store() -> None:
    same = [data for name, data in VARIANTS.items() if "tiff grey" not in name]
    for data in (*same, b"no picture", b"II*\0", tiff(RGB8, ">", photometric="rgb")):
        assert decoding.store_key(data, b"digest") == b"digest"
    for data in (tiff(ramp("i2"), ">"), keyed(ramp("u1") // 64, 2, (1,))):
        assert decoding.store_key(data, b"digest") != b"digest"
