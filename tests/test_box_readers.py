"""Readers of boxes: every format gives the same boxes, and one bad annotation stops no other."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_data import FORMATS, NAMES, Drawn, coco, cvat, drawn, label_studio, save, table, voc, yolo

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.base.values import fingerprint
from headstart.data.boxes.parsing import MAX_DEPTH, read_xml, read_yaml
from headstart.targets.box_values import ExampleBoxes


def boxes_of(data: hs.Dataset) -> dict[str, list[tuple[Any, ...]]]:
    """The boxes by the name of the picture, in an order of their own."""
    names = data.target.settings()["names"]
    return {
        Path(id).name: sorted(
            (names[c], *corners.tolist())
            for c, corners in zip(own.labels, own.corners, strict=True)
        )
        for id, own in zip(data.ids, data.labels, strict=True)
    }


def assert_same(data: hs.Dataset, pictures: list[Drawn]) -> None:
    found = boxes_of(data)
    assert found.keys() == {one.name for one in pictures}
    for one in pictures:
        expected = sorted(one.boxes)
        assert [box[0] for box in found[one.name]] == [box[0] for box in expected]
        corners = np.array([box[1:] for box in found[one.name]]).reshape(-1, 4)
        given = np.array([box[1:] for box in expected]).reshape(-1, 4)
        assert np.abs(corners - given).max(initial=0) < 1e-3
    sizes = {Path(id).name: own.size for id, own in zip(data.ids, data.labels, strict=True)}
    assert sizes == {one.name: (one.width, one.height) for one in pictures}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("whole", [True, False])
def test_every_format_gives_the_same_boxes(form: str, whole: bool, tmp_path: Path) -> None:
    """Of pictures in all eight orientations, found by the folder or by the file."""
    pictures = drawn()
    path = FORMATS[form](tmp_path, pictures)
    data = hs.read(tmp_path if whole else path)
    assert data.target.kind == "boxes"
    assert data.target.settings() == {"names": list(NAMES)}
    assert_same(data, pictures)
    assert data.left_out == ()
    assert data.remarks == ()
    assert [own for own in data.labels if not len(own)] == [data.labels[data.ids.index(
        next(id for id in data.ids if id.endswith("p0.jpg")))]]  # fmt: skip


@pytest.mark.parametrize("name", ["boxes.tsv", "BOXES.CSV"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_table_of_boxes_has_any_ending_of_tables(name: str, whole: bool, tmp_path: Path) -> None:
    pictures = drawn(3)
    path = table(tmp_path, pictures).rename(tmp_path / name)
    if name.endswith("tsv"):
        path.write_text(path.read_text().replace(",", "\t"))
    assert_same(hs.read(tmp_path if whole else path), pictures)


def test_boxes_of_voc_may_count_from_0(tmp_path: Path) -> None:
    pictures = drawn()
    voc(tmp_path, pictures, base=0)
    assert_same(hs.read(tmp_path, "boxes", voc_base=0), pictures)


def test_parts_are_those_of_yolo_voc_coco_and_tables(tmp_path: Path) -> None:
    pictures = drawn(4)
    voc(tmp_path / "voc", pictures)
    lists = tmp_path / "voc" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("p0\np1\n")
    (lists / "test.txt").write_text("p3\n")
    assert hs.read(tmp_path / "voc").parts == ("train", "train", "", "test")

    coco(tmp_path / "coco", pictures)
    plain = json.loads((tmp_path / "coco" / "instances.json").read_text())
    (tmp_path / "coco" / "annotations").mkdir()
    (tmp_path / "coco" / "instances.json").unlink()
    for part, some in (("train", plain["images"][:2]), ("val", plain["images"][2:])):
        file = tmp_path / "coco" / "annotations" / f"instances_{part}2017.json"
        ids = [one["id"] for one in some]
        boxes = [one for one in plain["annotations"] if one["image_id"] in ids]
        file.write_text(json.dumps(plain | {"images": some, "annotations": boxes}))
    data = hs.read(tmp_path / "coco")
    assert data.parts == ("train", "train", "val", "val")
    assert_same(data, pictures)

    for part in ("train", "valid"):
        yolo(tmp_path / "yolo" / part, pictures[:2] if part == "train" else pictures[2:])
    (tmp_path / "yolo" / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnames: ['car', \"traffic sign\"]\n"
    )
    data = hs.read(tmp_path / "yolo")
    assert data.parts == ("train", "train", "val", "val")
    assert_same(data, pictures)

    path = table(tmp_path / "table", pictures)
    rows = path.read_text().splitlines()
    parts = [f"{row},{'val' if 'p3' in row else 'train'}" for row in rows[1:]]
    path.write_text("\n".join([f"{rows[0]},part", *parts]) + "\n")
    assert hs.read(path).parts == ("train", "train", "train", "val")


def test_paths_never_leave_the_folder(tmp_path: Path) -> None:
    """A picture outside is not read, though COCO names it; the user's own table may name it."""
    pictures = drawn(3)
    path = coco(tmp_path / "data", pictures)
    outside = Drawn("p9.jpg", 60, 50, 1, (("car", 1, 2, 30, 40),))
    save(outside, tmp_path / "p9.jpg")
    plain = json.loads(path.read_text())
    plain["images"].append(dict(id=1, file_name="../p9.jpg", width=60, height=50))
    path.write_text(json.dumps(plain))
    data = hs.read(path)
    assert_same(data, pictures)
    (lost,) = data.left_out
    assert "no such picture in the folder" in lost.reason

    own = tmp_path / "data" / "own.csv"
    own.write_text(f"path,label,xmin,ymin,xmax,ymax\n{tmp_path}/p9.jpg,car,1,2,30,40\n")
    assert_same(hs.read(own), [outside])


