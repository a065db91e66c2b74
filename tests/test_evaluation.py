"""Estimates: values worked out by hand or published, and intervals that hold what they say."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

import headstart as hs
from headstart.base.errors import Mismatch, SpecError, UnknownName
from headstart.evaluation import evaluation
from headstart.evaluation.evaluation import (
    Estimate,
    Evaluation,
    compare,
    evaluate,
    evaluation_rows,
    wilson,
)
from headstart.targets.classes import ClassTarget
from headstart.targets.predictions import Predictions
from headstart.targets.tallies import MANY

Labels = NDArray[np.int64]


def against(predictions: Predictions, answer: str) -> Evaluation:
    """Evaluated beside the constant `answer`."""
    return evaluate(predictions, ClassTarget(predictions.classes, answer))


def said(labels: Labels, scores: NDArray[np.floating], names: str = "abcdefghij") -> Predictions:
    ids = tuple(map(str, range(len(labels))))
    classes = tuple(names[: scores.shape[1]])
    return Predictions(ids, scores.astype(np.float32), labels.astype(np.int64), classes)


def called(labels: Labels, answers: Labels, classes: int) -> Predictions:
    """Predictions that answer so, quite sure."""
    scores = np.full((len(labels), classes), 0.1 / classes)
    scores[np.arange(len(labels)), answers] += 0.9
    return said(labels, scores)


def drawn(seed: int, counts: tuple[int, ...], signal: float) -> Predictions:
    """Softmax scores of Gaussian logits; the true class's mean is higher by `signal`."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(size=(len(labels), len(counts)))
    logits[np.arange(len(labels)), labels] += signal
    exps = np.exp(logits)
    return said(labels, exps / exps.sum(axis=1, keepdims=True))


def known(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # these four: Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_is_as_published(right: int, n: int, low: float, high: float) -> None:
    estimate = known(wilson(right, n))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


def test_an_estimate_reads_at_a_glance() -> None:
    assert str(Estimate(0.9412, 0.9256, 0.9551, 1020)) == "0.941 [0.926, 0.955] n=1020"


def test_wilson_holds_the_truth_as_often_as_it_says() -> None:
    right = np.random.default_rng(0).binomial(100, 0.9, size=4000)
    held = [known(wilson(int(r), 100)) for r in right]
    assert np.mean([e.low <= 0.9 <= e.high for e in held]) >= 0.93


@pytest.mark.parametrize("n", [30, 300, 3000])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_wilson_holds_the_truth_in_exactly_so_many_samples(n: int, share: float) -> None:
    right = np.arange(n + 1)
    held = [e.low <= share <= e.high for e in (known(wilson(int(r), n)) for r in right)]
    assert 0.943 <= round(float(binom.pmf(right, n, share)[held].sum()), 3) <= 0.974


def figures(some: Predictions, resamples: int = 1) -> list[Estimate]:
    result = evaluate(some, resamples=resamples)
    every = (result.balanced_accuracy, result.macro_f1, result.auroc, result.log_loss)
    return [known(estimate) for estimate in every]


@pytest.mark.parametrize("counts", [(60, 60), (100, 20), (60, 30, 15)])
def test_intervals_hold_the_truth_as_often_as_they_say(counts: tuple[int, ...]) -> None:
    truth = [e.value for e in figures(drawn(10**6, tuple(500 * c for c in counts), 2.0))]
    held = np.zeros(4)
    for seed in range(300):
        found = figures(drawn(seed, counts, 2.0), resamples=300)
        held += [e.low <= value <= e.high for e, value in zip(found, truth, strict=True)]
    assert (held >= 0.91 * 300).all()
    assert (held <= 0.99 * 300).all()


@pytest.mark.parametrize("counts", [(900, 60), (300, 120, 50)])
def test_intervals_are_as_wide_as_resampling_within_classes_tells(counts: tuple[int, ...]) -> None:
    some, rng = drawn(0, counts, 2.0), np.random.default_rng(0)
    places = [np.flatnonzero(some.labels == c) for c in range(len(counts))]
    values = []
    for _ in range(400):
        again = some.take(np.concatenate([rng.choice(p, size=len(p)) for p in places]))
        values.append([e.value for e in figures(again)[:3]])
    widths = [e.high - e.low for e in figures(some)[:3]]
    np.testing.assert_allclose(widths, 2 * 1.96 * np.std(values, axis=0), rtol=0.12)


def test_no_error_seen_is_not_no_error_possible() -> None:
    labels = np.arange(20) % 2
    result = evaluate(called(labels, labels, 2))
    for estimate in map(known, (result.accuracy, result.balanced_accuracy, result.macro_f1)):
        assert estimate.value == estimate.high == 1.0
        assert estimate.low == pytest.approx(0.8389, abs=1e-4)  # Wilson's for 20 of 20
    assert 0.7 < known(result.auroc).low < 0.9


def test_every_value_lies_in_its_interval() -> None:
    for seed in range(20):
        result = evaluate(drawn(seed, (3, 9, 1, 5), 1.0))
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss"):
            estimate = known(getattr(result, name))
            assert estimate.low <= estimate.value <= estimate.high
            assert estimate.n == 18


def test_a_confusion_is_told_class_by_class() -> None:
    result = against(called(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2]), 3), "a")
    assert result.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 0))
    a, c = result.per_class["a"], result.per_class["c"]
    assert (known(a.recall).value, known(a.precision).value) == (2 / 3, 1.0)
    assert known(a.f1).value == pytest.approx(0.8)
    assert (c.n, c.recall, c.precision, c.f1) == (0, None, None, None)
    assert known(known_baseline(result.baseline)).value == 0.6


