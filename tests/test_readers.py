"""From folders and manifests to a Dataset."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from headstart.base.errors import DataError, MissingPackage
from headstart.data.checks import check, good_rows
from headstart.data.dataset import LeftOut
from headstart.data.findings import EMPTY_CLASS
from headstart.data.folder_files import FolderFiles
from headstart.data.splits import split
from headstart.data.walking import display, walk
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.reading import find, read, survey


def picture(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path, "PNG")
    return path


def left_out(root: Path) -> dict[str, str]:
    return {out.path: out.reason for out in read(root).left_out}


def manifest(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_a_folder_a_class(shapes: Path) -> None:
    data = read(shapes)
    assert data.classes == ("bright", "dark")
    assert data.counts == {"bright": 12, "dark": 12}
    assert data.ids[0] == "bright/00.png"
    assert data.parts == data.groups == data.strata == ()
    assert data.left_out == ()
    assert data.sources[0] == shapes / "bright" / "00.png"


def test_pictures_deeper_down_belong_to_their_top_folder(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "indoors" / "1.png")
    assert read(tmp_path).classes == ("cat",)


@pytest.mark.parametrize("val", ["val", "validation", "Valid", "VAL"])
def test_a_folder_of_parts(tmp_path: Path, val: str) -> None:
    for part in ("train", val, "Test"):
        picture(tmp_path / part / "cat" / "1.png")
    data = read(tmp_path)
    assert data.classes == ("cat",)
    assert dict(zip(data.ids, data.parts, strict=True)) == {
        "train/cat/1.png": "train",
        f"{val}/cat/1.png": "val",
        "Test/cat/1.png": "test",
    }


def test_parts_may_be_missing_and_other_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "test/cat/1.png", "extra/cat/1.png"):
        picture(tmp_path / name)
    data = read(tmp_path)
    assert set(data.parts) == {"train", "test"}
    assert left_out(tmp_path)["extra/cat/1.png"] == "not in one of the parts train, val and test"


def test_a_class_called_train_among_others_is_a_class(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        picture(tmp_path / name / "1.png")
    assert read(tmp_path).classes == ("bus", "car", "train")
    assert read(tmp_path).parts == ()


def test_what_is_an_image_its_name_or_its_content_says(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "no suffix")
    (tmp_path / "cat" / "text.JPG").write_text("not a picture: for the checks to find")
    (tmp_path / "cat" / "notes.txt").write_text("cats are nice")
    data = read(tmp_path)
    assert data.ids == ("cat/no suffix", "cat/text.JPG")
    assert [(out.path, out.reason, out.expected) for out in data.left_out] == [
        ("cat/notes.txt", "not an image", True)
    ]


def test_an_image_in_no_class_folder_is_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "stray.png")
    assert left_out(tmp_path) == {"stray.png": "an image in no class folder"}


def test_an_empty_class_is_no_class_and_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    (tmp_path / "dog").mkdir()
    assert read(tmp_path).classes == ("cat",)
    assert left_out(tmp_path) == {"dog": EMPTY_CLASS}


def test_composed_and_decomposed_accents_are_one_class(tmp_path: Path) -> None:
    for i, form in enumerate(("NFC", "NFD")):
        picture(tmp_path / unicodedata.normalize(form, "café") / f"{i}.png")  # type: ignore[arg-type]
    assert read(tmp_path).classes == (unicodedata.normalize("NFC", "café"),)
    assert len(set(read(tmp_path).ids)) == 2


def test_hidden_and_system_files_are_listed_and_ignored(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    for name in (".ipynb_checkpoints/1.png", "__MACOSX/1.png", "cat/Thumbs.db", "cat/._1.png"):
        picture(tmp_path / name)
    assert read(tmp_path).ids == ("cat/1.png",)
    assert all(out.expected for out in read(tmp_path).left_out)
    assert set(left_out(tmp_path)) == {
        ".ipynb_checkpoints",
        "__MACOSX",
        "cat/Thumbs.db",
        "cat/._1.png",
    }


def test_thumbnails_and_deleted_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    for name in (
        "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.png",
        "cat/@eaDir/1.png/SYNOPHOTO_THUMB_S.png",
        "#recycle/old.png",
        "cat/.@__thumb/s100_1.png",
        "$RECYCLE.BIN/a/1.png",
        "lost+found/1.png",
        ".Trash-1000/files/1.png",
        "cat/SYNOFILE_THUMB_XL.png",
    ):
        picture(tmp_path / name)
    assert read(tmp_path).ids == ("cat/1.png",)
    assert find([tmp_path])[0].sources == (tmp_path / "cat" / "1.png",)
    assert left_out(tmp_path) == {
        "#recycle": "1 deleted file",
        "$RECYCLE.BIN": "1 deleted file",
        ".Trash-1000": "1 deleted file",
        "cat/.@__thumb": "1 file of thumbnails",
        "cat/@eaDir": "2 files of thumbnails",
        "cat/SYNOFILE_THUMB_XL.png": "file of thumbnails",
        "lost+found": "1 hidden or system file",
    }
    assert all(out.expected for out in read(tmp_path).left_out)


def test_a_looped_link_shows_nothing_twice(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "self").symlink_to("self")
    assert read(tmp_path).ids == ("cat/1.png",)
    assert left_out(tmp_path) == {
        "cat/loop": "another name of the folder that is read",
        "cat/self": "a link that leads nowhere",
    }


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = picture(tmp_path / "outside" / "secret.png")
    picture(tmp_path / "data" / "cat" / "1.png")
    (tmp_path / "data" / "cat" / "link.png").symlink_to(secret)
    (tmp_path / "data" / "dog").symlink_to(secret.parent, target_is_directory=True)
    assert read(tmp_path / "data").ids == ("cat/1.png",)
    assert set(left_out(tmp_path / "data")) == {"cat/link.png", "dog"}


@pytest.mark.parametrize("kind", ["hard", "symbolic"])
def test_a_second_name_of_a_file_is_a_copy_of_the_example(tmp_path: Path, kind: str) -> None:
    one = picture(tmp_path / "cat" / "b.png")
    picture(tmp_path / "dog" / "1.png", 3)
    second_name(tmp_path / "dog" / "a.png", one, kind)
    data = read(tmp_path)
    assert data.ids == ("cat/b.png", "dog/1.png", "dog/a.png")
    assert data.left_out == ()
    found = check(data, survey(data)).findings
    assert found.two_labels.exact == (("cat/b.png", "dog/a.png"),)  # one picture, two labels


def second_name(new: Path, old: Path, kind: str) -> None:
    (new.hardlink_to if kind == "hard" else new.symlink_to)(old)


@pytest.mark.parametrize("made", [read, lambda root: find([root])])
def test_where_there_are_only_links_they_are_named(tmp_path: Path, made: Any) -> None:
    one = picture(tmp_path / "outside" / "1.png")
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "a.png").symlink_to(one)
    (tmp_path / "data" / "cat" / "b.png").symlink_to("gone.png")
    (tmp_path / "data" / "dog").symlink_to(one.parent)
    named = r"3 links lead out of the folder or nowhere \(.*cat/a.png, .*cat/b.png, .*dog\), and"
    with pytest.raises(DataError, match=named + " such links are not followed: copy the files"):
        made(tmp_path / "data")


def test_a_class_of_links_that_lead_out_is_named(tmp_path: Path) -> None:
    one = picture(tmp_path / "outside" / "1.png")
    picture(tmp_path / "data" / "cat" / "1.png")
    (tmp_path / "data" / "dog").mkdir()
    (tmp_path / "data" / "dog" / "1.png").symlink_to(one)
    data = read(tmp_path / "data")
    assert data.left_out[0] == LeftOut("dog/1.png", "a link that leads out of the folder")
    with pytest.raises(DataError, match=r"'cat' only. A link leads out .*dog/1.png"):
        good_rows(data, survey(data))


@pytest.mark.parametrize("where", ["", "train", "train/cat", "extra"])
def test_a_text_file_beside_pictures_is_listed_wherever_it_lies(tmp_path: Path, where: str) -> None:
    for part in ("train", "test"):
        picture(tmp_path / part / "cat" / "1.png")
    (tmp_path / where).mkdir(exist_ok=True)
    for name in ("README", "labels.csv", "LICENSE.txt"):
        (tmp_path / where / name).write_text("about the pictures")
    found = [out for out in read(tmp_path).left_out if out.reason == "not an image"]
    assert len(found) == 3
    assert all(out.expected for out in read(tmp_path).left_out)


@pytest.mark.parametrize("kind", ["hard", "symbolic"])
def test_a_second_name_in_train_moves_no_test_row(tmp_path: Path, kind: str) -> None:
    for i in range(12):
        picture(tmp_path / "test" / "ab"[i % 2] / f"{i}.png", 10 * i)
        picture(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", 10 * i + 120)
    for i in range(3):  # sorted before their first names
        label = "ab"[i % 2]
        one = tmp_path / "test" / label / f"{i}.png"
        second_name(tmp_path / "train" / label / f"0{i}.png", one, kind)
    data = read(tmp_path)
    splits = split(data, together=check(data, survey(data)).exact)
    assert len(splits.test) == 12
    assert [out.path for out in splits.left_out] == [
        "train/a/00.png",
        "train/a/02.png",
        "train/b/01.png",
    ]


def test_a_linked_folder_is_entered_under_both_names(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    (tmp_path / "dog").symlink_to("cat", target_is_directory=True)
    data = read(tmp_path)
    assert data.ids == ("cat/1.png", "dog/1.png")
    assert check(data, survey(data)).findings.two_labels.exact == (data.ids,)


def test_linked_folders_are_entered_at_any_depth_but_not_inside_of_themselves(
    tmp_path: Path,
) -> None:
    picture(tmp_path / ".pool" / "x" / "cat" / "1.png")
    (tmp_path / ".pool" / "x" / "dog").symlink_to("cat")
    (tmp_path / ".pool" / "x" / "cat" / "up").symlink_to("..")
    (tmp_path / "train").symlink_to(".pool/x")
    assert read(tmp_path).ids == ("train/cat/1.png", "train/dog/1.png")
    assert {path: why for path, why in left_out(tmp_path).items() if path != ".pool"} == {
        "train/cat/up": "another name of .pool/x around it",
        "train/dog/up": "another name of .pool/x around it",
    }


def test_folders_that_link_to_each_other_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.data.walking.LINKED_NAMES", 200)
    for i in range(12):
        picture(tmp_path / f"{i}" / "1.png")
        for name in "xyz":
            (tmp_path / f"{i}" / name).symlink_to(f"../{(i + 1) % 12}")
    found = walk(tmp_path)
    assert 12 < len(found.files) < 60 * 20 + 200
    refused = [out for out in found.left_out if not out.expected]
    assert refused[0].reason == "a link to a folder, after 1,200 names through such links"


def test_where_all_files_have_one_inode_none_is_lost(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for the system, as some network and virtual file systems answer."""
    before = walk(shapes)
    for name in ("stat", "lstat"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, **k: one_inode(real(*a, **k)))
    assert os.stat(shapes).st_ino == os.stat(shapes / "dark").st_ino == 0
    assert walk(shapes) == before
    assert len(before.files) == 24


