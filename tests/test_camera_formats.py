"""Pictures of phones, cameras and clinics: HEIC, AVIF, JPEG 2000 and DICOM."""

import io
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pydicom
import pytest
from dicom_files import dicom, ramp
from numpy.typing import NDArray
from pictures import photo, saved
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from headstart.base.errors import DataError
from headstart.cli.printing import tell_left_out
from headstart.data.checks import good_rows
from headstart.modalities.images import formats
from headstart.modalities.images.decoding import claimed_size, decode
from headstart.modalities.images.frames import frame_of
from headstart.modalities.reading import read, survey

PHOTO = photo(np.random.default_rng(0), 60, 44)
RGB = np.asarray(PHOTO)


def heic(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


def furthest(pixels: NDArray[Any], original: NDArray[Any]) -> int:
    assert pixels.shape == original.shape
    return int(np.abs(pixels.astype(int) - original).max())


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_a_heic_picture_is_what_was_saved(mode: str) -> None:
    plain = np.asarray(PHOTO.convert("L" if mode[0] == "L" else "RGB").convert("RGB"))
    data = heic(PHOTO.convert(mode))
    assert furthest(decode(data), plain) <= 1
    assert claimed_size(data) == PHOTO.size


def test_a_heic_picture_is_turned_once(tmp_path: Path) -> None:
    exif = PHOTO.getexif()
    exif[0x0112] = 6
    turned = heic(PHOTO.transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes())
    (tmp_path / "a.heic").write_bytes(turned)
    assert furthest(decode(turned), RGB) <= 1
    assert (frame_of(tmp_path / "a.heic").width, frame_of(tmp_path / "a.heic").height) == (60, 44)


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_an_avif_picture_is_upright(orientation: int) -> None:
    how = {1: None, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = PHOTO.getexif()
    exif[0x0112] = orientation
    image = PHOTO if how is None else PHOTO.transpose(how)
    data = saved(image, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    assert furthest(decode(data), RGB) <= 3


def test_grey_and_colours_of_jpeg_2000_are_read_and_the_kind_of_file_does_not_matter() -> None:
    for name in ("jp2", "j2k"):
        data = imagecodecs.jpeg2k_encode(RGB, level=0, reversible=True, codecformat=name)
        np.testing.assert_array_equal(decode(data), RGB)
    deep = RGB[..., 0].astype("u2") * 257
    grey = imagecodecs.jpeg2k_encode(deep, level=0, reversible=True)
    np.testing.assert_array_equal(decode(grey)[..., 1], RGB[..., 0])


@pytest.mark.parametrize(
    ("kind", "data", "package", "remedy"),
    [
        ("HEIF", heic(PHOTO), "pillow_heif pi_heif", "a HEIC picture, which needs .*pillow-heif"),
        ("DICOM", dicom(ramp()), "pydicom", "a DICOM picture, which needs .*pydicom.*dicom"),
    ],
)
def test_without_its_package_a_format_is_named_with_the_remedy(
    kind: str,
    data: bytes,
    package: str,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in package.split():
        monkeypatch.setitem(sys.modules, name, None)
    assert formats.readable(data[: formats.HEAD_BYTES]) == kind
    with pytest.raises(DataError, match=remedy):
        decode(data)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(30):
            image = Image.new("L", (40, 36), len(label) + i)
            (tmp_path / label / f"{i}.png").write_bytes(saved(image, "PNG"))
            (tmp_path / label / f"{i}.IMG").write_bytes(data)
    assert tell_left_out(read(tmp_path).left_out) == 3
    err = capsys.readouterr().err
    assert "60 files" in err
    assert err.count("pip install") == 2  # of the extra, and of the extra in a clone
    with pytest.raises(
        DataError, match="30 of 60 images of 'cat'.*0.IMG, .* and 27 more"
    ) as caught:
        good_rows(read(tmp_path), survey(read(tmp_path)))
    assert str(caught.value).count("which needs") == 1


def windowed(data: bytes) -> NDArray[np.float64]:
    """Levels by pydicom's own functions, from 0 to 255."""
    file = pydicom.dcmread(io.BytesIO(data))
    values = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file).astype(float)
    slope = float(getattr(file, "RescaleSlope", 1))
    low = float(getattr(file, "RescaleIntercept", 0)) - slope * (
        2 ** (file.BitsStored - 1) if file.PixelRepresentation else 0
    )
    return (values - low) / (slope * (2**file.BitsStored - 1)) * 255


@pytest.mark.parametrize("how", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("signed", [False, True])
def test_a_window_gives_the_levels_of_pydicom(signed: bool, how: str) -> None:
    tags: dict[str, Any] = {
        "RescaleSlope": 2,
        "RescaleIntercept": -1024,
        "WindowCenter": 400,
        "WindowWidth": 900,
    }
    data = dicom(ramp(12, signed), bits=12, VOILUTFunction=how, **tags)
    assert np.abs(decode(data)[..., 0] - windowed(data)).max() <= 1


def test_of_several_windows_the_first_counts() -> None:
    both = dicom(ramp(), bits=12, WindowCenter=[400, 3000], WindowWidth=[100, 9])
    one = dicom(ramp(), bits=12, WindowCenter=400, WindowWidth=100)
    np.testing.assert_array_equal(decode(both), decode(one))


def test_without_a_window_the_values_of_the_picture_are_black_and_white() -> None:
    values = ramp() // 2 + 100
    levels = np.rint((values - 100.0) / (values.max() - 100) * 255)
    assert furthest(decode(dicom(values, bits=12))[..., 2], levels) <= 1
    padded = values.copy()
    padded[:5] = 4000
    pixels = decode(dicom(padded, bits=12, PixelPaddingValue=4000))
    assert (pixels[:5] == 0).all()
    assert pixels[5:].max() == 255
    np.testing.assert_array_equal(decode(dicom(ramp(8)[4:9] // 2))[..., 0], ramp(8)[4:9] // 2)


def test_monochrome1_is_inverted() -> None:
    white = decode(dicom(ramp(), "MONOCHROME1", bits=12))
    np.testing.assert_array_equal(white, 255 - decode(dicom(ramp(), bits=12)))


def test_a_table_of_levels_is_looked_up() -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (65535 - 257 * np.arange(256)).astype("<u2").tobytes()
    pixels = decode(dicom(ramp(8), VOILUTSequence=[table]))
    np.testing.assert_array_equal(pixels[..., 0], 255 - ramp(8))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_compressed_pictures_are_the_same(syntax: Any) -> None:
    np.testing.assert_array_equal(decode(dicom(ramp(), syntax=syntax)), decode(dicom(ramp())))
    np.testing.assert_array_equal(decode(dicom(RGB, "RGB", syntax=syntax)), RGB)


def test_the_first_frame_is_taken_and_a_head_may_be_missing() -> None:
    whole = dicom(ramp())
    np.testing.assert_array_equal(decode(dicom(np.stack([ramp(), ramp() // 9]))), decode(whole))
    np.testing.assert_array_equal(decode(whole[132:]), decode(whole))
    np.testing.assert_array_equal(decode(b"II*\0" + whole[4:]), decode(whole))  # a dual file


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"syntax": "1.2.840.10008.1.2.4.57"}, "compressed as JPEG Lossless.*gdcm"),
        ({"syntax": "1.2.840.10008.1.2.4.201"}, "compressed as High-Throughput JPEG 2000"),
        ({"syntax": "1.2.840.10008.1.2.1.99"}, "compressed as a whole"),
        ({"PhotometricInterpretation": "YBR_ICT2"}, "YBR_ICT2"),
        ({"Rows": 60_000, "Columns": 60_000}, "more than 64 million"),
        ({"Rows": 0}, "no pixels"),
        ({"PixelData": b""}, "cannot be decoded"),
    ],
)
def test_what_is_not_read_is_named(
    change: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gdcm", None)
    stored = RLELossless if "syntax" in change else ImplicitVRLittleEndian
    file = pydicom.dcmread(io.BytesIO(dicom(ramp(), syntax=stored)))
    if syntax := change.get("syntax"):
        file.file_meta.TransferSyntaxUID = syntax
    else:
        for name, value in change.items():
            setattr(file, name, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, file, enforce_file_format=True)
    data = stream.getvalue()
    with pytest.raises(DataError, match=reason):
        decode(data)


def test_a_directory_and_a_report_are_no_pictures(tmp_path: Path) -> None:
    file = pydicom.dcmread(io.BytesIO(dicom(ramp())))
    del file.PixelData
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    file.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    assert formats.why_not_decoded(tmp_path / "DICOMDIR") == formats.NOT_AN_IMAGE
    with pytest.raises(DataError, match=r"without a picture \(Basic Text SR Storage\)"):
        decode(tmp_path / "DICOMDIR")