def test_of_very_many_classes_the_confused_pairs_are_listed() -> None:
    names = tuple(f"class {c}" for c in range(MANY + 1))
    labels = np.repeat(np.arange(MANY + 1), 2)
    answers = labels.copy()
    answers[:2], answers[-1] = 7, 0  # both rows of class 0 are called class 7
    scores = np.zeros((len(labels), 0), np.float32)
    ids = tuple(map(str, range(len(labels))))
    result = evaluate(Predictions(ids, scores, labels, names, answers))
    assert result.confused == (("class 0", "class 7", 2), (f"class {MANY}", "class 0", 1))
    assert not hasattr(result, "confusion")
    again = Evaluation.read(json.loads(json.dumps(result.to_plain())))
    assert again.confused == result.confused


def known_baseline(baseline: object) -> Estimate | None:
    estimate = getattr(baseline, "metric", None)
    assert estimate is None or isinstance(estimate, Estimate)
    return estimate


def test_rows_without_a_label_do_not_count() -> None:
    some = drawn(0, (20, 20), 1.0)
    more = said(np.append(some.labels, [-1, -1]), np.vstack([some.scores, some.scores[:2]]))
    assert evaluate(more) == evaluate(some)


def test_the_order_of_rows_does_not_matter() -> None:
    some = drawn(0, (30, 20, 10), 1.0)
    mixed = some.take(np.random.default_rng(0).permutation(60))
    one, two = evaluate(some), evaluate(mixed)
    assert one.confusion == two.confusion
    assert known(one.auroc).low == pytest.approx(known(two.auroc).low)
    assert known(one.macro_f1) == known(two.macro_f1)


def test_the_same_seed_gives_the_same_numbers() -> None:
    some = drawn(0, (30, 20, 10), 1.0)
    assert evaluate(some, seed=3) == evaluate(some, seed=3)
    assert known(evaluate(some, seed=3).log_loss).low != known(evaluate(some, seed=4).log_loss).low


def test_nothing_to_judge_gives_no_numbers() -> None:
    result = against(said(np.zeros(0, np.int64), np.zeros((0, 2))), "a")
    assert (result.n, result.accuracy, result.auroc, result.log_loss) == (0, None, None, None)
    assert evaluation_rows(result)[0][0] == ("accuracy", "n/a")


def test_answers_without_probabilities_are_judged_by_what_they_tell() -> None:
    some = drawn(0, (20, 10, 10), 1.0)
    none = np.zeros((40, 0), np.float32)
    bare = Predictions(some.ids, none, some.labels, some.classes, some.predicted)
    full, result = against(some, "a"), against(bare, "a")
    assert (result.log_loss, result.auroc) == (None, None)
    assert {**full.metrics, "log_loss": None, "auroc": None} == result.metrics
    assert replace(full, metrics=result.metrics) == result
    assert ("log loss", "n/a") in evaluation_rows(result)[0]
    assert compare(bare, some).value == 0


