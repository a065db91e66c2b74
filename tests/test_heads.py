"""Heads: what every one keeps to, then what each is compared with."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scales import scale_of

import headstart as hs
from headstart.base.errors import DataError, Mismatch, SpecError, UnknownName
from headstart.features.extract import FeatureTable
from headstart.heads.basis import Basis
from headstart.heads.families import load_head, spec_named
from headstart.heads.fit import cross_validate, fit_head, folds_of
from headstart.heads.head import Head, Rows
from headstart.heads.mlp import MlpHead
from headstart.heads.nearest import NearestHead
from headstart.heads.ridge import CalibrationRows
from headstart.heads.specs import LogisticSpec, NearestSpec, RidgeSpec
from headstart.models.fitting import fit_tables
from headstart.specs import FeatureExtraction

NAMES = ("red", "green", "blue")
FAMILIES = ["logistic", "ridge", "nearest"]
every_family = pytest.mark.parametrize("family", FAMILIES)


def f32(values: Any) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def rows(seed: int, n: int = 90, dim: int = 8, classes: int = 3) -> Rows:
    """Clouds that overlap: the first columns tell the class, in part."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    y[:classes] = np.arange(classes)
    x = rng.normal(size=(n, dim)) * np.arange(1, dim + 1) + 3.0
    x[np.arange(n), y] += 2.0 * (y + 1)
    return Rows(x.astype(np.float32), y, NAMES[:classes])


def fitted(family: str, train: Rows | None = None, val: Rows | None = None, **more: Any) -> Head:
    train = rows(seed=0) if train is None else train
    val = rows(seed=1) if val is None else val
    return fit_head(spec_named(family, **more), train, val).head


def close(a: NDArray[Any], b: NDArray[Any], by: float = 1e-5) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=by)


@every_family
def test_scores_are_probabilities_better_than_chance(family: str) -> None:
    test = rows(seed=2, n=300)
    scores = fitted(family).scores(test.x)
    assert scores.shape == (300, 3)
    assert scores.dtype == np.float32
    assert scores.min() > 0
    close(scores.sum(axis=1), np.ones(300))
    assert (scores.argmax(axis=1) == test.y).mean() > 0.5


@every_family
def test_a_row_scores_the_same_in_any_company(family: str) -> None:
    head, x = fitted(family), rows(seed=2, n=30).x
    together = head.scores(x)
    close(head.scores(x[::-1])[::-1], together, by=1e-6)
    close(np.vstack([head.scores(x[i : i + 1]) for i in range(30)]), together, by=1e-6)
    assert head.scores(x[:0]).shape == (0, 3)


@every_family
def test_the_order_of_training_rows_does_not_matter(family: str) -> None:
    train, x = rows(seed=0), rows(seed=2).x
    mixed = np.random.default_rng(0).permutation(len(train.y))
    other = fitted(family, Rows(train.x[mixed], train.y[mixed], NAMES))
    close(other.scores(x), fitted(family, train).scores(x), by=2e-3)


@every_family
def test_a_second_fit_is_the_same_to_the_bit(family: str) -> None:
    first, second = fitted(family), fitted(family)
    for name, tensor in first.tensors().items():
        assert tensor.tobytes() == second.tensors()[name].tobytes()


@every_family
def test_what_was_saved_scores_to_the_bit(family: str) -> None:
    head, x = fitted(family), rows(seed=2).x
    again = load_head(head.kind, head.tensors(), head.settings())
    assert again.scores(x).tobytes() == head.scores(x).tobytes()
    assert (again.features, again.classes, again.parameters) == (8, 3, head.parameters)


@every_family
def test_a_head_from_another_backbone_says_so(family: str) -> None:
    with pytest.raises(Mismatch, match="reads 8 features a row but was given .*another backbone"):
        fitted(family).scores(np.zeros((1, 7), np.float32))


@every_family
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_numbers_are_refused(family: str, bad: float) -> None:
    train, val = rows(seed=0), rows(seed=1)
    train.x[4, 2] = bad
    with pytest.raises(Mismatch, match="Training features must be finite.*first in row 4"):
        fitted(family, train, val)
    with pytest.raises(Mismatch, match="Validation features must be finite"):
        fitted(family, val, train)
    with pytest.raises(Mismatch, match="Features must be finite"):
        fitted(family, val, val).scores(train.x)


