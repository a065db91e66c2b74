"""What a run shows beside its figures: more data, suspects, outliers, the map, comparisons."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls

from headstart.evaluation.effort import InsightEffort
from headstart.evaluation.embedding_map import embedding_map
from headstart.evaluation.judged import gains, temperature_scaling
from headstart.evaluation.learning_curve import (
    POWERS,
    _projected,
    learning_curve,
    projection,
    rising,
)
from headstart.evaluation.mistakes import margins, mistakes, noise, outliers, suspicious
from headstart.features.extract import FeatureTable
from headstart.heads.fit import out_of_fold
from headstart.heads.specs import LogisticSpec
from headstart.targets.classes import ClassTarget
from headstart.targets.predictions import Predictions


def table(n: int = 300, classes: int = 3, apart: float = 3.0, seed: int = 0) -> FeatureTable:
    """Clouds of rows, one a class; `apart` standard deviations between their centres."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    centres = np.eye(classes, 10) * apart
    x = (rng.normal(size=(n, 10)) + centres[y]).astype(np.float32)
    names = tuple("abcdefgh"[:classes])
    return FeatureTable(tuple(f"{i}.png" for i in range(n)), x, y, ClassTarget(names), "")


def relabelled(rows: FeatureTable, y: NDArray[np.int64]) -> FeatureTable:
    return FeatureTable(rows.ids, rows.x, y, rows.target, "")


def test_planted_label_mistakes_are_found() -> None:
    rows, rng = table(1000, apart=6.0), np.random.default_rng(1)
    wrong = rng.permutation(1000)[:50]
    y = rows.y.copy()
    y[wrong] = (y[wrong] + rng.integers(1, 3, size=50)) % 3
    found = mistakes(0.03, relabelled(rows, y))
    assert found is not None
    assert found.of == 1000
    named = {row.path for row in found.rows}
    planted = {f"{i}.png" for i in wrong}
    assert len(named) == 24
    assert len(named & planted) >= 0.9 * len(named)  # precision among those that are named
    assert 45 <= found.found <= 55  # recall and precision of 0.9, since they are so many


def test_a_label_mistake_is_named_with_the_class_it_looks_like() -> None:
    rows = table(200, classes=2, apart=8.0)
    y = rows.y.copy()
    y[7] = 1 - y[7]
    found = mistakes(0.03, relabelled(rows, y))
    assert found is not None
    first = found.rows[0]
    assert first.path == "7.png"
    assert (first.label, first.suggested) == ("ab"[y[7]], "ab"[rows.y[7]])


def test_suspects_are_by_hand_and_ranked_by_margin() -> None:
    scores = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.95, 0.05], [0.6, 0.4]])
    labels = np.array([0, 0, 1, 1, 1])  # usual: 0.8 for class 0, 0.4167 for class 1; row 4 tells
    assert noise(scores, labels).tolist() == [[0, 0], [2, 0]]  # of neither: 1 : 1 is 1.5 : 1.5
    assert suspicious(scores, labels).tolist() == [3, 4]
    np.testing.assert_allclose(margins(scores, labels), [0.8, 0.4, 0.6, -0.9, -0.2])


def test_rows_that_no_fold_can_judge_suspect_nobody() -> None:
    assert mistakes(0.03, relabelled(table(3), np.array([0, 1, 2]))) is None


def test_the_row_like_no_other_comes_first() -> None:
    rows = table(100)
    rows.x[41] = -50 * np.ones(10)
    found = outliers(rows)
    assert found is not None
    assert found[0].path == "41.png"
    assert found[0].distance > 1.2 > found[-1].distance
    assert all(row.nearest != row.path for row in found)
    assert outliers(table(5)) is None


def test_a_planted_law_is_projected() -> None:
    rows = np.array([50, 100, 200, 400, 800])
    points = tuple((int(n), 0.95 - 1.0 * n**-0.5, 0.002) for n in rows)
    said = projection(points, np.random.default_rng(0))
    assert said.rows == 1600
    assert said.accuracy == pytest.approx(0.95 - 1600**-0.5, abs=0.003)
    assert said.low <= 0.95 - 1600**-0.5 <= said.high


def test_the_law_is_fitted_by_least_squares_without_negative_parts() -> None:
    rows, rng = np.array([10, 10, 25, 60, 130]), np.random.default_rng(0)
    curves = rng.uniform(0.2, 1.05, (40, 5))
    curves[:20] = np.sort(curves[:20], axis=1)  # half of them rise
    for curve, said in zip(curves, _projected(rows, curves, 260), strict=True):
        best = (np.inf, 0.0)
        for power in POWERS:
            columns = np.stack([np.ones(5), (rows / 130) ** -power], axis=1)
            (a, b), misfit = nnls(columns, 1 - curve)
            best = min(best, (float(misfit), float(1 - a - b * 2**-power)))
        assert said == pytest.approx(best[1], abs=1e-6)
    alike = _projected(np.array([5, 5]), np.array([[0.5, 0.7]]), 10)
    assert alike == pytest.approx([0.6]), "no law shows in one number of rows"