def test_one_bad_annotation_never_stops_the_others(tmp_path: Path) -> None:
    pictures = drawn(3)
    path = coco(tmp_path, pictures)
    plain = json.loads(path.read_text())
    bad: list[Any] = [
        {"id": 1001, "image_id": 11, "category_id": 3},
        {"id": 1002, "image_id": 11, "category_id": 3, "bbox": [1, 2, 3]},
        {"id": 1003, "image_id": 11, "category_id": 3, "bbox": [1, 2, 3, 4, 30.0]},
        {"id": 1004, "image_id": 11, "category_id": 3, "bbox": [1, "x", 3, 4]},
        {"id": 1005, "image_id": 11, "category_id": 99, "bbox": [1, 2, 3, 4]},
        {"id": 1006, "image_id": 99, "category_id": 3, "bbox": [1, 2, 3, 4]},
        {"id": 1007, "image_id": 11, "category_id": 3, "bbox": [1, 2, float("nan"), 4]},
        {"id": 1008, "image_id": 11, "category_id": 3, "segmentation": [[1, 2, 3, 4, 5, 6]]},
        {"id": 1009, "category_id": 3, "bbox": [1, 2, 3, 4]},
        None,
        7,
    ]
    plain["annotations"] += bad
    path.write_text(json.dumps(plain))
    data = hs.read(path)
    assert_same(data, pictures)
    reasons = {item.path.split()[-1]: item.reason for item in data.left_out}
    assert len(data.left_out) == len(bad)
    assert "rotated boxes are not read" in reasons["1003"]
    assert "outlines are not turned into boxes" in reasons["1008"]
    assert "not finite" in reasons["1007"]
    assert "1005" in reasons
    assert "99 is that of no picture" in reasons["1006"]