def test_one_class_alone_has_no_auroc() -> None:
    result = evaluate(drawn(0, (10, 0), 1.0))
    assert result.auroc is None
    assert known(result.balanced_accuracy).value == known(result.accuracy).value


def test_the_plain_form_is_json_with_null_for_what_is_not_known() -> None:
    result = against(drawn(0, (10, 0, 5), 1.0), "a")
    plain = json.loads(json.dumps(result.to_plain(), allow_nan=False))
    assert plain["accuracy"].keys() == {"value", "low", "high", "n"}
    assert plain["per_class"]["b"] == {"n": 0, "precision": None, "recall": None, "f1": None}
    assert plain["baseline"]["majority"] == "a"
    assert sum(map(sum, plain["confusion"])) == plain["n"] == 15


def test_the_tables_say_n_a_where_no_row_tells() -> None:
    headline, per_class = evaluation_rows(against(drawn(0, (10, 0, 5), 1.0), "a"))
    assert [line[0] for line in headline][-1] == "baseline: always 'a'"
    assert per_class[0] == ("class", "n", "precision", "recall", "F1")
    assert per_class[2] == ("b", "0", "n/a", "n/a", "n/a")


def test_a_tie_is_called_a_tie() -> None:
    some = drawn(0, (30, 30), 1.0)
    gap = compare(some, some)
    assert (gap.low, gap.value, gap.high, gap.n) == (0.0, 0.0, 0.0, 60)


def test_what_is_better_on_the_same_rows_is_seen() -> None:
    labels = np.arange(200) % 2
    good = called(labels, np.where(np.arange(200) < 20, 1 - labels, labels), 2)
    worse = called(labels, np.where(np.arange(200) >= 150, 1 - labels, labels), 2)
    gap = compare(good, worse)  # better on 50 rows, worse on 20
    half = 1.96 * np.sqrt((0.35 - 0.15**2) / 200)
    assert gap.value == pytest.approx(0.15)
    assert (gap.low, gap.high) == pytest.approx((0.15 - half, 0.15 + half), abs=0.006)
    assert compare(worse, good).value == -gap.value


def test_other_rows_are_not_compared() -> None:
    some = drawn(0, (5, 5), 1.0)
    with pytest.raises(Mismatch, match="same rows, in the same order"):
        compare(some, some.take(range(9, -1, -1)))


@pytest.mark.parametrize("counts", [(5_000,) * 10, (50,) * 10])
def test_many_rows_are_judged_in_a_moment(counts: tuple[int, ...]) -> None:
    many = drawn(0, counts, 2.0)
    start = time.process_time()
    evaluate(many)
    assert time.process_time() - start < 5.0


def test_a_model_is_evaluated_on_data_and_predictions_without() -> None:
    some = drawn(0, (5, 5), 1.0)
    with pytest.raises(SpecError, match="judged on labelled data"):
        hs.evaluate("runs/flowers")
    with pytest.raises(SpecError, match="without data"):
        hs.evaluate(some, "photos")
    with pytest.raises(UnknownName, match="no class named 'z'"):
        against(some, "z")


@pytest.mark.parametrize("kind", ["share", "loss"])
def test_a_bootstrap_of_very_many_rows_draws_counts(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(size=20_000)
    if kind == "share":
        values = (values < 0.3).astype(float)
    plain = evaluation.bootstrap(values, 400, seed=0)
    monkeypatch.setattr(evaluation, "COUNTED", 10_000)
    drawn = evaluation.bootstrap(values, 400, seed=0)
    assert (drawn.value, drawn.n) == (plain.value, plain.n)
    assert drawn.high - drawn.low == pytest.approx(plain.high - plain.low, rel=0.15)


def test_of_very_many_classes_those_of_the_lowest_f1_are_printed() -> None:
    names = tuple(f"class {c:03}" for c in range(300))
    y = np.arange(300)
    scores = np.eye(300, dtype=np.float32)[np.where(y % 10, y, (y + 1) % 300)]
    result = evaluate(Predictions(tuple(map(str, y)), scores, y, names))
    _, (header, *rows) = evaluation.evaluation_rows(result)
    assert (header[-1], len(rows)) == ("F1", evaluation.LISTED + 1)
    assert {row[0] for row in rows[:-1]} <= {names[c] for c in range(0, 300, 10)}
    assert rows[-1][0] == "… 276 more, of higher F1"
