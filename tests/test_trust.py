"""What a model knows of its doubts: temperature, sets, distance, limits that travel with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from torchmetrics.functional.classification import multiclass_calibration_error

from headstart.base.errors import Mismatch, SpecError
from headstart.evaluation.judged import ConformalSets, conformal_coverage, conformal_row
from headstart.heads.head import softmax
from headstart.models.calibration import calibration, coverage_curve
from headstart.models.distance import Seen
from headstart.models.limits import (
    Judged,
    Limits,
    TrustPlan,
    find_limits,
    load_limits,
    precision_limit,
    upper_limit,
)
from headstart.models.wording import limits_message
from headstart.targets.classes import ClassTarget
from headstart.targets.predictions import Predictions, read_predictions, write_csv
from headstart.targets.target import Array, Metric, Outputs, Row, Target
from headstart.targets.temperature import fit_temperature, scaled

Drawn = tuple[NDArray[np.float32], NDArray[np.int64]]


def drawn(n: int, classes: int = 4, sharper: float = 1.0, seed: int = 0) -> Drawn:
    """Labels drawn from known probabilities, and those probabilities made `sharper` times so."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, size=(n, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(logits)])
    return softmax(logits * sharper).astype(np.float32), labels


def test_a_planted_temperature_is_found() -> None:
    scores, labels = drawn(20_000, sharper=3.0)
    assert fit_temperature(scores, labels) == pytest.approx(3.0, rel=0.03)


def test_scaling_undoes_over_confidence() -> None:
    scores, labels = drawn(20_000, sharper=4.0)
    half = slice(0, 10_000), slice(10_000, None)
    temperature = fit_temperature(scores[half[0]], labels[half[0]])
    before = calibration(scores[half[1]], labels[half[1]]).ece
    after = calibration(scaled(scores[half[1]], temperature), labels[half[1]]).ece
    assert after <= before / 3


def test_the_temperature_is_scikit_learns() -> None:
    from sklearn.calibration import _TemperatureScaling

    scores, labels = drawn(3_000, sharper=2.5)
    theirs = _TemperatureScaling().fit(np.log(scores.astype(np.float64)), labels)
    assert 1 / theirs.beta_ == pytest.approx(fit_temperature(scores, labels), rel=1e-4)


@pytest.mark.parametrize("bins", [10, 15])
def test_the_calibration_error_is_torchmetrics(bins: int) -> None:
    scores, labels = drawn(3_000, sharper=2.5)
    theirs = multiclass_calibration_error(
        torch.tensor(scores).double(), torch.tensor(labels), num_classes=4, n_bins=bins
    )
    assert calibration(scores, labels, bins).ece == pytest.approx(float(theirs), abs=1e-6)


def test_after_scaling_the_calibration_error_is_torchmetrics() -> None:
    scores, labels = drawn(3_000, sharper=2.5)
    fitted = scaled(scores, fit_temperature(scores, labels))
    theirs = multiclass_calibration_error(
        torch.tensor(fitted).double(), torch.tensor(labels), num_classes=4, n_bins=15
    )
    assert calibration(fitted, labels).ece == pytest.approx(float(theirs), abs=1e-6)


def test_scaling_keeps_the_order_and_undoes_itself() -> None:
    scores, _ = drawn(200)
    flatter = scaled(scores, 2.0)
    np.testing.assert_array_equal(flatter.argsort(axis=1), scores.argsort(axis=1))
    np.testing.assert_allclose(scaled(flatter, 0.5), scores, atol=1e-6)


def test_rows_without_a_mistake_tell_no_temperature() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    assert fit_temperature(scores, np.array([0, 1])) == 1.0
    assert fit_temperature(scores[:0], np.array([], np.int64)) == 1.0


def test_a_coverage_curve_ends_at_the_accuracy_of_all() -> None:
    scores, labels = drawn(500)
    curve = coverage_curve(scores, labels)
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    np.testing.assert_allclose(curve[-1], (1.0, accuracy))
    assert curve[0][1] > curve[-1][1]


