"""Files that their name or their first bytes call a picture, video or sound that is not read."""

from pathlib import Path

import numpy as np
import pytest
from pictures import photo, saved

from headstart.base.errors import DataError
from headstart.cli.main import main
from headstart.data.checks import CheckPlan, check, good_rows
from headstart.modalities.images import formats
from headstart.modalities.reading import find, read, survey

JXL = b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200)
MOV = b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(200)
GARBAGE = b"\xfe\xed\xfa\xce" * 60


def folder(root: Path, **files: dict[str, bytes]) -> Path:
    """A folder a class with eight pictures each and these files beside them."""
    for label, more in files.items():
        (root / label).mkdir(parents=True)
        for i in range(0 if label.startswith("only_") else 8):
            image = photo(np.random.default_rng((len(label), i)), 40, 36)
            (root / label / f"{i}.png").write_bytes(saved(image, "PNG"))
        for name, data in more.items():
            (root / label / name).write_bytes(data)
    return root


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("IMG_1.JXL", JXL, "a JPEG XL picture"),
        ("no suffix", JXL, "a JPEG XL picture"),
        ("1.jxl", GARBAGE, "a JPEG XL picture"),
        ("1.heic", GARBAGE, "named as a HEIC picture"),
        ("1.dcm", GARBAGE, "named as a DICOM picture"),
        ("1.heic", b"\xff\x0a" + GARBAGE, "a JPEG XL picture"),
        ("1.CR2", b"II*\0\x10\0\0\0CR\2\0" + GARBAGE, "a Canon CR2 raw picture"),
        ("1.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1", "a Canon CR3 raw picture"),
        ("1.psd", b"8BPS\0\1", "a Photoshop PSD picture"),
        ("brain.nii.gz", b"\x1f\x8b" + GARBAGE, "a NIfTI picture"),
        ("1.tga", GARBAGE, "a Targa picture"),
        ("1.ppm", b"P6\n# hand-made\n2 1\n255\n" + bytes(6), "a PNM picture"),
        ("drawing", b"<?xml version='1.0'?>\n<svg/>", "an SVG picture"),
        ("IMG_1.MOV", MOV, "a QuickTime video"),
        ("clip", b"\x1aE\xdf\xa3" + GARBAGE, "a Matroska or WebM video"),
        ("1.avi", b"RIFF\1\0\0\0AVI LIST", "an AVI video"),
        ("1.wav", b"RIFF\1\0\0\0WAVEfmt ", "a WAV sound"),
        ("1.mp3", b"\xff\xfb\x90" + GARBAGE, "an MP3 sound"),
        ("1.m4a", b"\0\0\0\x18ftypM4A \0\0\0\0", "an M4A sound"),
        ("2.m4a", b"\0\0\0\x18ftypmp42\0\0\0\0", "an M4A sound"),
        ("1.wma", b"0&\xb2u\x8ef\xcf\x11" + GARBAGE, "a Windows Media sound"),
        ("1.ogv", b"OggS\0\2" + GARBAGE, "an Ogg video"),
        ("track", b"\xff\xfb\x90\x64" + GARBAGE, "an MP3 sound"),
        ("long", b"RF64\xff\xff\xff\xffWAVEds64", "a WAV sound"),
        ("cells.czi", b"ZISRAWFILE" + bytes(20), "a Zeiss CZI picture"),
        ("scan.mha", b"ObjectType = Image\nNDims = 3\n", "a MetaImage picture"),
        ("1.xbm", b"#define x_width 2\n#define x_height 1\n", "an XBM picture"),
    ],
)
def test_an_announced_example_is_named_with_its_true_format(
    name: str, data: bytes, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    assert what in formats.why_not_decoded(tmp_path / name)
    dataset = read(folder(tmp_path / "data", cat={name: data}, dog={}))
    (left_out,) = dataset.left_out
    assert what in left_out.reason
    assert (left_out.expected, left_out.label) == (False, "cat")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("brain.nii.gz", b"\x1f\x8b\x08" + GARBAGE),
        ("plan.svgz", b"\x1f\x8b\x08" + GARBAGE),
        ("art.kra", b"PK\3\4" + GARBAGE),
    ],
)
def test_a_compressed_picture_is_no_archive_by_another_name(
    name: str, data: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    assert "archive" not in formats.why_not_decoded(tmp_path / name)
    (tmp_path / "photos.jxl").write_bytes(data)
    assert "archive, though its name" in formats.why_not_decoded(tmp_path / "photos.jxl")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README", b"BMW and Audi, seen from the front"),
        ("notes.txt", b"ID3 is an algorithm for trees"),
        ("list", b"P5 and P6 are cameras"),
        ("about.txt", b"GIF89a is a format of 1989"),
        ("poem", b"The wide river"),
        ("todo", b"FLIF and qoif: try them"),
        ("dna.seq", b"G" * 2000),
        ("data.json", b"{}"),
        ("meta.xmp", b"<?xml version='1.0'?><x:xmpmeta/>"),
        ("IMG_1.AAE", b"<?xml version='1.0'?><plist/>"),
        ("paper.pdf", b"%PDF-1.7"),
        ("labels.npy", b"\x93NUMPY\1"),
        ("weights.bin", GARBAGE),
        ("code.ts", b"export const a = 1"),
        ("scene.hdr", b"ENVI\nsamples = 3"),
        ("empty", b""),
    ],
)
def test_what_nobody_meant_as_an_example_is_no_fault(
    name: str, text: bytes, tmp_path: Path
) -> None:
    data = read(folder(tmp_path, cat={name: text}, dog={}))
    assert [(out.reason, out.expected) for out in data.left_out] == [("not an image", True)]


