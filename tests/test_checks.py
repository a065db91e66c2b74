"""What is wrong with the data is found, told and, where it must be, refused."""

import json
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import photo
from PIL import Image

from headstart.base.errors import DataError, SpecError, StoreError
from headstart.base.store import Store
from headstart.data import survey as module
from headstart.data.checks import CheckPlan, Checks, check, good_rows
from headstart.data.content import copies
from headstart.data.contents import Contents
from headstart.data.dataset import Content, Dataset
from headstart.data.splits import split
from headstart.data.survey import StoredFacts
from headstart.modalities.reading import read, survey


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, eight photographs each, of different contents."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            photo(rng, 120, 90).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def checked(root: Path) -> Checks:
    data = read(root)
    return check(data, survey(data, threads=2))


def bomb_png() -> bytes:
    """A PNG of a few bytes that says it holds 800 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 40_000, 20_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def named(found: Checks, *groups: tuple[int, ...]) -> list[set[str]]:
    return [{found.dataset.ids[i] for i in group} for group in groups]


def test_good_data_has_no_findings(photos: Path) -> None:
    found = checked(photos)
    assert found.findings.table() == [
        ("images", "16", "in 2 classes: cat 8, dog 8"),
        ("unreadable", "0", ""),
    ]
    assert found.together == ()
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("zero bytes", "the file is empty"),
        ("truncated", "cannot be decoded"),
        ("text", "not a picture but a text file"),
        ("bomb", "claims|million"),
        ("folder gone", "cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_named_with_its_reason(photos: Path, kind: str, reason: str) -> None:
    data = read(photos)
    file = photos / "cat" / "3.png"
    contents = {
        "zero bytes": b"",
        "truncated": file.read_bytes()[:2000],
        "text": b"not a picture",
        "bomb": bomb_png(),
    }
    file.unlink() if kind == "folder gone" else file.write_bytes(contents[kind])
    seen = survey(data)
    assert [out.path for out in check(data, seen).unreadable] == ["cat/3.png"]
    with pytest.raises(DataError, match=rf"cat/3\.png \(.*({reason})"):
        good_rows(data, seen)


def test_a_file_that_may_not_be_read_is_named(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for the system, since tests may run as root, who may read everything."""
    read_bytes = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path.name == "3.png":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    assert [out.reason for out in checked(photos).unreadable] == [
        "cannot be read: Permission denied"
    ] * 2


def test_a_few_bad_files_are_left_out_and_many_are_refused(photos: Path) -> None:
    (photos / "cat" / "0.png").write_bytes(b"")
    data = read(photos)
    seen = survey(data)
    with pytest.raises(DataError, match=r"1 of 8 images of 'cat' are.*--max-bad 0\.125"):
        good_rows(data, seen)
    rows = good_rows(data, seen, CheckPlan(max_bad=0.125))
    assert rows.counts == {"cat": 7, "dog": 8}
    assert "cat/0.png" not in rows.ids


def test_a_class_that_can_not_be_read_is_no_class(photos: Path) -> None:
    (photos / "ant").mkdir()
    (photos / "ant" / "1.png").write_bytes(b"")
    data = read(photos)
    seen = survey(data)
    rows = good_rows(data, seen, CheckPlan(max_bad=1))
    assert rows.classes == ("cat", "dog")
    assert rows.counts == {"cat": 8, "dog": 8}
    assert check(data, seen).findings.empty_classes == ("ant",)


def test_one_class_is_refused_also_when_the_other_can_not_be_read(photos: Path) -> None:
    for path in (photos / "dog").iterdir():
        path.write_bytes(b"")
    data = read(photos)
    with pytest.raises(DataError, match="there is 'cat' only"):
        good_rows(data, survey(data), CheckPlan(max_bad=1))
    shutil.rmtree(photos / "dog")
    data = read(photos)
    with pytest.raises(DataError, match=r"At least two classes [^.]*only\.$"):
        good_rows(data, survey(data))


