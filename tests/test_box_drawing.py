"""Boxes drawn on pictures, and written as YOLO's text."""

from pathlib import Path

import numpy as np
import pytest
from box_data import NAMES

import headstart as hs
from headstart.data.boxes.results import coco_results, yolo_text
from headstart.modalities.images.box_drawing import (
    LEAST,
    DrawnBox,
    _free,
    colour_of,
    draw_boxes,
    drawn_detections,
    drawn_labels,
)
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import ExampleBoxes
from headstart.targets.boxes import BoxesTarget, answers_of

GREY = np.full((300, 400, 3), 128, np.uint8)


@pytest.mark.parametrize("side", [40, 700, 3000])
def test_a_box_is_drawn_where_it_is_at_any_size(side: int) -> None:
    pixels = np.full((side // 2, side, 3), 128, np.uint8)
    box = (0.25 * side, 0.1 * side, 0.75 * side, 0.4 * side)
    drawn = np.asarray(draw_boxes(pixels, [DrawnBox(box, colour=colour_of(1))]))
    scale = drawn.shape[1] / side
    assert scale == round(scale)
    assert drawn.shape[1] >= LEAST
    own = np.argwhere((drawn == colour_of(1)).all(axis=2))
    for (low, high), (a, b) in zip(
        zip(own.min(axis=0), own.max(axis=0), strict=True),
        ((box[1], box[3]), (box[0], box[2])),
        strict=True,
    ):
        width = drawn.shape[1] / 200
        assert abs(low - a * scale) <= width
        assert abs(high - b * scale) <= width
    inside = drawn[int(0.25 * side * scale), int(0.5 * side * scale)]
    assert inside.tolist() == [128, 128, 128]


def test_labels_are_dashed_and_detections_whole() -> None:
    whole, dashed = (
        np.asarray(draw_boxes(GREY, [DrawnBox((50, 50, 350, 250), dashed=d)], least=1))
        for d in (False, True)
    )
    lines = [(drawn[50, 60:340] == 255).all(axis=1) for drawn in (whole, dashed)]
    assert lines[0].all()
    assert 0.4 < lines[1].mean() < 0.7


def test_texts_cover_each_other_only_where_there_is_no_room() -> None:
    places = list[tuple[float, float, float, float]]()
    for shift in range(4):
        box = (100.0 + shift, 100.0, 200.0 + shift, 200.0)
        places.append(_free(box, (60, 20), (400, 300), places))
    for i, a in enumerate(places):
        assert a[0] >= 0
        assert a[3] <= 300
        for b in places[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_text_at_the_edge_stands_beside_its_box() -> None:
    place = _free((100.0, 2.0, 200.0, 60.0), (60, 20), (400, 300), [])
    assert place == (100.0, 60.0, 160.0, 80.0)
    whole = _free((0.0, 0.0, 400.0, 300.0), (60, 20), (400, 300), [])
    assert whole == (0.0, 0.0, 60.0, 20.0)


def test_detections_have_the_colour_and_the_name_of_their_class() -> None:
    found = Detections(
        np.array([[1, 1, 9, 9], [2, 2, 8, 8]]), np.array([0.2, 0.7]), np.array([0, 1])
    )
    first, second = drawn_detections(found, NAMES)
    assert (first.text, second.text) == ("traffic sign 0.70", "car 0.20")
    assert (first.colour, second.colour) == (colour_of(1), colour_of(0))
    (label,) = drawn_labels(ExampleBoxes([[1, 1, 9, 9]], [0]), ["car"])
    assert label.dashed
    assert label.text == "car"


def test_detections_survive_yolo_and_coco_to_a_thousandth_of_a_pixel(tmp_path: Path) -> None:
    """Read back by this package's readers: YOLO's as labels, without the scores."""
    from box_data import Drawn, save

    rng, size = np.random.default_rng(0), (4031, 3023)
    low = rng.uniform(0, 2000, (50, 2))
    corners = np.hstack([low, low + rng.uniform(30, 900, (50, 2))]).astype(np.float32)
    found = Detections(corners, rng.random(50), rng.integers(0, 2, 50))
    save(Drawn("p6.jpg", *size, 6, ()), tmp_path / "images" / "p6.jpg")
    text = yolo_text(found, size)
    lines = [line.rpartition(" ")[0] for line in text.splitlines()]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "p6.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {list(NAMES)}\n")
    own = hs.read(tmp_path).y[0]
    assert own.size == size
    assert np.abs(own.corners - corners).max() <= 1e-3
    assert own.labels.tolist() == found.labels.tolist()
    plain = coco_results(["p6.jpg"], answers_of([found]), BoxesTarget(NAMES))
    back = np.array([[a, b, a + w, b + h] for a, b, w, h in (one["bbox"] for one in plain)])
    order = np.argsort(-found.scores, kind="stable")
    assert np.abs(back - corners[order]).max() <= 1e-3