def test_the_error_of_few_judged_rows_is_part_of_a_projection() -> None:
    points = [(n, 0.95 - 1.0 * n**-0.5, 0.002) for n in (50, 100, 200, 400, 800)]
    exact = projection(points, np.random.default_rng(0))
    few = projection(points, np.random.default_rng(0), n=30)
    assert few.accuracy == exact.accuracy
    assert few.high - few.low > 0.1 > exact.high - exact.low


def test_a_rise_within_the_error_of_measuring_is_none() -> None:
    points = [(n, 0.9 - 2.0 * n**-0.5, 0.01) for n in (30, 60, 120, 240)]
    assert rising(points, 400)
    assert not rising(points, 9)
    assert not rising([(n, 1.3 - a, s) for n, a, s in points], 400)  # it falls
    assert not rising([(100, 0.8, 0.0)], 400)


def test_a_learning_curve_rises_over_the_training_rows() -> None:
    curve = learning_curve(0.03, table(400, apart=2.0), table(400, apart=2.0, seed=1))
    assert curve is not None
    rows = [point.rows for point in curve.points]
    assert rows[-1] == 400
    assert rows == sorted(rows)
    assert curve.points[0].accuracy < curve.points[-1].accuracy
    assert all(p.low <= p.accuracy <= p.high for p in curve.points)
    assert learning_curve(0.03, table(), table(0)) is None


def test_the_map_keeps_classes_together() -> None:
    rows = table(120, apart=9.0)
    found = embedding_map(rows, {"0.png": "train"})
    assert found is not None
    assert set(found.maps) >= {"PCA"}
    assert len(found.maps) == 2
    assert found.parts[0] == "train"
    for xy in map(np.array, found.maps.values()):
        assert xy.shape == (120, 2)
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=2) + np.eye(120) * 9
        nearest = np.array(found.labels)[gaps.argmin(axis=1)]
        assert (nearest == np.array(found.labels)).mean() > 0.9
    assert embedding_map(table(3), {}) is None


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(np.zeros((40, 8)), id="a dead backbone"),
        pytest.param(np.full((40, 8), 3.7), id="constant"),
        pytest.param(np.eye(40, 8) * 1e-30, id="float32 squares it to 0"),
        pytest.param(np.eye(40, 8) * 1e25, id="float32 squares it to infinity"),
        pytest.param(1000 + np.eye(40, 8) * 1e-4, id="rounding"),
        pytest.param(np.where(np.eye(40, 8), np.nan, 1.0), id="not a number"),
        pytest.param(np.where(np.eye(40, 8), np.inf, 1.0), id="infinite"),
    ],
)
def test_features_that_do_not_vary_have_no_map(x: NDArray[np.float64]) -> None:
    """t-SNE would crash the process with some of them."""
    ids = tuple(map(str, range(len(x))))
    y = np.arange(len(x)) % 2
    assert (
        embedding_map(FeatureTable(ids, x.astype(np.float32), y, ClassTarget(("a", "b")), ""), {})
        is None
    )


def test_features_that_vary_in_one_row_or_column_have_a_map() -> None:
    rows = table(60)
    for varying in (np.ix_([5], range(10)), np.ix_(range(60), [3])):
        x = np.zeros_like(rows.x)
        x[varying] = rows.x[varying]
        found = embedding_map(FeatureTable(rows.ids, x, rows.y, rows.target, ""), {})
        assert found is not None
        assert np.isfinite(found.maps["t-SNE"]).all()


def test_a_large_table_is_sampled_for_the_map() -> None:
    found = embedding_map(table(50), {}, effort=InsightEffort(map_rows=30))
    assert found is not None
    assert len(found.paths) == 30


def predictions(right: list[bool], sure: float = 0.9) -> Predictions:
    labels = np.zeros(len(right), np.int64)
    scores = np.array([[sure, 1 - sure] if r else [1 - sure, sure] for r in right], np.float32)
    return Predictions(tuple(map(str, range(len(right)))), scores, labels, ("a", "b"))


def test_candidates_are_compared_row_for_row() -> None:
    kept, other = predictions([True] * 12 + [False] * 8), predictions([True] * 2 + [False] * 18)
    (found,) = gains("finetune", {"head": other, "finetune": kept}, "val")
    assert (found.a, found.b, found.on) == ("finetune", "head", "val")
    assert found.gain.value == pytest.approx(0.5)
    assert found.p == pytest.approx(2 * 0.5**10)  # ten rows differ, all one way


def test_calibration_is_told_before_and_after() -> None:
    said = predictions([True] * 6 + [False] * 4, sure=0.6)  # after scaling: as often as it says
    scaling = temperature_scaling(said, 3.0, 50)
    assert scaling is not None
    assert scaling.test.after.ece == pytest.approx(0.0, abs=1e-6)
    assert scaling.test.before.ece > 0.1
    assert scaling.coverage[-1] == pytest.approx((1.0, 0.6))


def test_folds_hold_out_no_whole_stretch_of_a_class() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 100)
    films = np.repeat(np.arange(10), 20)  # ten films of 20 frames, each a cloud of its own
    x = (rng.normal(size=(200, 12)) + 12 * np.eye(10, 12)[films]).astype(np.float32)
    rows = FeatureTable(tuple(map(str, range(200))), x, y, ClassTarget(("a", "b")), "")
    scores = out_of_fold(LogisticSpec(l2=(0.01,)), rows, rng)
    assert (scores.argmax(axis=1) == y).mean() > 0.98