def test_data_of_which_nothing_can_be_read_is_refused(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    data = read(photos)
    seen = survey(data)
    assert len(check(data, seen).unreadable) == 16
    with pytest.raises(DataError, match="None of the 16 images can be read"):
        good_rows(data, seen, CheckPlan(max_bad=1))


def test_exact_duplicates_have_the_same_pixels_in_whatever_file(photos: Path) -> None:
    Image.open(photos / "cat" / "0.png").save(photos / "cat" / "again.bmp")
    shutil.copy(photos / "cat" / "1.png", photos / "dog" / "copy.png")
    found = checked(photos)
    assert named(found, *found.exact) == [
        {"cat/0.png", "cat/again.bmp"},
        {"cat/1.png", "dog/copy.png"},
    ]
    assert found.findings.two_labels.exact == (("cat/1.png", "dog/copy.png"),)


def test_pixels_of_another_shape_are_another_picture(tmp_path: Path) -> None:
    for name, size in {"a/1": (40, 60), "b/1": (60, 40)}.items():
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
    assert checked(tmp_path).exact == ()


def test_near_duplicates_and_their_labels_are_found(photos: Path) -> None:
    one = Image.open(photos / "cat" / "0.png")
    one.save(photos / "dog" / "near.jpg", quality=60)
    one.save(photos / "cat" / "exact.bmp")
    found = checked(photos)
    assert found.findings.near_duplicates == (("cat/0.png", "dog/near.jpg"),)
    assert len(found.findings.two_labels.near) == 1
    assert named(found, *found.together) == [{"cat/0.png", "cat/exact.bmp", "dog/near.jpg"}]
    assert ("near, two labels", "1", "cat/0.png = dog/near.jpg") in found.findings.table()


def test_features_can_overrule_a_near_duplicate(photos: Path) -> None:
    Image.open(photos / "cat" / "0.png").save(photos / "cat" / "near.jpg")
    found = checked(photos)
    assert len(found.near) == 1
    same, other = np.ones((17, 4), np.float32), np.eye(17, dtype=np.float32)
    assert found.confirmed(same).near == found.near
    assert found.confirmed(other).near == ()


def test_no_duplicate_straddles_the_parts_of_a_split(photos: Path) -> None:
    for path in sorted(photos.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".jpg"), quality=70)
    found = checked(photos)
    splits = split(found.dataset, together=found.together)
    part = {id: p for p in ("train", "val", "test") for id in getattr(splits, p).ids}
    assert all(part[id] == part[id[:-3] + "jpg"] for id in part if id.endswith(".png"))


def test_row_numbers_count_readable_rows(photos: Path) -> None:
    (photos / "cat" / "0.png").write_bytes(b"")
    shutil.copy(photos / "cat" / "1.png", photos / "cat" / "2.png")
    Image.open(photos / "dog" / "3.png").save(photos / "dog" / "near.jpg")
    data = read(photos)
    found = check(data, survey(data))
    assert named(found, *found.exact) == [{"cat/1.png", "cat/2.png"}]
    assert found.findings.near_duplicates == (("dog/3.png", "dog/near.jpg"),)
    assert found.dataset == good_rows(data, survey(data), CheckPlan(max_bad=0.2))


def test_odd_sizes_small_and_empty_classes_and_imbalance_are_told(photos: Path) -> None:
    for name, size in {"thin": (300, 40), "tiny": (16, 16), "huge": (900, 900)}.items():
        Image.fromarray(
            np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        ).save(photos / "cat" / f"{name}.png")
    (photos / "one").mkdir()
    shutil.move(photos / "dog" / "0.png", photos / "one" / "0.png")
    (photos / "void").mkdir()
    found = checked(photos)
    assert {size.path for size in found.findings.odd_sizes} == {
        f"cat/{n}.png" for n in ("thin", "tiny", "huge")
    }
    assert found.findings.one_image_classes == ("one",)
    assert found.findings.empty_classes == ("void",)
    assert found.findings.imbalance == 11
    assert "balanced accuracy" in found.findings.table()[0][2]


def test_findings_are_plain_json_with_ids(photos: Path) -> None:
    shutil.copy(photos / "cat" / "1.png", photos / "cat" / "2.png")
    (photos / "notes.txt").write_text("mine")
    plain = checked(photos).findings.to_plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["exact_duplicates"] == [["cat/1.png", "cat/2.png"]]
    assert plain["counts"] == {"cat": 8, "dog": 8}
    assert plain["left_out"][0]["path"] == "notes.txt"


def test_a_second_survey_decodes_nothing_and_sees_the_same(photos: Path, tmp_path: Path) -> None:
    data, store = read(photos), Store(tmp_path / "store")
    shutil.copy(photos / "cat" / "1.png", photos / "cat" / "2.png")
    (photos / "cat" / "0.png").write_bytes(b"")
    first = survey(data, store=store, threads=2)
    second = survey(data, store=store)
    without = survey(data)
    assert (first.decoded, second.decoded) == (15, 0)
    assert first.errors == second.errors == without.errors
    for column in ("pixels", "sizes", "thumbs"):
        expected = without.facts[column]
        assert np.array_equal(first.facts[column], expected)
        assert np.array_equal(second.facts[column], expected)


