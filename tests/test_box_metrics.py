"""Average precision of boxes: COCO's figures to 1e-6, and the rules that COCO does not have."""

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.evaluation.evaluation import evaluate
from headstart.targets.box_matching import Detections, match
from headstart.targets.box_metrics import EVERY
from headstart.targets.box_values import BoxLabels, ExampleBoxes, areas, overlaps
from headstart.targets.boxes import BoxesTarget, answers_of
from headstart.targets.predictions import Predictions

CLASSES = 4  # the last one never has a box
COCO_SIZES = [(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)]


def some_boxes(rng: np.random.Generator, n: int) -> Any:
    """Boxes whose corners are quarters of pixels, exact in every float."""
    low = rng.integers(0, 400, (n, 2)) / 4
    sides = rng.choice([8, 30, 60, 130, 390], (n, 1)) + rng.integers(0, 30, (n, 2))
    return np.hstack([low, low + sides / 4 + rng.integers(0, 2) * 20])


def case(seed: int) -> tuple[BoxLabels, list[Detections]]:
    """A few examples, some without boxes, some with crowds; detections near them and elsewhere.

    Of every second box the area is that of an outline in it.
    """
    rng, outlines = np.random.default_rng(seed), np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(rng.integers(1, 5)):
        n = int(rng.choice([0, 1, 3, 8]))
        boxes = ExampleBoxes(
            some_boxes(rng, n), rng.integers(0, CLASSES - 1, n), rng.random(n) < 0.15
        )
        share = outlines.integers(1, 8, n) / 8
        drawn = np.where(outlines.random(n) < 0.5, share * areas(boxes.corners), np.nan)
        boxes = replace(boxes, area=drawn)
        near = boxes.corners + rng.integers(-12, 13, (n, 4)) / 4 * rng.integers(0, 2, (n, 1))
        near = near[(near[:, 2:] > near[:, :2]).all(axis=1)]
        corners = np.vstack(
            [near, near[: len(near) // 2], some_boxes(rng, int(rng.integers(0, 6)))]
        )
        classes = rng.integers(0, CLASSES, len(corners))
        classes[: len(near)] = np.where(rng.random(len(near)) < 0.8, 0, classes[: len(near)])
        scores = np.round(rng.random(len(corners)), 1)  # with ties
        truth.append(boxes)
        found.append(Detections(corners, scores, classes))
    return BoxLabels.of(truth), found


def of_pycocotools(truth: BoxLabels, found: list[Detections], most: int = 300) -> Any:
    """COCO's precision (T, R, K, A) and recall (T, K, A), -1 where undefined."""
    coco, evaluation = pytest.importorskip("pycocotools.coco"), __import__("pycocotools.cocoeval")
    boxes, rows = truth.boxes, truth.rows
    sides = (boxes.corners[:, 2:] - boxes.corners[:, :2]).astype(float)
    annotations = [
        dict(id=k + 1, image_id=int(rows[k]), category_id=int(boxes.labels[k]),
             bbox=[*boxes.corners[k, :2].tolist(), *sides[k].tolist()],
             area=float(sides[k].prod() if np.isnan(boxes.area[k]) else boxes.area[k]),
             iscrowd=int(boxes.crowd[k]))
        for k in range(len(rows))
    ]  # fmt: skip
    results = [
        dict(image_id=i, category_id=int(c), bbox=[*b[:2].tolist(), *(b[2:] - b[:2]).tolist()],
             score=float(s))
        for i, one in enumerate(found)
        for b, s, c in zip(one.corners, one.scores, one.labels, strict=True)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = {
            "images": [{"id": i} for i in range(len(truth))],
            "annotations": annotations,
            "categories": [{"id": c} for c in range(CLASSES)],
        }
        true.createIndex()
        given = true.loadRes(results) if results else coco.COCO()
        judge = evaluation.cocoeval.COCOeval(true, given, "bbox")
        judge.params.maxDets = [1, 10, most]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][..., 2], judge.eval["recall"][..., 2]


def same_as_pycocotools(seeds: range) -> int:
    """Compare average precision and recall of each class and size; return how many are defined."""
    defined = 0
    for seed in seeds:
        truth, found = case(seed)
        precision, recall = of_pycocotools(truth, found)
        for a, sizes in enumerate(COCO_SIZES):
            for c, own in enumerate(match(truth, found, CLASSES, sizes)):
                ap, share = own.average_precision(), own.recall()
                if ap is None or share is None:
                    assert (precision[:, :, c, a] == -1).all(), (seed, a, c)
                    continue
                assert ap == pytest.approx(precision[:, :, c, a].mean(axis=1), abs=1e-6), (seed, a)
                assert share == pytest.approx(recall[:, c, a], abs=1e-6), (seed, a, c)
                defined += 1
    return defined


def test_average_precision_is_that_of_pycocotools() -> None:
    assert same_as_pycocotools(range(60)) > 200


@pytest.mark.slow
def test_average_precision_is_that_of_pycocotools_in_1000_cases() -> None:
    assert same_as_pycocotools(range(1000)) > 3000


def test_no_detection_is_cut_off_by_its_score() -> None:
    """A right one of a low score still raises the precision: cutting at .25 cost .12 of AP."""
    truth = BoxLabels.of([ExampleBoxes([[0, 0, 9, 9], [20, 20, 29, 29]], [0, 0])])
    found = Detections(truth.boxes.corners, np.array([0.9, 1e-6]), np.zeros(2, int))
    ap = match(truth, [found], 1)[0].average_precision()
    assert ap == pytest.approx(np.ones(10))


def test_a_difficult_box_is_neither_missed_nor_found_wrongly() -> None:
    """However often it is found; the overlap with it is the usual one, unlike that with a crowd."""
    truth = BoxLabels.of([ExampleBoxes([[0, 0, 9, 9], [20, 20, 29, 29]], [0, 0], None, [0, 1])])
    found = Detections(
        np.array([[20, 20, 29, 29], [20, 20, 29, 29], [0, 0, 9, 9]]),
        np.array([0.9, 0.8, 0.7]),
        np.zeros(3, int),
    )
    (own,) = match(truth, [found], 1)
    assert own.average_precision() == pytest.approx(np.ones(10))
    assert own.totals.tolist() == [1]


def test_of_equal_overlaps_the_last_box_is_taken() -> None:
    """As COCO does: here it leaves the first one to the second detection."""
    truth = BoxLabels.of([ExampleBoxes([[0, 0, 10, 10], [4, 0, 14, 10]], [0, 0])])
    corners, scores = np.array([[2, 0, 12, 10], [0, 0, 10, 10]]), np.array([0.9, 0.8])
    (own,) = match(truth, [Detections(corners, scores, np.zeros(2, int))], 1)
    assert own.hits[0].tolist() == [True, True]


def test_the_union_with_a_crowd_is_the_detection() -> None:
    a, b = np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 8], [0, 0, 2, 8]])
    assert overlaps(a, b, np.array([False, True])).tolist() == [[0.25, 1.0]]


