"""ZIP archives read in place, and archives that must be unpacked."""

import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import saved
from PIL import Image

from headstart.base.errors import DataError
from headstart.data import zip_files
from headstart.modalities.images.decoding import decode, read_file
from headstart.modalities.reading import read, survey


def picture(level: int) -> bytes:
    return saved(Image.new("L", (9, 8), level), "PNG")


def zipped(path: Path, names: str, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for level, name in enumerate(names.split()):
            file.writestr(name, picture(level))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "photos/", "archive/photos/"])
def test_an_archive_is_read_as_its_folder_is(top: str, method: int, tmp_path: Path) -> None:
    names = " ".join(f"{top}{name}" for name in ("cat/1.png", "cat/2.png", "dog/1.png"))
    path = zipped(tmp_path / "a.zip", f"{names} __MACOSX/cat/1.png {top}README", method)
    data = read(path)
    assert data.ids == ("cat/1.png", "cat/2.png", "dog/1.png")
    assert data.classes == ("cat", "dog")
    assert survey(data).errors == {}
    assert [pixels.mean() for pixels in map(decode, map(read_file, data.sources))] == [0, 1, 2]
    assert {out.expected for out in data.left_out if out.path != "README"} == {True}
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    assert set(read(tmp_path / "unpacked" / top).ids) >= set(data.ids)


def test_parts_in_an_archive_are_parts(tmp_path: Path) -> None:
    names = [f"x/{part}/{c}/{i}.png" for part in ("train", "test") for c in "ab" for i in (1, 2)]
    data = read(zipped(tmp_path / "a.zip", " ".join(names)))
    assert sorted(set(data.parts)) == ["test", "train"]


@pytest.mark.parametrize(
    "name", ["../dog/1.png", "/etc/dog/1.png", "C:/dog/1.png", "a\\..\\..\\b.png"]
)
def test_a_name_never_leads_out_of_the_archive(name: str, tmp_path: Path) -> None:
    data = read(zipped(tmp_path / "a.zip", f"cat/1.png dog/2.png {name}"))
    assert len(data) == 2
    assert [out.reason for out in data.left_out] == [zip_files.LEADS_OUT]


def test_links_and_second_members_are_left_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "cat/1.png dog/2.png")
    link = zipfile.ZipInfo("dog/3.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("cat/1.png", picture(77))
    data = read(path)
    assert decode(read_file(data.sources[0])).max() == 0
    assert sorted(out.reason for out in data.left_out) == [
        "a link, which is not followed",
        "a second member of this name",
    ]


def changed(path: Path, offset: int, value: bytes) -> Path:
    """Change the entry of the last member in the archive's directory."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2") + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, b"\1\0", "encrypted in a.zip: unpack"),
        (10, struct.pack("<H", 9), "packed by method 9"),
        (16, b"\0\0\0\0", "damaged in a.zip"),
        (24, struct.pack("<I", 60), "damaged in a.zip"),
        (24, struct.pack("<I", 900_000_000), "claims 900,000,000 bytes in"),
        (42, struct.pack("<I", 3), "damaged in a.zip"),
    ],
)
def test_a_member_that_cannot_be_read_is_named_and_the_others_are_read(
    offset: int, value: bytes, reason: str, tmp_path: Path
) -> None:
    path = changed(zipped(tmp_path / "a.zip", "cat/1.png dog/2.png dog/3.png"), offset, value)
    seen = survey(read(path))
    assert list(seen.errors) == [2]
    assert reason in seen.errors[2]


@pytest.mark.parametrize(
    ("name", "offset", "value", "reason", "label"),
    [
        ("README.md", 8, b"\1\0", "cannot be read: encrypted in a.zip: unpack", ""),
        ("photos/dog/notes.bin", 10, struct.pack("<H", 9), "cannot be read: packed by", ""),
        ("photos/dog/2.heic", 42, struct.pack("<I", 3), "damaged in a.zip", "dog"),
    ],
)
def test_a_member_that_cannot_be_looked_at_is_named_and_the_others_are_read(
    name: str, offset: int, value: bytes, reason: str, label: str, tmp_path: Path
) -> None:
    """A picture counts as one of its class; a README hides no folder around the classes."""
    path = zipped(tmp_path / "a.zip", f"photos/cat/1.png photos/dog/1.png {name}")
    data = read(changed(path, offset, value))
    assert data.classes == ("cat", "dog")
    assert [(out.expected, out.label) for out in data.left_out] == [(False, label)]
    assert data.left_out[0].reason.startswith(reason)
    assert Path(data.left_out[0].path).name == Path(name).name


def test_only_the_head_of_other_members_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_files, "read_member", None)
    path = zipped(tmp_path / "a.zip", "cat/1.png dog/1.png dog/2")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("notes.bin", bytes(100_000_000))
    data = read(path)
    assert data.ids == ("cat/1.png", "dog/1.png", "dog/2")
    assert [(out.path, out.expected) for out in data.left_out] == [("notes.bin", True)]


def test_a_member_without_a_name_is_left_out(tmp_path: Path) -> None:
    data = read(zipped(tmp_path / "a.zip", "cat/1.png dog/2.png ."))
    assert len(data) == 2
    assert [out.reason for out in data.left_out] == [zip_files.NAMELESS]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("cat/1.png", picture(1))
        file.writestr("dog/bomb.png", bytes(100_000_000))
    assert "claims 100,000,000 bytes" in survey(read(tmp_path / "a.zip")).errors[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("photos.tar.gz", "Unpack it, tar -xf .*photos.tar.gz -C FOLDER, and give the folder"),
        ("cifar-10-python.tar.gz", "Unpack it, tar -xf"),
        ("images.tar.gz", "unpack images.tar.gz and annotations.tar.gz into one folder"),
        ("photos.7z", "Unpack it"),
        ("damaged.zip", "must be a ZIP archive, and can't be read"),
    ],
)
def test_another_archive_is_refused_with_how_to_unpack_it(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b" + bytes(40))
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_a_table_in_an_archive_is_named_as_the_reason_to_unpack_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "train/1.png train/2.png test/3.png")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("train.csv", "id,label\n1,cat\n2,dog\n")
    with pytest.raises(DataError, match=r"Unpack .*a.zip if a table in it holds the labels"):
        read(path)
    assert np.array_equal(decode(read_file(path / "train" / "1.png")), np.zeros((8, 9, 3)))
    with pytest.raises(FileNotFoundError):
        read_file(path / "train" / "9.png")