@every_family
def test_a_class_never_trained_on_is_next_to_impossible(family: str) -> None:
    train = rows(seed=0)
    kept = train.y != 1
    scores = fitted(family, Rows(train.x[kept], train.y[kept], NAMES)).scores(rows(seed=2).x)
    assert scores[:, 1].max() < 1e-6
    assert scores[:, [0, 2]].min() > 0


@every_family
def test_one_class_teaches_nothing(family: str) -> None:
    train = rows(seed=0)
    with pytest.raises(DataError, match="at least two need training rows; got 90 rows of 1"):
        fitted(family, replace(train, y=np.zeros_like(train.y)))


@every_family
def test_two_rows_and_constant_columns_are_enough(family: str) -> None:
    x = np.array([[0.1, 5.0, 1.0], [0.1, 5.0, -1.0]], np.float32)
    two = Rows(x, np.array([0, 1]), ("up", "down"))
    head = fitted(family, two, two)
    assert head.scores(x).argmax(axis=1).tolist() == [0, 1]


@every_family
def test_more_columns_than_rows_are_no_trouble(family: str) -> None:
    head = fitted(family, rows(seed=0, n=40, dim=200), rows(seed=1, n=40, dim=200))
    assert np.isfinite(head.scores(rows(seed=2, dim=200).x)).all()


@pytest.mark.parametrize("family", ["logistic", "ridge"])
def test_a_column_of_rounding_errors_gets_no_huge_weight(family: str) -> None:
    tiny = f32([1, 1, 1, 1, 1, 1, 1, 1e-30])
    train, val = (rows(seed) for seed in range(2))
    head = fitted(family, replace(train, x=train.x * tiny), replace(val, x=val.x * tiny))
    assert max(np.abs(values).max() for values in head.tensors().values()) < 1e3


@pytest.mark.parametrize("family", ["logistic", "ridge"])
@pytest.mark.parametrize("units", [1e-3, 1e4])
def test_units_do_not_matter(family: str, units: float) -> None:
    train, val, test = (rows(seed) for seed in range(3))
    scaled = fitted(family, replace(train, x=train.x * units), replace(val, x=val.x * units))
    close(scaled.scores(test.x * units), fitted(family, train, val).scores(test.x), by=2e-3)


@pytest.mark.parametrize("family", ["logistic", "ridge"])
def test_a_column_that_hardly_varies_in_training_does_not_decide_where_it_does(family: str) -> None:
    train, val, test = (rows(seed) for seed in range(3))
    some = np.random.default_rng(0)
    quiet = [f32(1e-3 * some.normal(size=(len(x), 1))) for x in (train.x, val.x)]
    without = fitted(family, train, val)
    wide = (np.hstack([part.x, column]) for part, column in zip((train, val), quiet, strict=True))
    head = fitted(family, *(replace(p, x=x) for p, x in zip((train, val), wide, strict=True)))
    loud = np.hstack([test.x, f32(np.ones((len(test.x), 1)))])  # a thousand deviations
    close(head.scores(loud), without.scores(test.x), by=0.05)


