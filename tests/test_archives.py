"""CIFAR-10 and the Oxford-IIIT pets, as their archives unpack, made small on the spot."""

import io
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.base.errors import DataError
from headstart.data.checks import check
from headstart.data.dataset import LeftOut
from headstart.data.splits import split
from headstart.data.walking import LEADS_OUT
from headstart.features.extract import extract
from headstart.modalities.images import formats
from headstart.modalities.images.archives import _batch, read_archive
from headstart.modalities.images.decoding import decode, read_file
from headstart.modalities.reading import read, survey

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
LABELS = [3, 9, 0, 3, 7]
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
VERSIONS = ["bin", "py 2", "py 3", "py 4"]  # py: and the protocol of the pickles


class OldPickler(pickle._Pickler):
    """Bytes as Python 2 wrote them, whose pickles CIFAR-10 is published in."""

    dispatch: ClassVar[Any] = dict(pickle._Pickler.dispatch)

    def save_str(self: Any, data: bytes) -> None:
        short = struct.pack("<cB", b"U", len(data)) if len(data) < 256 else b""
        self.write((short or struct.pack("<cI", b"T", len(data))) + data)
        self.memoize(data)

    dispatch[bytes] = save_str


def pickled(value: object, protocol: int) -> bytes:
    if protocol > 2:
        return pickle.dumps(value, protocol)
    file = io.BytesIO()
    OldPickler(file, protocol).dump(value)
    return file.getvalue()


def planes(batch: int, n: int = len(LABELS)) -> NDArray[np.uint8]:
    """(n, 3072) uint8: each picture red, green, blue in turn."""
    return np.random.default_rng(batch).integers(0, 256, (n, 3072), dtype=np.uint8)


def batch_py(pixels: NDArray[np.uint8], labels: Any = LABELS, protocol: int = 2) -> bytes:
    names = [b"picture_%05d.png" % i for i in range(len(pixels))]
    value = {b"batch_label": b"b", b"labels": labels, b"data": pixels, b"filenames": names}
    return pickled(value, protocol)


