import os
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import TURNED, over_white, photo, saved, turned, variants
from PIL import Image

from headstart.data import decoding
from headstart.data.decoding import Pixels, decode, sniffed
from headstart.errors import DataError

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
        assert sniffed(tmp_path / "file")


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
        (b"not a picture at all", "not a picture in a format read here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture in a format"),
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
        "import sys; from headstart.data.decoding import decode\n"
        "from headstart.runtime import peak_rss_bytes\n"
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