@pytest.mark.parametrize("family", ["logistic", "ridge"])
@pytest.mark.parametrize("dim", [8, 80], ids=["tall", "wide"])
def test_balanced_weights_do_what_copies_of_rows_would(family: str, dim: int) -> None:
    train = rows(seed=0, n=30, dim=dim, classes=2)
    y = (np.arange(30) % 3 == 0).astype(int)  # 20 of one class, 10 of the other
    copied = np.concatenate([np.arange(30), np.flatnonzero(y)])
    few, even = Rows(train.x, y, NAMES[:2]), Rows(train.x[copied], y[copied], NAMES[:2])
    weighted = fitted(family, few, few, class_weights="balanced", l2=(0.1,))
    repeated = fitted(family, even, even, l2=(0.1,))
    if family == "logistic":
        close(weighted.scores(train.x), repeated.scores(train.x), by=2e-3)
    assert (weighted.scores(train.x).argmax(1) == repeated.scores(train.x).argmax(1)).all()


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("dim", [6, 120], ids=["tall", "wide"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_logistic_agrees_with_scikit_learn(l2: float, dim: int, weights: str) -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = rows(seed=0, dim=dim), rows(seed=2, dim=dim)
    w = len(train.y) / (3 * np.bincount(train.y))[train.y] if weights == "balanced" else None
    mean = np.average(train.x, axis=0, weights=w)
    std = scale_of(train.x, w)
    plain = LogisticRegression(C=1 / (len(train.y) * l2), tol=1e-9, max_iter=9999)
    plain.fit((train.x - mean) / std, train.y, sample_weight=w)
    head = fitted("logistic", train, test, l2=(l2,), class_weights=weights)
    by = 2e-3 if l2 > 0.01 else 2e-2  # with next to no penalty the optimum is flat
    close(head.scores(test.x), plain.predict_proba((test.x - mean) / std), by=by)
    close(head.scores(train.x), plain.predict_proba((train.x - mean) / std), by=2e-3)


@pytest.mark.parametrize("dim", [6, 120], ids=["tall", "wide"])
def test_ridge_is_the_plain_solution(dim: int) -> None:
    train, test = rows(seed=0, dim=dim), rows(seed=2, dim=dim)
    found = fit_head(RidgeSpec(l2=(0.3,)), train, test)
    x = train.x.astype(np.float64)
    mean, std = x.mean(axis=0), scale_of(x)
    z, t = (x - mean) / std, 2.0 * np.eye(3)[train.y] - 1.0
    w = np.linalg.solve(z.T @ z / len(z) + 0.3 * np.eye(dim), z.T @ (t - t.mean(axis=0)) / len(z))
    outputs = ((test.x - mean) / std @ w + t.mean(axis=0)) / found.chosen["temperature"]
    exps = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    close(found.head.scores(test.x), exps / exps.sum(axis=1, keepdims=True), by=1e-4)


@pytest.mark.parametrize("dim", [6, 40], ids=["tall", "wide"])
def test_ridge_knows_what_it_would_say_without_a_row(dim: int) -> None:
    train = rows(seed=0, n=30, dim=dim)
    basis = Basis.of(train, "none")
    t = 2.0 * basis.targets - 1.0
    z = basis.z.astype(np.float64)
    weight = z.T @ (t - t.mean(axis=0)) / 30 / (basis.values + 0.1)[:, None]
    own = CalibrationRows(basis.z, t, np.ones(30), np.ones(30) / 30)
    quick = own.left_out(basis, weight, t.mean(axis=0), 0.1)
    others = np.arange(1, 30)  # the slow way for row 0, on the same columns and the same penalty
    design = np.column_stack([z, np.ones(30)])
    penalty = 30 * 0.1 * np.diag([1.0] * z.shape[1] + [0.0])
    slow = np.linalg.solve(
        design[others].T @ design[others] + penalty, design[others].T @ t[others]
    )
    close(quick[0], design[0] @ slow, by=1e-5)


def test_neighbours_vote_as_worked_out_by_hand() -> None:
    x = f32([[1, 0], [0.8, 0.6], [0, 1]])
    head = NearestHead(x, np.array([0, 1, 1]), f32([1, 1]), neighbours=2)
    near, far = 1.0, np.exp((0.8 - 1.0) / 0.07)  # cosines 1 and 0.8 to the row asked about
    share = np.array([near, far]) / (near + far)
    close(head.scores(f32([[5, 0]]))[0], (2 * share + 0.5) / 3, by=1e-6)


def test_neighbours_are_found_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    head, x = fitted("nearest"), rows(seed=2).x
    whole = head.scores(x)
    monkeypatch.setattr("headstart.heads.nearest.BLOCK_CELLS", 7 * 90)
    close(head.scores(x), whole, by=1e-6)


def test_no_more_neighbours_are_asked_than_there_are_rows() -> None:
    few = rows(seed=0, n=9)
    found = fit_head(NearestSpec(neighbours=(4, 50, 100)), few, rows(seed=1))
    assert [entry["neighbours"] for entry in found.path] == [9, 4]


@every_family
def test_validation_rows_choose_the_setting(family: str) -> None:
    train, val = rows(seed=0), rows(seed=1)
    found = fit_head(spec_named(family), train, val)
    own = val.y[:, None] == np.arange(3)
    loss = -np.log(found.head.scores(val.x)[own]).mean()
    assert loss == pytest.approx(min(entry["log_loss"] for entry in found.path), abs=1e-6)
    assert found.chosen["by"] == "log loss on validation"


def test_of_equals_the_stronger_is_chosen() -> None:
    flat = Rows(np.zeros((20, 3), np.float32), np.arange(20) % 2, ("a", "b"))
    found = fit_head(LogisticSpec(l2=(0.1, 10.0, 1.0)), flat, flat)
    assert found.chosen["l2"] == 10.0


@every_family
def test_without_validation_rows_training_rows_take_turns(family: str) -> None:
    train, none = rows(seed=0), Rows(np.zeros((0, 8), np.float32), np.zeros(0, np.int64), NAMES)
    found = fit_head(spec_named(family), train, none)
    assert found.chosen["by"] == "accuracy in 5-fold cross-validation"
    assert len(found.path) > 3


@every_family
def test_too_few_rows_take_the_middle_of_the_list(family: str) -> None:
    two = Rows(f32([[0, 1], [1, 0]]), np.array([0, 1]), ("a", "b"))
    none = Rows(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), ("a", "b"))
    tried = {"neighbours": (1, 2, 9)} if family == "nearest" else {"l2": (1.0, 0.1, 0.01)}
    spec = spec_named(family, **tried)
    found = fit_head(spec, two, none)
    assert found.chosen["by"] == "middle of the list: too few rows"
    assert found.chosen.get("l2", 0.1) == 0.1


def test_tables_of_two_backbones_are_not_mixed() -> None:
    with pytest.raises(Mismatch, match="extracted with the same backbone"):
        fitted("logistic", rows(seed=0, dim=8), rows(seed=1, dim=9))


def test_a_spec_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'logistic'"):
        spec_named("logstic")
    with pytest.raises(UnknownName, match="Did you mean 'balanced'"):
        RidgeSpec(class_weights="balance")  # type: ignore[arg-type]
    for l2 in [(), (0.0,), (1.0, -1.0), (np.inf,)]:
        with pytest.raises(SpecError, match="positive strengths"):
            LogisticSpec(l2=l2)
    for neighbours in [(), (0,), (1.5,)]:
        with pytest.raises(SpecError, match="whole numbers from 1 up"):
            NearestSpec(neighbours=neighbours)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"weight": f32(np.zeros((4, 3)))}, "saved as .*bias"),
        ({"weight": f32(np.zeros((4, 3))), "bias": f32(np.zeros(2))}, "bias is of shape"),
        ({"weight": f32(np.zeros(4)), "bias": f32(np.zeros(4))}, "weight is of shape"),
        (
            {"weight": f32(np.zeros((4, 3))), "bias": f32([0, np.nan, 0])},
            "bias of a head must be finite",
        ),
        ({"weight": np.zeros((4, 3)), "bias": f32(np.zeros(3))}, "is float32; got float64"),
    ],
)
def test_a_saved_head_that_does_not_fit_together_is_refused(
    tensors: dict[str, NDArray[Any]], told: str
) -> None:
    with pytest.raises(Mismatch, match=told):
        load_head("linear", tensors, {})