def test_rotated_boxes_and_outlines_are_refused_by_name(tmp_path: Path) -> None:
    pictures = drawn(3)
    yolo(tmp_path / "yolo", pictures)
    with open(tmp_path / "yolo" / "labels" / "p1.txt", "a") as f:
        f.write(
            "\n0 .1 .1 .2 .1 .2 .2 .1 .2\n0 .1 .1 .2 .1 .2 .2\n0 .5 .5 .1 .1 .9\n5 .5 .5 .1 .1\n"
        )
    data = hs.read(tmp_path / "yolo")
    assert_same(data, pictures)
    reasons = [item.reason for item in data.left_out]
    assert ["rotated" in reasons[0], "outline" in reasons[1], "score" in reasons[2]] == [True] * 3
    assert "no name" in reasons[3]

    path = cvat(tmp_path / "cvat", pictures)
    shapes = (
        '<polygon label="car" points="1,2;3,4;5,6"/>'
        '<box label="car" xtl="1" ytl="1" xbr="9" ybr="9" rotation="30.0"/></image>'
    )
    path.write_text(path.read_text().replace("</image>", shapes, 1))
    data = hs.read(path)
    assert_same(data, pictures)
    words = zip(("polygon", "rotated by 30.0"), data.left_out, strict=True)
    assert all(word in item.reason for word, item in words)

    path = label_studio(tmp_path / "studio", pictures)
    tasks = json.loads(path.read_text())
    value = tasks[1]["annotations"][0]["result"][0]["value"]
    tasks[1]["annotations"][0]["result"] += [
        {"value": value | {"rotation": 12.5}},
        {"value": {"points": [[1, 2], [3, 4], [5, 6]], "polygonlabels": ["car"]}},
        {"value": {"rle": [1, 2], "brushlabels": ["car"]}},
    ]
    path.write_text(json.dumps(tasks))
    data = hs.read(path)
    assert_same(data, pictures)
    words = zip(("12.5", "polygon", "brush"), data.left_out, strict=True)
    assert all(word in item.reason for word, item in words)

    voc(tmp_path / "voc", pictures)
    file = tmp_path / "voc" / "Annotations" / "p1.xml"
    rotated = "<object><name>car</name><robndbox><cx>1</cx></robndbox></object></annotation>"
    file.write_text(file.read_text().replace("</annotation>", rotated))
    data = hs.read(tmp_path / "voc")
    assert_same(data, pictures)
    assert "rotated" in data.left_out[0].reason


def test_annotations_without_pictures_and_the_reverse_are_named(tmp_path: Path) -> None:
    pictures = drawn(4)
    for form, write in FORMATS.items():
        write(tmp_path / form, pictures)
        place = "JPEGImages" if form == "voc" else "images"
        (tmp_path / form / place / "p2.jpg").unlink()
        save(Drawn("p7.jpg", 60, 50, 1, ()), tmp_path / form / place / "p7.jpg")
        data = hs.read(tmp_path / form)
        assert_same(data, [one for one in pictures if one.name != "p2.jpg"])
        reasons = {item.path: item.reason for item in data.left_out}
        assert "without annotation" in reasons.pop(f"{place}/p7.jpg"), form
        ((path, why),) = reasons.items()
        assert "p2" in path + why, form
        assert "no such picture" in why or "not there" in why, form


def test_boxes_beside_pictures_are_read_in_yolo_folders(tmp_path: Path) -> None:
    pictures = drawn(3)
    yolo(tmp_path, pictures)
    (tmp_path / "images").rename(tmp_path / "all")
    for file in (tmp_path / "labels").iterdir():
        file.rename(tmp_path / "all" / file.name)
    (tmp_path / "all" / "p8.txt").write_text("0 .5 .5 .1 .1")
    (tmp_path / "all" / "classes.txt").write_text("car")
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.replace("images", "/somewhere/all"))
    data = hs.read(tmp_path)
    assert_same(data, pictures)
    assert [item.path for item in data.left_out] == ["all/p8.txt"]


def test_difficult_and_crowd_are_kept(tmp_path: Path) -> None:
    voc(tmp_path / "voc", drawn(2))
    file = tmp_path / "voc" / "Annotations" / "p1.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1", 1))
    own: ExampleBoxes = hs.read(tmp_path / "voc").labels[1]
    assert own.difficult.sum() == 1
    path = coco(tmp_path / "coco", drawn(2))
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    assert hs.read(path).labels[1].crowd.sum() == 1


# ------------------------------------------------------------ hostile files
def test_xml_with_a_document_type_is_refused(tmp_path: Path) -> None:
    """It could define entities that grow without limit, or read other files."""
    voc(tmp_path, drawn(3))
    file = tmp_path / "Annotations" / "p1.xml"
    text = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
    file.write_text(text + file.read_text())
    data = hs.read(tmp_path)
    assert len(data) == 2
    assert "<!DOCTYPE>" in data.left_out[0].reason
    file.write_bytes((text + "<annotation/>").encode("utf-16"))
    with pytest.raises(DataError, match="DOCTYPE"):
        read_xml(file)


