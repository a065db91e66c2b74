"""The checks of boxes: every seeded fault is found, and clean data raises no alarm."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from box_data import FORMATS, NAMES, Box, Drawn, coco, drawn, save, table, yolo

import headstart as hs
from headstart.cli.main import main
from headstart.data.boxes.annotated import BoxForm
from headstart.data.boxes.readings import better_reading, faults
from headstart.reporting.data import _said
from headstart.reporting.words import Words
from headstart.targets.box_checks import alike

SHARE = 0.01  # of the boxes that get a fault

RUSSIAN = Words("ru")  # in which a report has a sentence for every remark


def large(n: int = 60, seed: int = 5) -> list[Drawn]:
    return drawn(n, seed, most=8)


def seeded(
    pictures: list[Drawn], fault: Callable[[Drawn, Box], tuple[Box, ...]]
) -> tuple[list[Drawn], set[str]]:
    """Give a share of the boxes a fault; return the pictures, and the names of those with one."""
    rng = np.random.default_rng(1)
    every = [(i, k) for i, one in enumerate(pictures) for k in range(len(one.boxes))]
    picked = rng.choice(len(every), max(3, round(SHARE * len(every))), replace=False)
    found, changed = list(pictures), set[str]()
    for i, k in (every[p] for p in sorted(picked.tolist(), reverse=True)):
        one = found[i]
        new = (*one.boxes[:k], *fault(one, one.boxes[k]), *one.boxes[k + 1 :])
        found[i] = replace(one, boxes=new)
        changed.add(one.name)
    return found, changed


def checked(path: Path) -> tuple[dict[str, list[str]], list[str], hs.Dataset]:
    """The remarks by kind, what was left out, and the rows."""
    found = hs.check(path, backbone="none", store=None)
    remarks: dict[str, list[str]] = {}
    for remark in found.checks.findings.remarks:
        remarks.setdefault(remark.kind, []).append(str(remark))
        assert f"found.{remark.kind}" in RUSSIAN
        assert re.search("[а-яё]{3}", _said(remark, RUSSIAN).removeprefix(remark.path)), remark
    return remarks, [f"{o.path}: {o.reason}" for o in found.checks.left_out], found.rows


FAULTS: dict[str, tuple[Callable[[Drawn, Box], tuple[Box, ...]], str]] = {
    "outside": (lambda p, b: ((b[0], b[1], b[2], p.width + 7, b[4]),), "px beyond the picture ("),
    "empty": (lambda p, b: ((b[0], b[1], b[2], b[1], b[4]),), "an empty box"),
    "reversed": (lambda p, b: ((b[0], b[3], b[2], b[1], b[4]),), "an empty box"),
    "identical": (lambda p, b: (b, b), "the same box as"),
    "infinite": (lambda p, b: ((b[0], b[1], b[2], float("inf"), b[4]),), "not finite"),
    "clipped": (lambda p, b: ((b[0], -1.5, b[2], b[3], b[4]),), "clipped boxes"),
    "tiny": (lambda p, b: ((b[0], b[1], b[2], b[1] + 1, b[2] + 1),), "tiny boxes"),
    "two classes": (
        lambda p, b: (b, (NAMES[b[0] == NAMES[0]], *b[1:4], b[4] + 0.2)),
        "two classes",
    ),
    "misspelt": (lambda p, b: (("trafic sign", *b[1:]),), "alike names"),
    "other case": (lambda p, b: (("Car", *b[1:]),), "alike names"),
}


@pytest.mark.parametrize("form", FORMATS)
def test_clean_data_raises_no_alarm(form: str, tmp_path: Path) -> None:
    remarks, left_out, rows = checked(FORMATS[form](tmp_path, large()))
    assert (remarks, left_out) == ({}, [])
    assert len(rows) == 60


@pytest.mark.parametrize("name", FAULTS)
def test_every_seeded_fault_is_found(name: str, tmp_path: Path) -> None:
    """Alone: each is listed with its picture, which stays, with all its other boxes."""
    fault, told = FAULTS[name]
    clean = large()
    pictures, changed = seeded(clean, fault)
    remarks, left_out, rows = checked(table(tmp_path, pictures))
    assert len(rows) == len(pictures)
    if told == "alike names":
        assert list(remarks) == [told]
        return
    named = [text for text in left_out if told in text] or remarks.get(told, [])
    assert {name for name in changed if any(name in text for text in named)} == changed
    assert len(named) == len(left_out) + sum(map(len, remarks.values()))  # and nothing else is
    dropped = len(left_out) - (name == "identical") * len(left_out)
    boxes = sum(len(one.boxes) for one in clean) - dropped
    assert sum(map(len, rows.labels)) == boxes + (name == "two classes") * len(named)


def test_sizes_that_fit_only_the_unrotated_frame_are_named(tmp_path: Path) -> None:
    """Which annotations have whose tool did not know the EXIF orientation."""
    pictures = drawn(9)
    path = coco(tmp_path, pictures)
    plain = json.loads(path.read_text())
    turned = [i for i, one in enumerate(pictures) if one.orientation > 4]
    for i in turned:
        image = plain["images"][i]
        image["width"], image["height"] = image["height"], image["width"]
    plain["images"][1]["width"] *= 2
    path.write_text(json.dumps(plain))
    remarks, _, _ = checked(path)
    assert len(remarks.pop("unrotated frames")) == len(turned) == 4
    (resized,) = remarks.pop("other sizes")
    assert "was it resized?" in resized
    assert remarks == {}


FORMS = [
    BoxForm(layout, unit) for layout in ("xyxy", "xywh", "centre") for unit in ("pixels", "shares")
]


def numbers(form: BoxForm) -> tuple[np.ndarray, np.ndarray]:
    """Boxes written in a form, and the sizes of their pictures."""
    each = [(one, box) for one in large() for box in one.boxes]
    sizes = np.array([(one.width, one.height) for one, _ in each], float)
    corners = np.array([box[1:] for _, box in each])
    low, high = corners[:, :2], corners[:, 2:]
    first = (low + high) / 2 if form.layout == "centre" else low
    second = high if form.layout == "xyxy" else high - low
    whole = sizes if form.unit == "shares" else np.ones_like(sizes)
    return np.hstack([first / whole, second / whole]), sizes


@pytest.mark.parametrize("true", FORMS, ids=str)
@pytest.mark.parametrize("read", FORMS, ids=str)
def test_numbers_that_mean_something_else_are_noticed(true: BoxForm, read: BoxForm) -> None:
    raw, sizes = numbers(true)
    assert faults(true, raw, sizes) == 0
    remarks = list(better_reading(read, [raw], [sizes]))
    assert [f"as {true} 0% are" in remark.reason for remark in remarks] == [True] * (true != read)


def test_another_format_is_a_warning(tmp_path: Path) -> None:
    """Corners in COCO's bbox, where the sides must be."""
    path = coco(tmp_path, large())
    plain = json.loads(path.read_text())
    for one in plain["annotations"]:
        a, b, w, h = one["bbox"]
        one["bbox"] = [a, b, a + w, b + h]
    path.write_text(json.dumps(plain))
    warning = hs.check(path, backbone="none", store=None).warning
    assert "as two corners (xmin, ymin, xmax, ymax) in pixels 0% are" in warning


