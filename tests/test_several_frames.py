"""Files of several frames or pages, of which the first is the picture: named with their number."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from dicom_files import dicom
from pictures import photo
from PIL import Image

from headstart.data.checks import check
from headstart.modalities.images.decoding import frames
from headstart.modalities.reading import read, survey
from headstart.reporting.words import Words


def images(n: int) -> list[Image.Image]:
    return [photo(np.random.default_rng(i), 48, 40) for i in range(n)]


def animated(form: str, n: int = 3, **settings: Any) -> bytes:
    first, *others = images(n)
    stream = io.BytesIO()
    first.save(stream, form, save_all=True, append_images=others, **settings)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_frames_and_pages_are_counted(form: str) -> None:
    assert frames(animated(form)) == 3
    assert frames(animated(form, 1)) == 1


def test_frames_of_dicom_and_heic_are_counted() -> None:
    assert frames(dicom(np.zeros((5, 24, 32), np.uint16))) == 5
    assert frames(dicom(np.zeros((24, 32), np.uint16))) == 1
    heif = pytest.importorskip("pillow_heif")
    stream, (first, *others) = io.BytesIO(), images(2)
    file = heif.from_pillow(first)
    for other in others:
        file.add_from_pillow(other)
    file.save(stream)
    assert frames(stream.getvalue()) == 2


def test_smaller_copies_and_masks_of_a_tiff_are_no_pages_of_their_own() -> None:
    stream = io.BytesIO()
    pixels = np.asarray(images(1)[0])
    with tifffile.TiffWriter(stream, bigtiff=True) as file:
        for subfile, step in ((0, 1), (1, 2), (0, 1), (2, 1)):
            file.write(pixels[::step, ::step], subfiletype=subfile, photometric="rgb")
        file.write(pixels[..., 0] > 9, subfiletype=4, photometric="mask")
    assert frames(stream.getvalue()) == 3  # the first, the third, and a page of a document


def test_a_tiff_whose_pages_form_a_ring_ends() -> None:
    data = bytearray(animated("TIFF", 2))
    order = "little" if data[:2] == b"II" else "big"
    first = int.from_bytes(data[4:8], order)  # type: ignore[arg-type]
    entries = int.from_bytes(data[first : first + 2], order)  # type: ignore[arg-type]
    at = first + 2 + 12 * entries
    data[at : at + 4] = data[4:8]  # the page after the first is the first
    assert frames(bytes(data)) == 1


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"II*\0\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_file_has_one(data: bytes) -> None:
    assert frames(data) == 1


def test_the_checks_name_them_with_their_number(tmp_path: Path) -> None:
    for i, image in enumerate(images(8)):
        folder = tmp_path / ("cat" if i % 2 else "dog")
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{i}.png")
    (tmp_path / "cat" / "1.tif").write_bytes(animated("TIFF", 3))
    data = read(tmp_path)
    checks = check(data, survey(data))
    said = "cat/1.tif: the first of 3 frames or pages is used"
    assert ("several frames", "1", said) in checks.findings.table()
    (remark,) = (mark for mark in checks.remarks if mark.kind == "several frames")
    assert str(Words("en")(f"remark.{remark.text}", **dict(remark.facts))) == remark.reason
    assert f"remark.{remark.text}" in Words("ru")