class Fixed(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose inputs are its probabilities, as MAPIE wants one."""

    def fit(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> "Fixed":
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        return x.argmax(axis=1)


def target_of(scores: NDArray[np.floating]) -> ClassTarget:
    return ClassTarget(tuple(map(str, range(scores.shape[1]))))


def conformal_limit(scores: NDArray[np.floating], labels: NDArray[np.int64], alpha: float) -> float:
    return upper_limit(target_of(scores).conformity({"scores": scores}, labels), alpha)


def conformal_sets(scores: NDArray[np.floating], limit: float) -> NDArray[np.bool_]:
    return target_of(scores).region({"scores": scores}, limit)["not_ruled_out"]


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_conformal_sets_are_mapies(alpha: float) -> None:
    drawn_scores, labels = drawn(900)
    scores = drawn_scores.astype(np.float64)
    calibrating, new = slice(0, 400), slice(400, None)
    model = Fixed().fit(scores, labels)
    theirs = SplitConformalClassifier(
        model, confidence_level=1 - alpha, conformity_score="lac", prefit=True
    ).conformalize(scores[calibrating], labels[calibrating])
    sets = theirs.predict_set(scores[new])[1][:, :, 0]
    limit = conformal_limit(scores[calibrating], labels[calibrating], alpha)
    np.testing.assert_array_equal(conformal_sets(scores[new], limit), sets)


def test_conformal_sets_cover_as_often_as_was_asked() -> None:
    scores, labels = drawn(1_000)
    rng, covered = np.random.default_rng(1), []
    for _ in range(200):
        order = rng.permutation(1_000)
        known, new = order[:500], order[500:]
        sets = conformal_sets(scores[new], conformal_limit(scores[known], labels[known], 0.1))
        covered.append(sets[np.arange(500), labels[new]].mean())
    assert 0.895 <= np.mean(covered) <= 0.906


def test_too_few_rows_rule_nothing_out() -> None:
    scores, labels = drawn(5)
    assert conformal_limit(scores, labels, 0.1) == math.inf
    assert conformal_sets(scores, math.inf).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from([0.05, 0.1, 0.5]))
def test_a_limit_is_exceeded_by_no_more_than_was_asked(values: list[float], share: float) -> None:
    limit = upper_limit(np.array(values), share)
    assert (np.array(values) > limit).mean() <= share


def test_distance_is_to_the_fifth_nearest_on_the_sphere() -> None:
    rng = np.random.default_rng(0)
    rows, x = rng.normal(size=(50, 8)), rng.normal(size=(7, 8)) * 3
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (rows, x)]
    slow = np.sort(np.linalg.norm(unit[1][:, None] - unit[0][None], axis=2), axis=1)[:, 4]
    np.testing.assert_allclose(Seen.of(rows).distance(x), slow, atol=2e-3)


def judged(n: int = 400, seed: int = 0) -> Judged:
    scores, labels = drawn(n, sharper=2.0, seed=seed)
    x = np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float32)
    return Judged(target_of(scores), {"scores": scores}, labels, x + 4)


def test_a_wanted_precision_is_kept_on_rows_that_chose_it() -> None:
    val = judged()
    limits = find_limits(TrustPlan(precision=0.9), val, None)
    scores = scaled(val.answers["scores"], limits.temperature)
    sure = scores.max(axis=1) >= limits.confidence
    right = scores.argmax(axis=1) == val.y
    assert right[sure].mean() >= 0.9 > right.mean()


def test_a_wanted_precision_is_kept_on_new_rows_as_often_as_is_said() -> None:
    new, labels = drawn(20_000, classes=2, seed=999)
    right, kept = new.argmax(axis=1) == labels, []
    for seed in range(60):
        scores, told = drawn(400, classes=2, seed=seed)
        limit = precision_limit(scores.max(axis=1), scores.argmax(axis=1) == told, 0.9)
        kept.append(limit == 0 or right[new.max(axis=1) >= limit].mean() >= 0.9)
    assert np.mean(kept) >= 0.85


def test_a_precision_that_no_score_keeps_sets_no_limit() -> None:
    best, right = np.linspace(0.5, 1, 100), np.arange(100) % 2 == 0
    assert precision_limit(best, right, 0.99) == 0.0


def test_a_wanted_coverage_is_kept() -> None:
    val = judged()
    limits = find_limits(TrustPlan(coverage=0.8), val, None)
    answers = val.target.scaled(val.answers, limits.temperature)
    said = limits.doubts(val.target, answers, val.x)
    assert sum(not reason for reason in said) / len(said) == pytest.approx(0.8, abs=0.005)
    assert any(reason.startswith("not sure enough (score 0.") for reason in said)


def test_what_is_unlike_the_training_rows_is_unknown() -> None:
    val, strange = judged(), -judged(seed=1).x
    limits = find_limits(TrustPlan(false_alarms=0.05), val, Seen.of(judged(seed=2).x))
    said = limits.doubts(val.target, val.answers, val.x)
    unlike = [reason.startswith("unlike") for reason in said]
    assert np.mean(unlike) == pytest.approx(0.05, abs=0.005)
    doubts = limits.doubts(val.target, val.answers, strange, "texts")
    assert all(doubt.startswith("unlike the training texts (") for doubt in doubts)


def test_limits_are_the_same_after_a_round_trip() -> None:
    limits = find_limits(TrustPlan(coverage=0.9), judged(), Seen.of(judged(seed=2).x))
    again = load_limits(limits.settings(), limits.tensors())
    assert again.settings() == limits.settings()
    assert load_limits(Limits().settings(), {}).far == math.inf
    np.testing.assert_array_equal(again.distance(judged().x), limits.distance(judged().x))


def test_settings_that_are_no_limits_are_refused() -> None:
    with pytest.raises(Mismatch, match="limits are temperature, confidence, miss, far"):
        load_limits({"temperature": 1.0}, {})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"precision": 0.9, "coverage": 0.9}, "not both"),
        ({"alpha": 0.0}, "alpha is a share between 0 and 1"),
        ({"false_alarms": 1.0}, "false_alarms is a share from 0 to below 1"),
    ],
)
def test_a_plan_refuses_what_can_not_be(settings: dict[str, float], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        TrustPlan(**settings)  # type: ignore[arg-type]


def test_answers_of_equal_score_are_given_all_or_none() -> None:
    best, right = np.repeat([0.9, 0.6], 30), np.arange(60) < 28  # the right ones come first
    assert precision_limit(best, right, 0.95) == 0.0
    assert precision_limit(best, right, 0.8) == 0.9


def test_equally_sure_rows_count_alike_in_any_order() -> None:
    scores = np.tile(np.array([[0.9, 0.1]], np.float32), (40, 1))
    labels = np.repeat([0, 1], 20)
    assert {accuracy for _, accuracy in coverage_curve(scores, labels)} == {0.5}
    assert coverage_curve(scores[:0], labels[:0]) == []


@dataclass(frozen=True)
class Widths(Target):
    """A number, or with `several` two of them in each row; intervals of a constant width."""

    kind: ClassVar[str] = "widths"
    reads: ClassVar[tuple[str, ...]] = ("widths",)
    region_names: ClassVar[tuple[str, ...]] = ("low", "high")
    size_noun: ClassVar[str] = "width"
    region_noun: ClassVar[str] = "interval"

    def topics(self) -> tuple[str, ...]:
        return ("width", "height")

    def known(self, y: Array) -> Array:
        return np.asarray(~np.isnan(y.reshape(len(y), -1)).all(axis=1))

    def unknown(self, n: int) -> Array:
        return np.full(n, np.nan)

    def encode(self, row: Row) -> float:
        return float(row["widths"])

    def labels(self, values: Sequence[Any]) -> Array:
        return np.array(values, np.float64)

    def loss(self, raw: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
        return (raw[:, 0] - soft).abs()

    def activate(self, raw: Array) -> Outputs:
        return {"value": raw[:, 0]}

    def row_scores(self, answers: Outputs, y: Array) -> Array:
        return -np.abs(answers["value"] - y)

    def metrics(self, answers: Outputs, y: Array) -> Mapping[str, Metric | None]:
        return {}

    def conformity(self, answers: Outputs, y: Array) -> Array:
        return np.asarray(np.abs(answers["value"] - y))

    def region(self, answers: Outputs, limit: float | Array) -> Mapping[str, Array]:
        return {"low": answers["value"] - limit, "high": answers["value"] + limit}

    def covered(self, region: Mapping[str, Array], y: Array) -> Array:
        held = (region["low"] <= y) & (y <= region["high"])
        return np.where(np.isnan(y), np.nan, held)

    def region_size(self, region: Mapping[str, Array]) -> Array:
        return np.asarray(region["high"] - region["low"])


def widths(*shape: int, seed: int = 0) -> Judged:
    y = np.random.default_rng(seed).normal(size=shape)
    return Judged(Widths(), {"value": np.zeros(shape)}, y, np.zeros((len(y), 2), np.float32))


def test_intervals_hold_the_stated_share_of_numbers_in_the_mean_over_draws(tmp_path: Path) -> None:
    held = []
    for seed in range(300):
        val, test = widths(99, seed=seed), widths(50, seed=1000 + seed)
        limits = find_limits(TrustPlan(alpha=0.1), val, None)
        region = limits.columns(test.target, test.answers)
        held.append(((region["low"] <= test.y) & (test.y <= region["high"])).mean())
    assert np.mean(held) == pytest.approx(0.9, abs=0.015)
    some = Predictions(tuple(map(str, range(50))), test.answers, test.y, Widths(), region=region)
    found = conformal_coverage(0.1, limits, some)
    assert found is not None
    assert found.coverage is not None
    assert found.coverage.value == held[-1]
    name, value = conformal_row(found, Widths())
    assert (name, value.split("; ")[1][:10]) == ("in the 90% interval", "mean width")
    write_csv(some, tmp_path / "p.csv")
    again = read_predictions(tmp_path / "p.csv", Widths())
    np.testing.assert_allclose(again.region["high"], region["high"], rtol=1e-6)
    assert list(again.outputs) == ["value"]


def test_each_question_about_a_row_has_a_limit_of_its_own_and_unknown_labels_do_not_count() -> None:
    val = widths(400, 2)
    val.y[:, 1] *= 10
    val.y[:300, 0] = np.nan
    limits = find_limits(TrustPlan(), val, None)
    assert isinstance(limits.miss, np.ndarray)
    assert limits.miss[0] == upper_limit(np.abs(val.y[300:, 0]), 0.1)
    assert limits.miss[1] == pytest.approx(16.4, abs=2)
    again = load_limits(limits.settings(), limits.tensors())
    assert np.array_equal(again.miss, limits.miss)
    assert again.alpha == 0.1
    said = Predictions(tuple(map(str, range(400))), val.answers, val.y, Widths())
    found = conformal_coverage(0.1, limits, said)
    assert found is not None
    assert found.coverage is not None
    assert found.limit == tuple(limits.miss)
    assert found.coverage.value == pytest.approx(0.9, abs=0.02)
    assert [one.name for one in found.each] == ["width", "height"]
    assert [one.coverage.n for one in found.each if one.coverage] == [100, 400]
    assert all(one.coverage.value > 0.85 for one in found.each if one.coverage)
    assert ConformalSets.read(found.to_plain()) == found


def test_few_validation_rows_give_no_interval_instead_of_an_infinite_one() -> None:
    val = widths(5)
    limits = find_limits(TrustPlan(), val, None)
    assert limits.columns(val.target, val.answers) == {}
    assert "validation is too small for a coverage of 90%" in limits_message(TrustPlan(), limits)
    told = limits_message(TrustPlan(false_alarms=0.05), Limits(far=0.5), "texts")
    assert "unlike the training texts from distance 0.50 on" in told


def test_a_temperature_that_ended_at_its_bound_is_told() -> None:
    sure = np.tile(np.array([[1 - 1e-6, 1e-6]], np.float32), (40, 1))
    temperature = fit_temperature(sure, np.arange(40) % 2)  # right in one of two
    assert "the last one tried" in limits_message(TrustPlan(), Limits(temperature=temperature))
    assert "the last one" not in limits_message(TrustPlan(), Limits(temperature=19.0))


def test_a_threshold_by_precision_is_refused_for_answers_that_are_not_right_or_wrong() -> None:
    with pytest.raises(SpecError, match="those of the target 'widths' can be partly right"):
        find_limits(TrustPlan(precision=0.9), widths(50), None)