def cifar(folder: Path, version: str = "bin") -> Path:
    root = folder / f"cifar-10-batches-{version[:3].strip()}"
    root.mkdir(parents=True)
    (root / "readme.html").write_text("about")
    if version == "bin":
        (root / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    else:
        meta = {b"num_cases_per_batch": 5, b"label_names": [c.encode() for c in CLASSES], b"n": 7}
        (root / "batches.meta").write_bytes(pickled(meta, int(version[-1])))
    for number, name in enumerate(BATCHES):
        pixels = planes(number)
        if version == "bin":
            records = np.concatenate([np.array(LABELS, np.uint8)[:, None], pixels], axis=1)
            (root / f"{name}.bin").write_bytes(records.tobytes())
        else:
            (root / name).write_bytes(batch_py(pixels, protocol=int(version[-1])))
    return root


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("named", ["the folder", "its parent", "a link"])
def test_cifar_is_read_with_its_parts(tmp_path: Path, version: str, named: str) -> None:
    root = cifar(tmp_path / "data", version)
    (tmp_path / "link").symlink_to(root)
    data = read({"its parent": root.parent, "a link": tmp_path / "link"}.get(named, root))
    assert data.ids[:6] == (*(f"data_batch_1/{i:05}" for i in range(5)), "data_batch_2/00000")
    assert data.ids[-1] == "test_batch/00004"
    assert data.sources[-1].parent in root.resolve().iterdir()
    assert data.sources[-1].name == "00004"
    assert [data.classes[label] for label in data.labels] == [CLASSES[c] for c in LABELS] * 6
    assert data.parts == ("train",) * 25 + ("test",) * 5
    assert data.left_out == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_picture_in_a_batch_is_read_without_loss(tmp_path: Path, version: str) -> None:
    data = read(cifar(tmp_path, version))
    for row, source in enumerate(data.sources):
        expected = planes(row // 5)[row % 5].reshape(3, 32, 32).transpose(1, 2, 0)
        np.testing.assert_array_equal(decode(source), expected)
    (tmp_path / "1.bmp").write_bytes(read_file(data.sources[0]))
    assert formats.readable((tmp_path / "1.bmp").read_bytes()) == "BMP"


def test_both_versions_give_the_same_bytes(tmp_path: Path) -> None:
    versions = [read(cifar(tmp_path / version, version)) for version in VERSIONS]
    assert len({tuple(read_file(source) for source in data.sources) for data in versions}) == 1
    assert len({(data.ids, data.labels, data.classes) for data in versions}) == 1


def test_long_lists_of_labels_come_in_several_goes(tmp_path: Path) -> None:
    """Pickles append a thousand at a time, and a single one that is left in another way."""
    root = cifar(tmp_path, "py 2")
    labels = [i % 10 for i in range(2001)]
    (root / "data_batch_1").write_bytes(batch_py(planes(9, 2001), labels))
    data = read(root)
    assert list(data.labels[:2001]) == [sorted(CLASSES).index(CLASSES[c]) for c in labels]
    last = planes(9, 2001)[2000].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(decode(data.sources[2000]), last)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_batch_is_searched_once_and_again_when_it_changes(tmp_path: Path, version: str) -> None:
    data = read(cifar(tmp_path, version))
    before = _batch.cache_info().misses
    for source in data.sources:
        read_file(source)
    assert _batch.cache_info().misses == before
    file = data.sources[0].parent
    file.write_bytes(batch_py(planes(7, 6), [1] * 6) if "py" in version else bytes(2 * 3073))
    assert (decode(data.sources[0]) == 0).all() == (version == "bin")


def test_batches_that_are_missing_are_left_out(tmp_path: Path) -> None:
    root = cifar(tmp_path)
    (root / "data_batch_3.bin").unlink()
    data = read(root)
    assert len(data) == 25
    assert data.left_out == (LeftOut("data_batch_3.bin", "part of the data set, but no such file"),)


def test_checks_and_features_work_on_members(tmp_path: Path) -> None:
    data, store = read(cifar(tmp_path)), hs.Store(tmp_path / "store")
    seen = survey(data, store=store, threads=2)
    assert seen.errors == {}
    assert (seen.facts["sizes"] == 32).all()
    assert check(data, seen).exact == ()
    first, second = (extract(hs.load_backbone("tiny:32"), data, store=store) for _ in range(2))
    assert (first.ids, first.forwards, second.forwards, second.hits) == (data.ids, 30, 0, 30)
    assert split(data).test.ids == data.ids[25:]


def test_an_index_of_members_is_read_with_a_store(tmp_path: Path) -> None:
    root, out = cifar(tmp_path), tmp_path / "cifar.parquet"
    assert hs.index(root, out).rows == 30
    data, store = hs.read(out), hs.Store(tmp_path / "store")
    assert survey(data, store=store).errors == {}
    table = extract(hs.load_backbone("tiny:32"), data, store=store)
    assert (table.forwards, table.left_out) == (30, ())
    (root / "test_batch.bin").unlink()
    assert set(survey(data, store=store).errors) == set(range(25, 30))


@pytest.mark.parametrize("name", ["00005", "-1", "x", "٣", "1e0", "99999999999"])
def test_numbers_that_a_batch_does_not_have(tmp_path: Path, name: str) -> None:
    root = cifar(tmp_path)
    with pytest.raises(DataError, match="holds pictures 0 to 4, not"):
        read_file(root / "test_batch.bin" / name)


def test_cifar_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    root, other = cifar(tmp_path / "data"), cifar(tmp_path / "other")
    (root / "test_batch.bin").unlink()
    (root / "test_batch.bin").symlink_to(other / "test_batch.bin")
    data = read(root)
    assert set(data.parts) == {"train"}
    assert data.left_out == (LeftOut("test_batch.bin", LEADS_OUT),)
    for name in BATCHES:
        (root / f"{name}.bin").unlink()
        (root / f"{name}.bin").symlink_to(other / f"{name}.bin")
    with pytest.raises(DataError, match=r"6 links lead out of the folder .*data_batch_1\.bin"):
        read(root)


def test_other_files_are_no_folders(shapes: Path) -> None:
    with pytest.raises(NotADirectoryError):
        read_file(shapes / "dark" / "00.png" / "00000")
    with pytest.raises(FileNotFoundError):
        read_file(shapes / "dark" / "gone.png")


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["labels", "data", "beside", "batches.meta"])
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, place: str) -> None:
    root, evil = cifar(tmp_path, "py 4"), Evil(tmp_path / "executed")
    value: dict[bytes, Any] = {b"labels": LABELS, b"data": planes(0), b"beside": b""}
    if place == "batches.meta":
        (root / place).write_bytes(pickle.dumps({b"label_names": evil}, 4))
    else:
        value |= {place.encode(): evil}
        (root / "data_batch_1").write_bytes(pickle.dumps(value, 4))
    if place == "beside":
        assert len(read(root)) == 30
    else:
        with pytest.raises(DataError, match="not as in the archive of CIFAR-10"):
            read(root)
    assert not evil.path.exists()


