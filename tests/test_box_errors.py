"""Errors of detections by kind, what they cost, and curves with bands."""

import numpy as np
import pytest

from headstart.evaluation.evaluation import Evaluation, evaluate
from headstart.evaluation.precision_curves import precision_curves
from headstart.targets.box_errors import KINDS, MISSED, PASSED, RIGHT, JudgedBoxes
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import BoxLabels, ExampleBoxes
from headstart.targets.boxes import BoxesTarget, answers_of
from headstart.targets.predictions import Predictions

NAMES = ("a", "b")
TRUE = [0, 0, 10, 10]


def judged(found: list[tuple[list[float], float, int]], *, crowd: bool = False) -> JudgedBoxes:
    truth = BoxLabels.of([ExampleBoxes([TRUE], [0], [crowd], size=(99, 99))])
    corners, scores, labels = zip(*found, strict=True)
    one = Detections(np.array(corners, float), np.array(scores), np.array(labels))
    return JudgedBoxes.of(truth, [one], len(NAMES))


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        ([0, 0, 10, 6], 1, "class"),
        ([0, 0, 10, 4], 0, "location"),
        ([0, 0, 10, 4], 1, "both"),
        ([0, 0, 10, 0.9], 0, "background"),
        ([50, 50, 60, 60], 0, "background"),
    ],
)
def test_each_wrong_detection_has_its_kind(box: list[float], label: int, kind: str) -> None:
    found = judged([(box, 0.9, label)])
    assert [KINDS[k] for k in found.kinds] == [kind]
    missed = kind in ("both", "background")
    assert found.missed(np.ones(1, bool)).tolist() == [missed]
    assert found.by_row(np.ones(1, bool)).sum() == 1 + missed


def test_the_second_detection_of_a_box_is_a_duplicate() -> None:
    found = judged([([0, 0, 10, 9], 0.5, 0), ([0, 0, 10, 10], 0.9, 0)])
    assert found.kinds.tolist() == [RIGHT, KINDS.index("duplicate")]
    assert found.scores.tolist() == [0.9, 0.5]


def test_detections_of_a_crowd_are_neither_right_nor_wrong() -> None:
    found = judged([([0, 0, 10, 5], 0.9, 0), ([0, 5, 10, 10], 0.8, 0)], crowd=True)
    assert found.kinds.tolist() == [PASSED, PASSED]
    assert not found.by_row(np.ones(2, bool)).any()


def test_only_detections_that_reach_the_threshold_count() -> None:
    found = judged([([0, 0, 10, 10], 0.4, 0), ([50, 50, 60, 60], 0.9, 1)])
    kept = found.reaching((0.5, 0.5))
    assert kept.tolist() == [True, False]
    assert found.by_row(kept).sum(axis=0)[[MISSED, KINDS.index("background")]].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (([0, 0, 10, 6], 0.9, 1), "class"),
        (([0, 0, 10, 4], 0.9, 0), "location"),
        (([50, 50, 60, 60], 0.9, 1), "missed"),
    ],
)
def test_an_error_costs_what_its_cure_gains(
    wrong: tuple[list[float], float, int], kind: str
) -> None:
    found = judged([wrong])
    costs = {name: found.cost(k) for k, name in enumerate(KINDS)}
    assert costs.pop(kind) == pytest.approx(0.0 if kind == "missed" else 1.0)
    assert all(abs(cost) < 1e-12 for cost in costs.values())


def test_a_background_detection_above_the_right_one_costs_half() -> None:
    found = judged([([50, 50, 60, 60], 0.9, 0), ([0, 0, 10, 10], 0.5, 0)])
    assert found.cost(KINDS.index("background")) == pytest.approx(0.5)


# ---------------------------------------------------------------- random cases
def cases(seed: int, n: int = 12) -> Predictions:
    """Examples whose boxes are found, shifted, renamed, doubled or missed, crowds among them."""
    rng, truth, found = np.random.default_rng(seed), list[ExampleBoxes](), list[Detections]()
    for _ in range(n):
        m = int(rng.integers(0, 6))
        low = rng.uniform(0, 60, (m, 2))
        boxes = np.hstack([low, low + rng.uniform(12, 30, (m, 2))])
        labels = rng.integers(0, 2, m)
        flags = rng.random(m) < 0.1, rng.random(m) < 0.1
        truth.append(ExampleBoxes(boxes, labels, *flags, (99, 99)))
        again = np.concatenate([np.flatnonzero(rng.random(m) < 0.8)] * 2)
        moved = boxes[again] + rng.uniform(-3, 3, (len(again), 4))
        named = np.where(rng.random(len(again)) < 0.8, labels[again], 1 - labels[again])
        scores = rng.random(len(again)).round(1)
        found.append(Detections(moved, scores, named))
    target, y = BoxesTarget(NAMES, thresholds=(0.3, 0.6)), BoxLabels.of(truth)
    return Predictions(tuple(map(str, range(n))), answers_of(found), y, target)


def test_right_and_wrong_are_those_of_average_precision() -> None:
    for seed in range(20):
        said = cases(seed)
        assert isinstance(said.target, BoxesTarget)
        ap = said.target.metrics(said.outputs, said.labels)["AP50"]
        own = said.target.scored(said.outputs, said.labels).judged
        assert ap is not None
        assert own._plain == pytest.approx(ap.value, abs=1e-12)
        assert own.reaching(said.target.thresholds).sum() == said.target.taken(said.outputs).sum()


def test_the_tables_of_thresholds_and_errors_are_read_back() -> None:
    result = evaluate(cases(0))
    assert Evaluation.read(result.to_plain()).to_plain() == result.to_plain()
    assert set(result.errors) == set(KINDS)
    own = result.at_threshold["a"]
    assert own.threshold == 0.3
    assert 0 < own.precision.low <= own.precision.value <= own.precision.high <= 1
    f1 = 2 / (1 / own.precision.value + 1 / own.recall.value)
    assert own.f1.value == pytest.approx(f1)


def test_a_curve_has_the_area_of_average_precision() -> None:
    said = cases(1)
    assert isinstance(said.target, BoxesTarget)
    for c, matches in enumerate(said.target.scored(said.outputs, said.labels).matches):
        ap, curve = matches.average_precision(), matches.curve()
        assert ap is not None
        assert curve is not None
        assert curve.mean() == pytest.approx(ap[0], abs=1e-12), c


def test_bands_hold_the_curve_and_draw_groups_whole() -> None:
    said = cases(2)
    for own in precision_curves(said):
        assert all(a <= b <= c for a, b, c in zip(own.low, own.precision, own.high, strict=True))
        assert own.low != own.high
        assert len(own.at) == 2
    for own in precision_curves(said, ["one group"] * len(said)):
        assert own.low == own.precision == own.high


def test_a_class_without_boxes_has_no_curve() -> None:
    said = cases(3).take(np.arange(2))
    target = BoxesTarget((*NAMES, "c"))
    own = Predictions(said.ids, said.outputs, said.labels, target)
    assert "c" not in [curve.name for curve in precision_curves(own)]
    assert all(curve.at == () for curve in precision_curves(own))