def test_a_survey_that_was_cut_off_goes_on_where_it_was(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "SHARD", 4)
    data, store = read(photos), Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        survey(data, store=store, progress=stop)
    assert survey(data, store=store).decoded == 16 - 9


def test_progress_counts_every_row(photos: Path) -> None:
    seen = list[tuple[int, int]]()
    survey(read(photos), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 16) for i in range(1, 17)]


def test_a_store_that_can_not_be_written_says_so(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="must be able to keep"):
        survey(read(photos), store=Store(tmp_path / "store"))


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(SpecError, match="a share from 0 to 1"):
        CheckPlan(max_bad=share)


def test_nothing_read_is_nothing_found(photos: Path) -> None:
    empty: Dataset = read(photos).take([])
    assert len(check(empty, survey(empty)).dataset) == 0


def test_files_that_a_manifest_lists_in_vain_count_as_bad(photos: Path) -> None:
    there = [(p.relative_to(photos), p.parent.name) for p in sorted(photos.rglob("*.png"))]
    label = there[0][1]
    lines = [f"{path},{name}" for path, name in there] + [f"gone{i}.png,{label}" for i in range(99)]
    (photos / "labels.csv").write_text("path,label\n" + "\n".join(lines))
    data = read(photos / "labels.csv")
    with pytest.raises(DataError, match=f"images of '{label}' are.*no such file"):
        good_rows(data, survey(data))


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("path,value", "{n}.5"),
        ("path,labels", "a|b"),
        ("path,p:x,p:y", "{a},{b}"),
        ("path,probability", "0.{n}"),
    ],
)
def test_missing_files_count_as_bad_whatever_is_predicted(
    header: str, cells: str, photos: Path
) -> None:
    paths = [path.relative_to(photos) for path in sorted(photos.rglob("*.png"))]
    rows = [f"{path},{cells}" for path in (*paths, "gone1.png", "gone2.png")]
    lines = [row.format(n=n % 9 + 1, a=n % 2, b=1 - n % 2) for n, row in enumerate(rows)]
    (photos / "t.csv").write_text("\n".join([header, *lines]))
    data = read(photos / "t.csv")
    seen = survey(data)
    with pytest.raises(DataError, match="of the images .* 2 of 18 images are.*gone1.*no such file"):
        good_rows(data, seen)
    assert len(good_rows(data, seen, CheckPlan(max_bad=0.12))) == 16


def test_a_folder_around_the_classes_is_named_with_the_remedy(tmp_path: Path) -> None:
    for name in ("daisy/1.png", "rose/2.png"):
        (tmp_path / "flowers" / name).parent.mkdir(parents=True)
        Image.new("L", (40, 40), 9).save(tmp_path / "flowers" / name)
    data = read(tmp_path)
    with pytest.raises(DataError, match=r"'flowers' only. If the folders in it .*daisy, rose"):
        good_rows(data, survey(data))


def test_thumbnails_of_many_pictures_stay_in_the_store(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read(photos)
    broken = Path(data.sources[3])
    broken.write_bytes(broken.read_bytes()[:40])
    held = survey(data, store=Store(tmp_path / "a"))
    monkeypatch.setattr("headstart.data.survey.HELD", 2)
    for _ in range(2):  # decoded, and then from the store
        left = survey(data, store=Store(tmp_path / "b"))
        assert isinstance(left.facts["thumbs"], StoredFacts)
        np.testing.assert_array_equal(np.asarray(left.facts["thumbs"]), held.facts["thumbs"])
        np.testing.assert_array_equal(left.facts["sizes"], held.facts["sizes"])
        assert check(data, left).findings == check(data, held).findings


def test_contents_of_many_rows_are_those_of_single_ones() -> None:
    rng = np.random.default_rng(0)
    files, shown = (rng.integers(0, 256, (9, 16), np.uint8) for _ in range(2))
    shown[[1, 5, 8]], shown[7] = shown[2], shown[0]
    known = np.arange(9) != 5
    many = Contents(files, shown, known)
    single = tuple(many)
    assert single[5] == Content()
    assert many.take([8, 0])[1] == single[0]
    assert many[2:4] == single[2:4]
    ids = tuple(map(str, range(9)))
    rows = Dataset(ids, ids, (0, 1, 0) * 3, ("a", "b"), contents=many)
    assert copies(rows) == copies(replace(rows, contents=single)) == [(0, 7), (1, 2, 8)]