def test_a_few_wrong_boxes_do_not_make_another_format(tmp_path: Path) -> None:
    raw, sizes = numbers(BoxForm())
    raw[:3, 2] += 1000
    assert list(better_reading(BoxForm(), [raw], [sizes])) == []


@pytest.mark.parametrize(
    ("a", "b", "are"),
    [
        ("car", "Car", True),
        ("truck", "trucks", True),
        ("platelet", "platlet", True),
        ("horse", "house", True),
        ("car", "cat", False),
        ("type 1", "type 2", False),
        ("10 of hearts", "1 of hearts", False),
        ("truck", "trolley", False),
        ("abcd", "badc", False),
    ],
)
def test_names_that_differ_by_a_letter_or_by_case(a: str, b: str, are: bool) -> None:
    assert bool(alike(a, b)) == bool(alike(b, a)) == are


# ------------------------------------------------------------ the command
def test_check_works_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault, _ = FAULTS["outside"]
    pictures, changed = seeded(large(), fault)
    yolo(tmp_path / "data", pictures)
    words = ["check", str(tmp_path / "data"), "--backbone", "none", "--store", str(tmp_path / "s")]
    assert main(words) == 3  # done, but some boxes were left out
    out, err = capsys.readouterr()
    assert "boxes: " in out + err
    assert "read as YOLO" in out + err
    assert sum("left out" in line for line in err.splitlines()) >= len(changed)
    assert main([*words, "--json", "--target", "boxes"]) == 3
    plain = json.loads(capsys.readouterr().out)
    assert len(plain["left_out"]) >= len(changed)
    assert all("px beyond the picture" in one["reason"] for one in plain["left_out"])


def test_a_class_of_few_test_boxes_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rare = ("rare thing", 1.0, 1.0, 20.0, 20.0)
    pictures = [
        replace(one, boxes=(*one.boxes, rare) if i % 9 == 1 else one.boxes)
        for i, one in enumerate(large())
    ]
    path = str(table(tmp_path, pictures))
    assert main(["check", path, "--backbone", "none", "--store", str(tmp_path / "s")]) == 0
    out, err = capsys.readouterr()
    assert "the test part has under 10 boxes of rare thing" in out + err
    assert "rare thing" in hs.check(path, backbone="none", store=None).warning
    parts = hs.split(path, store=None)
    each = [sum(1 for own in part.labels if 1 in own.labels) for part in
            (parts.train, parts.val, parts.test)]  # fmt: skip
    assert min(each) >= 1  # pictures with the same set of classes are shared out


def test_pictures_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    a, b = drawn(3)[1:]
    path = coco(tmp_path, [a])
    save(a, tmp_path / "other" / a.name)
    save(b, tmp_path / "images" / "deep" / b.name)
    save(b, tmp_path / "other" / b.name)
    plain = json.loads(path.read_text())
    plain["images"][0]["file_name"] = f"images/{a.name}"
    plain["images"].append(dict(id=1, file_name=b.name))
    path.write_text(json.dumps(plain))
    data = hs.read(path)
    assert data.ids == (f"images/{a.name}",)
    assert any("several pictures" in item.reason for item in data.left_out)