@pytest.mark.parametrize("content", [b"", b"<a>", b"\xff\xfe\x00", b"<a/><b/>", b"{", b"[1"])
def test_damaged_files_are_errors_of_one_sentence(content: bytes, tmp_path: Path) -> None:
    for name in ("a.json", "a.xml", "a.yaml"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            hs.read(tmp_path / name, "boxes")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="must be JSON"):
        hs.read(tmp_path / "a.json", "boxes")
    (tmp_path / "a.xml").write_text("<annotations>" * (MAX_DEPTH + 1))
    with pytest.raises(DataError, match="nested"):
        read_xml(tmp_path / "a.xml")


def test_the_part_of_yaml_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(
        "# of a tool\ntrain: images/a # here\nval: ['x/y', z]\nnc: 2\nnames:\n- 'it''s'\n"
        '- "a # b"\nother: {0: cat, 1: "a, b"}\n'
    )
    assert read_yaml(path) == {
        "train": "images/a",
        "val": ["x/y", "z"],
        "nc": "2",
        "names": ["it's", "a # b"],
        "other": {"0": "cat", "1": "a, b"},
    }


# ------------------------------------------------------------ beside other kinds
def test_class_folders_with_other_files_are_still_classes(tmp_path: Path) -> None:
    for name in ("car", "sign"):
        for i in range(2):
            save(Drawn(f"p{i}.jpg", 40, 50, 1, ()), tmp_path / name / f"p{i}.jpg")
    (tmp_path / "notes.json").write_text('{"images": 3}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "data.yaml").write_text("author: me\n  - x: [")
    assert hs.read(tmp_path).target.kind == "class"
    with pytest.raises(DataError, match="Boxes are read from COCO's JSON"):
        hs.read(tmp_path, "boxes")


def test_json_about_other_things_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be large; only where boxes are asked for, its damage is told."""
    for name in ("car", "sign"):
        save(Drawn("p1.jpg", 40, 50, 1, ()), tmp_path / name / "p1.jpg")
    (tmp_path / "log.json").write_text('[{"loss": 1}]')
    monkeypatch.setattr("headstart.data.boxes.layouts.read_json", lambda path: 1 / 0)
    assert hs.read(tmp_path).target.kind == "class"
    with pytest.raises(ZeroDivisionError):
        hs.read(tmp_path, "boxes")


def test_heads_on_pooled_features_are_refused_for_boxes(tmp_path: Path) -> None:
    coco(tmp_path, drawn(9))
    for act in (hs.search, hs.advise):
        with pytest.raises(SpecError, match=r"Use headstart\.train"):
            act(tmp_path)
    with pytest.raises(SpecError, match=r"Use headstart\.train"):
        hs.search(tmp_path, trials=1, out=tmp_path / "found", store=None)
    assert not (tmp_path / "found").exists()


def test_boxes_of_other_weights_train_another_model(tmp_path: Path) -> None:
    data = hs.read(coco(tmp_path, drawn(9)))
    heavy = replace(data, weights=(2.0,) * 9)
    assert fingerprint(data.decisive) != fingerprint(heavy.decisive)


def test_data_without_boxes_is_not_read_as_boxes(tmp_path: Path) -> None:
    """Each with a sentence: arrays, a data set of classes, a table of predictions."""
    data = hs.read((np.zeros((4, 8, 8, 3), np.uint8), ["a", "b"] * 2))
    with pytest.raises(DataError, match="Boxes are read from"):
        hs.read(data, "boxes")
    with pytest.raises(DataError, match="Boxes are read from COCO's JSON"):
        hs.read(([np.zeros((8, 8, 3), np.uint8)], ["a"]), target="boxes")
    (tmp_path / "a.csv").write_text("path,label,predicted\na,b,c\n")
    with pytest.raises(DataError, match="COCO's results"):
        hs.evaluate(tmp_path / "a.csv", target="boxes")