@pytest.mark.parametrize("neighbours", [0, 4, "many", None])
def test_a_saved_nearest_head_asks_rows_that_it_has(neighbours: Any) -> None:
    saved: dict[str, NDArray[Any]] = {"x": f32(np.eye(3)), "class_weight": f32(np.ones(3))}
    saved["y"] = np.arange(3)
    with pytest.raises(Mismatch, match="neighbours|told to ask"):
        load_head("nearest", saved, {"neighbours": neighbours})
    with pytest.raises(Mismatch, match="votes for one of 3 classes"):
        load_head("nearest", saved | {"y": np.array([0, 1, 3])}, {"neighbours": 1})


def test_an_unknown_kind_of_head_is_named() -> None:
    with pytest.raises(UnknownName, match="no kind of head named 'linea'. Did you mean 'linear'"):
        load_head("linea", {}, {})


def dense(*widths: int, seed: int = 0) -> MlpHead:
    rng = np.random.default_rng(seed)
    pairs = list(itertools.pairwise(widths))
    weights = tuple(f32(rng.normal(size=pair)) for pair in pairs)
    return MlpHead(weights, tuple(f32(rng.normal(size=out)) for _, out in pairs))


def test_a_head_of_dense_layers_worked_out_by_hand() -> None:
    head = MlpHead((f32([[1, -1]]), f32([[2, 0], [0, 1]])), (f32([0, 1]), f32([0, 0])))
    hidden = np.maximum([[3.0, -2.0]], 0)  # x = 3: relu of (3, -3 + 1)
    logits = hidden @ [[2, 0], [0, 1]]
    expected = np.exp(logits) / np.exp(logits).sum()
    close(head.scores(f32([[3]])), f32(expected))
    assert (head.features, head.classes, head.parameters) == (1, 2, 10)


def test_one_logit_is_the_log_odds_of_the_second_class() -> None:
    head = MlpHead((f32([[2.0]]),), (f32([-1.0]),))
    assert (head.classes, head.parameters) == (2, 2)
    scores = head.scores(f32([[0.0], [0.5], [3.0]]))
    close(scores[:, 1], f32(1 / (1 + np.exp([1.0, 0.0, -5.0]))))
    close(scores.sum(axis=1), np.ones(3))