def one_inode(status: os.stat_result) -> os.stat_result:
    values = list(status)
    values[1] = values[2] = 0  # st_ino, st_dev
    return os.stat_result(values)


def test_a_link_to_what_is_hidden_inside_is_followed_once(tmp_path: Path) -> None:
    picture(tmp_path / ".pool" / "1.png")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").symlink_to("../.pool/1.png")
    assert read(tmp_path).ids == ("cat/1.png",)


def test_a_pipe_is_left_out_and_never_opened(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert left_out(tmp_path) == {"cat/pipe.png": "neither a file nor a folder"}


def test_names_that_are_not_utf8_are_read_and_shown(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in (b"\xe9.png", b"\\xe9.png", b"line\nbreak.png"):
        with open(os.path.join(os.fsencode(tmp_path / "cat"), name), "wb") as f:
            f.write(picture(tmp_path.parent / "one.png").read_bytes())
    data = read(tmp_path)
    assert data.ids == (r"cat/\\xe9.png", r"cat/line\x0abreak.png", r"cat/\xe9.png")
    assert all(
        id.encode("utf-8") and source.exists()
        for id, source in zip(data.ids, data.sources, strict=True)
    )


def test_a_name_is_shown_as_it_is_where_it_can_be() -> None:
    assert display(Path("Übung/猫 1.png")) == "Übung/猫 1.png"


def test_the_order_does_not_depend_on_the_file_system(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, listed = walk(shapes), os.listdir
    monkeypatch.setattr("os.listdir", lambda path: listed(path)[::-1])
    assert walk(shapes) == before
    assert before.files == tuple(sorted(before.files))


def test_a_folder_that_may_not_be_listed_is_named(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for the system, since tests may run as root, who may read everything."""
    listed = os.listdir

    def refusing(path: Path) -> list[str]:
        if Path(path).name == "dark":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("os.listdir", refusing)
    data = read(shapes)
    assert data.classes == ("bright",)
    assert data.left_out[0].reason == "cannot be listed: Permission denied"


@pytest.mark.parametrize("kind", ["empty", "file", "no images"])
def test_where_there_is_nothing_to_read_the_layout_is_told(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    if kind == "file":
        root = picture(root / "1.png")
    if kind == "no images":
        (root / "cat").mkdir()
        (root / "cat" / "readme.txt").write_text("soon")
    with pytest.raises(DataError, match="Expected one folder a class"):
        read(root)


def test_a_prediction_is_made_for_every_name_of_a_file_in_a_folder(tmp_path: Path) -> None:
    one = picture(tmp_path / "1.png")
    (tmp_path / "2.png").hardlink_to(one)
    (tmp_path / "3.png").symlink_to("1.png")
    files, left_out = find([tmp_path])
    assert [source.name for source in files.sources] == ["1.png", "2.png", "3.png"]
    assert left_out == ()


CSV = "path,label,part,group,stratum\na.png,cat,train,g,x\nb.png,dog,Validation,,y\nc.png,cat,,,\n"


@pytest.mark.parametrize("kind", ["csv", "csv with a byte order mark", "parquet"])
def test_a_manifest_says_label_part_group_and_stratum(tmp_path: Path, kind: str) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    path = manifest(tmp_path / "list.csv", CSV, "utf-8-sig" if "mark" in kind else "utf-8")
    if kind == "parquet":
        from pyarrow import csv, parquet

        path = tmp_path / "list.parquet"
        parquet.write_table(csv.read_csv(tmp_path / "list.csv"), path)
    data = read(path)
    assert data.ids == ("a.png", "b.png", "c.png")
    assert [data.classes[label] for label in data.labels] == ["cat", "dog", "cat"]
    assert data.parts == ("train", "val", "")
    assert data.groups == ("g", "", "")
    assert data.strata == ("x", "y", "")


def test_a_manifest_may_name_files_anywhere(tmp_path: Path) -> None:
    inside, outside = picture(tmp_path / "m" / "in" / "1.png"), picture(tmp_path / "2.png")
    path = manifest(tmp_path / "m" / "list.csv", f"path,label\nin//1.png,0\n{outside},1\n")
    data = read(path)
    assert data.ids == ("in/1.png", outside.as_posix())
    assert [source.resolve() for source in data.sources] == [inside, outside]


def test_files_a_manifest_lists_and_that_are_missing_are_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    data = read(manifest(tmp_path / "list.csv", "path,label\na.png,cat\ngone.png,dog\n"))
    assert data.classes == ("cat",)
    assert data.left_out[0].path == "gone.png"
    assert not data.left_out[0].expected


@pytest.mark.parametrize(
    ("header", "cells", "parts"),
    [
        ("split", "train,test,val", ("train", "test", "val")),
        ("Split ", "Training, TESTING ,validation", ("train", "test", "val")),
        ("subset", "train,,test", ("train", "", "test")),
        ("fold", "valid,dev,test", ("val", "val", "test")),
        ("subset", "a,b,a", ()),
        ("fold", "0,1,2", ()),
        ("split", "0,1,1", ()),
        ("split", "1.0,2.0,", ()),
        ("split", ",,", ()),
        ("part,split", "train;,;test,train;train", ("train", "test", "train")),
        ("part,fold", "train;1,val;2,test;3", ("train", "val", "test")),
    ],
)
def test_a_column_that_names_parts_is_read_by_any_of_its_names(
    tmp_path: Path, header: str, cells: str, parts: tuple[str, ...]
) -> None:
    named = zip("abc", cells.replace(",", "\n").split("\n"), strict=True)
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    rows = "".join(f"{n}.png,cat,{c.replace(';', ',')}\n" for n, c in named)
    data = read(manifest(tmp_path / "list.csv", f"path,label,{header}\n{rows}"))
    assert data.parts == parts
    unused = {
        "a,b,a": "subset",
        "0,1,2": "fold",
        "0,1,1": "split",
        "1.0,2.0,": "split",
        "train;1,val;2,test;3": "fold",
    }
    reasons = [out.reason for out in data.left_out if out.expected]
    assert [reason.split("'")[1] for reason in reasons] == (
        [unused[cells]] if cells in unused else []
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,label,split\na.png,cat,tset\n", "row 2: There is no split named 'tset'.*'test'"),
        ("path,label,fold\na.png,cat,test\nb.png,cat,2\n", "row 3: There is no fold named '2'"),
        (
            "path,label,part,split\na.png,cat,train,test\n",
            "row 2: a row is in one part, but part is train and split is test",
        ),
        ("where,label\na.png,cat\n", "has no column path among where, label"),
        ("path\na.png\n", "has no column label"),
        ("", "among none at all"),
        ("path,label\na.png,\n", "row 2: the label is empty"),
        ("path,label\n,cat\n", "row 2: the path is empty"),
        ("path,label,part\na.png,cat,tset\n", "row 2: There is no part named 'tset'.*'test'"),
        ("path,label\na.png,cat,x\n", "row 2: more fields than"),
        ('path,label\n"a.png,cat\n', "is not a CSV file that can be read"),
        ("path,label\na.png,cat\na.png,cat\n", "'a.png' appears more than once"),
        ("path,label\ngone.png,cat\n", "lists 1 files and none of them is there"),
        ("path,label\n", "must list images, a row each; it has no rows"),
    ],
)
def test_a_manifest_that_does_not_hold_what_it_must(tmp_path: Path, text: str, told: str) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=told):
        read(manifest(tmp_path / "list.csv", text))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(manifest(tmp_path / "list.parquet", "path,label\n"))


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match=r"headstart\[parquet\]"):
        read(manifest(tmp_path / "list.parquet", ""))


def test_the_solar_cells_are_there_or_their_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cells = pytest.importorskip("elpv_dataset") and solar_cells()
    assert cells.counts == {"defective": 821, "functional": 1803}
    assert set(cells.strata) == {"mono", "poly"}
    assert cells.sources[0].is_file()
    monkeypatch.setattr("headstart.modalities.examples.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"headstart\[demo\]"):
        solar_cells()


def test_a_manifest_that_lists_a_picture_twice_names_both_rows(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    listed = manifest(tmp_path / "list.csv", "path,label\na.png,cat\nb.png,x\n./a.png,dog\n")
    with pytest.raises(DataError, match=r"'a.png' .* in rows 2 and 4. Take one of"):
        read(listed)


def test_the_paths_of_a_folder_are_made_when_they_are_asked_for(shapes: Path) -> None:
    data = read(shapes)
    assert isinstance(data.sources, FolderFiles)
    assert data.sources == tuple(shapes.resolve() / id for id in data.ids)
    assert data.take([3, 1]).sources == (data.sources[3], data.sources[1])
    assert data[2].read().shape[2] == 3