GOOD = batch_py(planes(0))
STRANGE = {
    "empty": b"",
    "no pickle": b"not a pickle at all",
    "truncated": GOOD[: len(GOOD) // 2],
    "no labels": pickled({b"data": planes(0)}, 2),
    "no list": batch_py(planes(0), b"12345"),
    "no labels in the list": batch_py(planes(0), []),
    "other labels": batch_py(planes(0), [1.5] * 5),
    "too few labels": batch_py(planes(0), LABELS[:4]),
    "a label too large": batch_py(planes(0), [3, 9, 0, 3, 10]),
    "a negative label": batch_py(planes(0), [3, 9, 0, 3, -1]),
    "numbers of numpy's": batch_py(planes(0), list(np.array(LABELS))),
    "by columns": batch_py(np.asfortranarray(planes(0))),
    "two blocks": pickled({b"labels": LABELS, b"data": [planes(0), planes(1)]}, 2),
    "text in place of bytes": pickle.dumps({b"labels": LABELS, b"data": planes(0)}, 2),
    "a list of lists": pickled({b"labels": LABELS, b"data": planes(0).tolist()}, 2),
    "a stray backslash": b"S'\\u'\n.",
    "a wrong length": b"\x8e" + struct.pack("<Q", 2**62),
}


SAID = {
    "no pickle": "is not a pickle",
    "truncated": "is not a pickle",
    "no labels": "has no list named 'labels'",
    "no list": "has no list named 'labels'",
    "no labels in the list": "has an empty list",
    "a label too large": "Labels count from 0 to 9.* holds 0 to 10",
    "by columns": "in another order",
    "two blocks": "must hold one block of 15360 bytes",
    "text in place of bytes": "has no list named 'labels'",
    "a list of lists": "must hold one block of 15360 bytes",
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_pickle_of_another_shape_is_refused(tmp_path: Path, kind: str) -> None:
    root = cifar(tmp_path, "py 2")
    (root / "data_batch_2").write_bytes(STRANGE[kind])
    with pytest.raises(DataError, match=SAID.get(kind, "data_batch_2")) as caught:
        read(root)
    assert "data_batch_2 " in str(caught.value)
    assert str(caught.value).endswith("Unpack the archive again.")


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(GOOD) - 1))
def test_bytes_of_any_kind_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    root = cifar(tmp_path_factory.mktemp("cifar"), "py 2")
    (root / "data_batch_1").write_bytes(GOOD[:at] + junk + GOOD[at + len(junk) :])
    try:
        assert len(read(root)) >= 25
    except DataError:
        pass


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("test_batch.bin", b"", "has 0 bytes, not a multiple of 3073"),
        ("test_batch.bin", bytes(3074), "has 3074 bytes"),
        ("test_batch.bin", b"\x0a" * 3073, "Labels count from 0 to 9.*holds 10 to 10"),
        ("batches.meta.txt", b"", "names 0 classes"),
        ("batches.meta.txt", b"cat\ncat\n", "names 2 classes, 1 of them different"),
        ("batches.meta.txt", b"cat\nd\x1bog\n", "names a class that holds control characters"),
        ("batches.meta.txt", b"cat\nchi\xe9n\n", "names a class that is not UTF-8"),
    ],
)
def test_a_damaged_binary_version_is_refused(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    root = cifar(tmp_path)
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(root)


def test_a_pickle_too_large_is_not_read(tmp_path: Path) -> None:
    root = cifar(tmp_path, "py 2")
    with open(root / "data_batch_1", "ab") as f:
        f.truncate(100_000_001)
    with pytest.raises(DataError, match="has 100000001 bytes, more than"):
        read(root)


PETS = {
    "trainval.txt": "#Image CLASS-ID SPECIES BREED ID\nAbyssinian_100 1 1 1\n"
    "american_pit_bull_terrier_7 3 2 2\n\nAbyssinian_2 1 1 1\n",
    "test.txt": "Abyssinian_201 1 1 1\namerican_pit_bull_terrier_8 3 2 2\n",
}


def pets(folder: Path, lists: dict[str, str] | None = None) -> Path:
    root = folder / "oxford-iiit-pet"
    (root / "images").mkdir(parents=True)
    (root / "annotations" / "trimaps").mkdir(parents=True)
    for text in PETS.values():
        for line in text.splitlines():
            if line and not line.startswith("#"):
                image = Image.new("RGB", (40, 30), (len(line), 99, 1))
                image.save(root / "images" / f"{line.split()[0]}.jpg")
    (root / "images" / "Abyssinian_100.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    for name, text in (lists or PETS).items():
        (root / "annotations" / name).write_text(text)
    return root


@pytest.mark.parametrize("parent", [False, True])
def test_pets_are_read_by_breed_with_their_parts(tmp_path: Path, parent: bool) -> None:
    root = pets(tmp_path / "data")
    data = read(root.parent if parent else root)
    assert data.classes == ("Abyssinian", "american_pit_bull_terrier")
    assert list(zip(data.ids, data.labels, data.parts, strict=True)) == [
        ("images/Abyssinian_100.jpg", 0, "train"),
        ("images/american_pit_bull_terrier_7.jpg", 1, "train"),
        ("images/Abyssinian_2.jpg", 0, "train"),
        ("images/Abyssinian_201.jpg", 0, "test"),
        ("images/american_pit_bull_terrier_8.jpg", 1, "test"),
    ]
    assert decode(data.sources[0]).shape == (30, 40, 3)
    assert data.left_out == ()


def test_pets_that_are_missing_or_in_no_list_are_left_out(tmp_path: Path) -> None:
    root = pets(tmp_path)
    (root / "images" / "Abyssinian_2.jpg").rename(root / "images" / "Abyssinian_3.jpg")
    assert read(root).left_out == (
        LeftOut(
            "images/Abyssinian_2.jpg",
            "listed in trainval.txt, but no such file",
            label="Abyssinian",
        ),
        LeftOut("images/Abyssinian_3.jpg", "in none of the lists", expected=True),
    )


def test_a_list_of_pets_that_is_missing_is_named(tmp_path: Path) -> None:
    data = read(pets(tmp_path, {"trainval.txt": PETS["trainval.txt"]}))
    assert set(data.parts) == {"train"}
    assert data.left_out[0].path == "annotations/test.txt"
    assert not data.left_out[0].expected


@pytest.mark.parametrize("inside", [True, False])
def test_a_pet_that_is_a_link_is_read_if_it_leads_inside(tmp_path: Path, inside: bool) -> None:
    root = pets(tmp_path / "data")
    image = root / "images" / "Abyssinian_2.jpg"
    image.rename(moved := (root if inside else tmp_path) / "moved.jpg")
    image.symlink_to(moved)
    lost = LeftOut("images/Abyssinian_2.jpg", LEADS_OUT, label="Abyssinian")
    assert read(root).left_out == (() if inside else (lost,))
    assert len(read(root.parent)) == (5 if inside else 4)


@pytest.mark.parametrize("name", ["images", "annotations", "all"])
def test_pets_are_not_read_through_a_folder_that_leads_out(tmp_path: Path, name: str) -> None:
    root = pets(tmp_path / "elsewhere")
    data = tmp_path / "data"
    data.mkdir()
    for folder in (root,) if name == "all" else sorted(root.iterdir()):
        if folder.name == name or name == "all":
            (data / folder.name).symlink_to(folder)
        else:
            shutil.copytree(folder, data / folder.name)
    with pytest.raises(DataError, match=r"out of the folder or nowhere .*copy the files there"):
        read(data)


def test_thumbnails_beside_an_archive_do_not_hide_it(tmp_path: Path) -> None:
    pets(tmp_path)
    (tmp_path / "@eaDir").mkdir()
    assert read(tmp_path).classes == ("Abyssinian", "american_pit_bull_terrier")


@pytest.mark.parametrize("name", ["Abyssinian", "../Abyssinian_1", "_1", "Abyssinian_1.jpg"])
def test_lists_of_pets_hold_names_with_a_number(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="test.txt, line 2: .*<breed>_<number>"):
        read(pets(tmp_path, {"test.txt": f"Abyssinian_201 1 1 1\n{name} 1 1 1\n"}))


def test_lists_without_their_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Unpack both images.tar.gz and annotations.tar.gz"):
        read(pets(tmp_path, {"test.txt": "Beagle_1 5 2 4\n"}))


def test_other_folders_are_no_archives(shapes: Path, tmp_path: Path) -> None:
    assert read_archive(shapes) is None
    cifar(tmp_path / "two" / "a")
    cifar(tmp_path / "two" / "b")
    assert read_archive(tmp_path / "two") is None
    (tmp_path / "two" / "a" / "cifar-10-batches-bin" / "batches.meta.txt").unlink()
    assert read_archive(tmp_path / "two" / "a") is None
    (tmp_path / "classes" / "images").mkdir(parents=True)
    (tmp_path / "classes" / "annotations").mkdir()
    assert read_archive(tmp_path / "classes") is None