@pytest.mark.parametrize("widths", [(4, 3), (4, 1), (4, 8, 3), (4, 6, 5, 1)])
def test_dense_layers_come_back_as_they_were_saved(widths: tuple[int, ...]) -> None:
    head = dense(*widths)
    again = load_head(head.kind, head.tensors(), head.settings())
    x = rows(seed=2, dim=4).x
    assert np.array_equal(again.scores(x), head.scores(x))


def test_dense_layers_that_do_not_join_are_refused() -> None:
    with pytest.raises(Mismatch, match="reads what the one before it gives"):
        MlpHead((f32(np.ones((2, 3))), f32(np.ones((4, 1)))), (f32([0, 0, 0]), f32([0])))
    with pytest.raises(Mismatch, match="saved as weight0, bias0"):
        load_head("mlp", {"weight0": f32([[1.0]])}, {})
    with pytest.raises(Mismatch, match="weights of a head must be finite"):
        MlpHead((f32([[np.nan]]),), (f32([0]),))


@pytest.mark.parametrize("labels", [2, 3])
def test_no_group_is_in_two_folds_and_every_fold_has_every_stratum(labels: int) -> None:
    rng = np.random.default_rng(0)
    strata = rng.integers(labels, size=200)
    groups = [f"patient {n}" for n in rng.integers(20, size=200)]
    folds = folds_of(strata, groups)
    assert set(folds) == set(range(5))
    for name in set(groups):
        assert len(set(folds[[own == name for own in groups]])) == 1
    for fold in range(5):
        assert set(strata[folds != fold]) == set(strata) == set(strata[folds == fold])


def test_a_group_that_alone_has_a_stratum_is_not_held_out() -> None:
    strata, groups = np.array([0, 0, 0, 1, 1, 7]), ["a", "b", "c", "c", "a", "b"]
    folds = folds_of(strata, groups)
    assert folds[[1, 5]].tolist() == [-1, -1]
    assert {tuple(folds[[0, 4]]), tuple(folds[[2, 3]])} == {(0, 0), (1, 1)}
    assert folds_of(strata, ["a"] * 6).tolist() == [-1] * 6


def test_neighbouring_rows_are_in_different_folds() -> None:
    """Held-out rows are as new as test rows, which a split draws at random too."""
    folds = folds_of(np.repeat([0, 1], 500))
    assert np.bincount(folds).tolist() == [200] * 5
    assert 0.1 < (folds[1:] == folds[:-1]).mean() < 0.3


def test_rows_without_a_group_are_groups_of_their_own() -> None:
    strata = np.random.default_rng(0).integers(3, size=50)
    assert np.array_equal(folds_of(strata, [""] * 50), folds_of(strata))


def test_folds_ask_no_more_neighbours_than_the_smallest_has_rows() -> None:
    """Of 51 rows the folds leave 40 or 41."""
    rng = np.random.default_rng(0)
    rows = Rows(rng.normal(size=(51, 4)).astype(np.float32), np.arange(51) % 2, ("a", "b"))
    found = cross_validate(NearestSpec(neighbours=(50, 60)), rows, rows)
    assert found is not None
    assert found.spec == NearestSpec(neighbours=(40,))
    assert np.isfinite(found.answers["scores"]).all()
    usual = cross_validate(NearestSpec(), rows, rows)  # of which some are fewer
    assert usual is not None
    assert [entry["neighbours"] for entry in usual.path] == [20, 10, 5, 3, 1]


def test_a_head_without_validation_is_chosen_by_folds_of_whole_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = list[tuple[str, ...]]()

    def noted(strata: Any, groups: Any) -> Any:
        seen.append(tuple(groups))
        return folds_of(strata, groups)

    monkeypatch.setattr("headstart.heads.fit.folds_of", noted)
    x = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    ids, y = tuple(map(str, range(20))), np.arange(20) % 2
    groups = tuple(f"film {n // 4}" for n in range(20))
    train = FeatureTable(ids, x, y, ("a", "b"), "", groups=groups)  # type: ignore[arg-type]
    none = FeatureTable((), x[:0], y[:0], ("a", "b"), "")  # type: ignore[arg-type]
    fit_tables(FeatureExtraction(), hs.load_backbone("tiny:8"), (train,), none)
    assert seen == [groups]
