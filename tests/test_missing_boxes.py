"""Detections without a label: which are listed as objects that nobody labelled."""

import numpy as np

from headstart.evaluation.missing_boxes import likely_missing
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import BoxLabels, ExampleBoxes

LABELLED: list[float] = [0, 0, 100, 100]
ELSEWHERE: list[float] = [200, 200, 240, 240]


def found(*boxes: tuple[list[float], float, int]) -> Detections:
    corners, scores, labels = zip(*boxes, strict=True) if boxes else ((), (), ())
    return Detections(
        np.array(corners, np.float32).reshape(-1, 4), np.array(scores), np.array(labels, int)
    )


def listed(*boxes: tuple[list[float], float, int], labels: BoxLabels | None = None) -> list[float]:
    y = labels or BoxLabels.of([ExampleBoxes([LABELLED], [0])])
    return [one.score for one in likely_missing([found(*boxes)], y)]


def test_a_detection_far_from_every_box_is_listed() -> None:
    assert listed((LABELLED, 0.9, 0), (ELSEWHERE, 0.8, 0)) == [0.8]


def test_a_detection_of_another_class_on_a_box_is_an_error_of_the_class_alone() -> None:
    assert listed(([0, 0, 100, 90], 0.9, 1)) == []


def test_a_part_of_a_box_of_its_class_is_not_listed_but_a_small_thing_on_it_is() -> None:
    part = [10.0, 10, 40, 40]
    assert listed((part, 0.9, 0)) == []
    assert listed((part, 0.9, 1)) == [0.9]


def test_an_object_detected_twice_is_listed_once_with_its_higher_score() -> None:
    assert listed((ELSEWHERE, 0.5, 0), ([203, 203, 243, 243], 0.7, 0)) == [0.7]


def test_a_detection_in_a_crowd_is_not_listed() -> None:
    crowd = BoxLabels.of([ExampleBoxes([LABELLED], [0], crowd=[True])])
    assert listed(([5, 5, 20, 20], 0.9, 1), labels=crowd) == []


def test_the_likeliest_of_all_examples_come_first_and_unknown_examples_are_passed_over() -> None:
    y = BoxLabels.of([ExampleBoxes([], []), None, ExampleBoxes([], [])])
    each = [found((ELSEWHERE, score, 0)) for score in (0.3, 0.9, 0.6)]
    both = likely_missing(each, y)
    assert [(one.row, one.score) for one in both] == [(2, 0.6), (0, 0.3)]
    assert likely_missing(each, y, most=1) == both[:1]


def test_an_example_without_boxes_or_detections_is_no_error() -> None:
    assert listed(labels=BoxLabels.of([ExampleBoxes([], [])])) == []
    assert listed((ELSEWHERE, 0.4, 0), labels=BoxLabels.of([ExampleBoxes([], [])])) == [0.4]