def test_a_class_of_pictures_that_are_not_read_does_not_vanish(tmp_path: Path) -> None:
    films = {f"{i}.jxl": JXL for i in range(30)}
    data = read(folder(tmp_path, bird={}, cat={}, only_dogs=films))
    seen = survey(data)
    with pytest.raises(DataError, match="30 of 30 images of 'only_dogs'.*0.jxl.*a JPEG XL picture"):
        good_rows(data, seen)
    assert good_rows(data, seen, CheckPlan(max_bad=1)).classes == ("bird", "cat")
    assert sum(not out.expected for out in check(data, seen).left_out) == 30


def test_only_such_pictures_are_refused_with_their_format(tmp_path: Path) -> None:
    data = folder(tmp_path, only_cats={"1.jxl": JXL}, only_dogs={"2.jxl": JXL})
    with pytest.raises(DataError, match=r"2 files there are not read; .*1.jxl \(a JPEG XL picture"):
        read(data)


@pytest.mark.long
def test_a_film_beside_pictures_is_named_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(tmp_path, cat={"notes.txt": b"ID3 is an algorithm"}, dog={})
    assert main(["check", str(data)]) == 0
    (data / "cat" / "1.MOV").write_bytes(MOV)
    assert main(["check", str(data), "--max-bad", "0.2"]) == 3
    assert "cat/1.MOV: not a picture but a QuickTime video" in capsys.readouterr().err
    assert main(["check", str(data)]) == 1
    assert "1 of 9 images of 'cat'" in capsys.readouterr().err


def test_in_parts_they_belong_to_the_class_and_outside_of_classes_to_none(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        folder(tmp_path / part, cat={"1.jxl": JXL}, dog={})
    (tmp_path / "train" / "stray.jxl").write_bytes(JXL)
    labels = {out.path: out.label for out in read(tmp_path).left_out}
    assert labels == {
        **{f"{part}/cat/1.jxl": "cat" for part in ("test", "train", "val")},
        "train/stray.jxl": "",
    }


@pytest.mark.parametrize("name", ["a.jxl", "a.jpg", "a"])
def test_a_manifest_counts_them_by_their_true_format(name: str, tmp_path: Path) -> None:
    folder(tmp_path, cat={name: JXL}, dog={})
    rows = [f"{label}/{i}.png,{label}" for label in ("cat", "dog") for i in range(8)]
    (tmp_path / "all.csv").write_text("\n".join(["path,label", f"cat/{name},cat", *rows]))
    data = read(tmp_path / "all.csv")
    with pytest.raises(DataError, match=f"1 of 9 images of 'cat'.*{name} .a JPEG XL picture"):
        good_rows(data, survey(data))


def test_a_folder_to_predict_names_every_file_that_is_not_read(tmp_path: Path) -> None:
    films = {f"{i}.jxl": JXL for i in range(15)} | {"notes.txt": b"text", "x.jpg": JXL}
    data, left_out = find([folder(tmp_path, cat=films) / "cat"])
    assert len(data) == 9  # x.jpg is decoded, and refused then
    assert sum(not out.expected for out in left_out) == 15
    assert [out.reason for out in left_out if out.expected] == ["not an image"]