def scored_case(seed: int = 1) -> tuple[BoxesTarget, dict[str, Any], BoxLabels]:
    truth, found = case(seed)
    target = BoxesTarget(("a", "b", "c", "d"))
    return target, answers_of(found), truth


def test_resampled_precision_is_that_of_the_repeated_examples() -> None:
    target, answers, y = scored_case(3)
    rows = np.array([0, 0, len(y) - 1, 1])
    again = {name: values[rows] for name, values in answers.items()}
    whole = target.scored(answers, y).precision(EVERY)(rows)
    assert whole == pytest.approx(target.scored(again, y[rows]).precision(EVERY)(np.arange(4)))


def test_metrics_have_intervals_and_tables_of_classes_and_sizes() -> None:
    target, answers, y = scored_case()
    found = evaluate(Predictions(tuple(map(str, range(len(y)))), answers, y, target), resamples=20)
    assert found.main is not None
    assert found.main.low <= found.main.value <= found.main.high
    by_class, by_size = found.tables
    assert [row[0] for row in by_class.rows] == ["a", "b", "c", "d"]
    assert by_class.rows[3][1] is None  # no box to find
    assert [row[0].split(",")[0] for row in by_size.rows] == [
        *("smallest third", "middle third", "largest third"),
        *("COCO small", "COCO medium", "COCO large"),
    ]
    thirds = [row[2] for row in by_size.rows[:3]]
    assert sum(thirds) == int((~y.boxes.ignored).sum())


def test_the_bootstrap_draws_groups() -> None:
    """Examples of one group are no independent ones: the interval widens."""
    rng = np.random.default_rng(0)
    truth = [ExampleBoxes(some_boxes(rng, 2), [0, 0]) for _ in range(40)]
    found = [
        Detections(one.corners + 40 * (i < 20), np.ones(2), np.zeros(2, int))
        for i, one in enumerate(truth)
    ]
    rows = Predictions(
        tuple(map(str, range(40))), answers_of(found), BoxLabels.of(truth), BoxesTarget(("a",))
    )
    alone, grouped = evaluate(rows, resamples=200), evaluate(rows, groups=["a"] * 20 + ["b"] * 20)
    assert alone.AP.value == grouped.AP.value
    assert grouped.AP.high - grouped.AP.low > 2 * (alone.AP.high - alone.AP.low)


def test_labels_are_restored_from_their_text() -> None:
    """But for the areas of outlines, which only the figures by size read."""
    target, _, y = scored_case()
    again = target.parse([*target.decode(y), ""])
    assert [again[i] for i in range(len(y))] == [replace(y[i], area=None) for i in range(len(y))]
    assert again.known.tolist() == [True] * len(y) + [False]


def test_a_class_with_under_10_test_boxes_is_named() -> None:
    target = BoxesTarget(("many", "few"))
    y = target.labels([ExampleBoxes(np.ones((13, 4)), [0] * 10 + [1] * 3)])
    assert target.about_test(y).startswith("the test part has under 10 boxes of few 3:")


def test_examples_with_the_same_classes_are_a_stratum_and_others_go_by_their_rarest() -> None:
    target, rng = BoxesTarget(tuple("abcdefgh")), np.random.default_rng(0)
    alike = [ExampleBoxes(np.ones((len(own), 4)), own) for own in ([0, 1], [1, 0], [0, 0], []) * 8]
    strata = target.strata(target.labels(alike))
    assert [len({*strata[i::4].tolist()}) for i in range(4)] == [1, 1, 1, 1]
    assert len(set(strata.tolist())) == 3

    several = [np.flatnonzero(rng.random(7) < 0.5) for _ in range(40)]
    sets = [np.append(own, 7) if i % 8 == 0 else own for i, own in enumerate(several)]
    other = [ExampleBoxes(np.ones((len(own), 4)), own) for own in sets]
    strata = target.strata(target.labels(other))
    rare = {strata[i] for i in range(0, 40, 8)}
    assert len(rare) == 1  # all those with class h
    assert rare.isdisjoint(strata[i] for i in range(40) if i % 8)
