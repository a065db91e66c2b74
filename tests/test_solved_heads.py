"""Solved heads of labels, grades and numbers: compared with scikit-learn, or with plain SciPy."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scales import scale_of
from toy_targets import ToyGrades, ToyLabels, ToyNumber, log_odds

from headstart.base.errors import DataError, SpecError
from headstart.heads.basis import Basis
from headstart.heads.families import HEADS, check_supports, load_head, solve_head, spec_named
from headstart.heads.fit import fit_head
from headstart.heads.head import Rows
from headstart.heads.logistic import Cumulative, Sigmoid
from headstart.heads.specs import LogisticSpec, NearestSpec, RidgeSpec
from headstart.targets.target import Target

Array = NDArray[Any]
FAMILIES = ("logistic", "ridge", "nearest")


def features(n: int, dim: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32) * 2 + 1


def of_labels(seed: int, n: int = 150, dim: int = 6) -> Rows:
    x = features(n, dim, seed)
    y = (x[:, :3] + np.random.default_rng(seed + 99).normal(size=(n, 3)) > [1, 2, 3]).astype(float)
    return Rows(x, y, ToyLabels())


def of_grades(seed: int, n: int = 150, dim: int = 6) -> Rows:
    x = features(n, dim, seed)
    noisy = x[:, 0] + 0.5 * x[:, 1] + np.random.default_rng(seed + 99).logistic(size=n)
    return Rows(x, np.digitize(noisy, [0, 2, 4]), ToyGrades())


def of_numbers(seed: int, n: int = 150, dim: int = 6) -> Rows:
    x = features(n, dim, seed)
    y = 50 + 10 * x[:, 0] + 3 * np.random.default_rng(seed + 99).normal(size=n)
    return Rows(x, y, ToyNumber().fitted(y))


KINDS = [of_labels, of_grades, of_numbers]
every_kind = pytest.mark.parametrize("rows", KINDS)
every_family = pytest.mark.parametrize("family", FAMILIES)


def close(a: Any, b: Any, by: float) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=by)


def standard(x: Array, like: Array) -> Array:
    return (x - like.mean(axis=0, dtype=np.float64)) / scale_of(like)


def loss_of(target: Target, raw: Array, rows: Rows) -> float:
    return float(target.row_losses(target.activate(raw), rows.y).mean())


@every_family
@every_kind
def test_a_solved_head_beats_the_best_constant_and_is_saved(rows: Any, family: str) -> None:
    train, val, test = rows(0), rows(1), Rows(rows(2).x, rows(2).y, rows(0).target)
    if not HEADS[family].supports(train.target):
        with pytest.raises(SpecError, match=f"{family} cannot. Name another --head: ridge"):
            check_supports(spec_named(family), train.target)
        return
    found = solve_head(spec_named(family), train, Rows(val.x, val.y, train.target))
    constant = train.target.regression(train.y).mean(axis=0)
    odds = constant if train.target.link == "identity" else np.log(constant / (1 - constant))
    usual = loss_of(train.target, np.tile(odds, (len(test.y), 1)), test)
    assert loss_of(train.target, found.head.raw(test.x), test) < 0.9 * usual
    assert found.chosen["by"] == "loss on validation"
    again = load_head(found.head.kind, found.head.tensors(), found.head.settings())
    assert (again.raw(test.x) == found.head.raw(test.x)).all()


@pytest.mark.parametrize("l2", [1e-3, 0.1])
@pytest.mark.parametrize("dim", [6, 200], ids=["tall", "wide"])
def test_labels_are_one_binary_regression_each_as_scikit_learns(l2: float, dim: int) -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = of_labels(0, dim=dim), of_labels(1, dim=dim)
    head = fit_head(LogisticSpec(l2=(l2,)), train, test).head
    for label in range(3):
        plain = LogisticRegression(C=1 / (len(train.y) * l2), tol=1e-9, max_iter=9999)
        plain.fit(standard(train.x, train.x), train.y[:, label])
        theirs = plain.predict_proba(standard(test.x, train.x))[:, 1]
        close(log_odds(head.raw(test.x))[:, label], theirs, by=3e-3 if l2 > 0.01 else 2e-2)


@pytest.mark.parametrize("dim", [6, 200], ids=["tall", "wide"])
def test_a_number_is_ridge_regression_as_scikit_learns(dim: int) -> None:
    from sklearn.linear_model import Ridge

    train, test = of_numbers(0, dim=dim), of_numbers(1, dim=dim)
    head = fit_head(RidgeSpec(l2=(0.3,)), train, test).head
    plain = Ridge(alpha=0.3 * len(train.y)).fit(standard(train.x, train.x), train.y)
    ours = train.target.activate(head.raw(test.x))["value"]
    close(ours, plain.predict(standard(test.x, train.x)), by=1e-3)


@pytest.mark.parametrize("dim", [6, 200], ids=["tall", "wide"])
def test_grades_are_proportional_odds_as_worked_out_slowly(dim: int) -> None:
    from scipy.optimize import minimize

    train, test, l2 = of_grades(0, dim=dim), of_grades(1, dim=dim), 0.05
    z, zt = standard(train.x, train.x), standard(test.x, train.x)

    def loss(w: Array) -> float:  # cut points as they are, gradients by differences
        cuts, slope = w[:3], w[3:]
        above = log_odds((z @ slope)[:, None] - cuts)
        edges = np.hstack([np.ones((len(z), 1)), above, np.zeros((len(z), 1))])
        p = (edges[:, :-1] - edges[:, 1:])[np.arange(len(z)), train.y]
        return float(-np.log(np.maximum(p, 1e-12)).mean() + l2 / 2 * slope @ slope)

    slow = minimize(loss, np.r_[-1.0, 0.0, 1.0, np.zeros(dim)], method="L-BFGS-B").x
    head = fit_head(LogisticSpec(l2=(l2,)), train, test).head
    close(log_odds(head.raw(test.x)), log_odds((zt @ slow[3:])[:, None] - slow[:3]), by=3e-3)
    weight = head.tensors()["weight"]
    assert (weight == weight[:, :1]).all()
    assert (np.diff(head.tensors()["bias"]) < 0).all()


@pytest.mark.parametrize("problem", [Sigmoid, Cumulative])
def test_gradients_are_those_of_the_loss(problem: Any) -> None:
    from scipy.optimize import approx_fprime

    rows = (of_labels if problem is Sigmoid else of_grades)(0, n=40)
    basis = Basis.of(rows, "none")
    object.__setattr__(basis, "z", basis.z.astype(np.float64))  # differences need the digits
    own = problem.of(basis)
    w = own.start() + 0.1 * np.random.default_rng(0).normal(size=own.start().shape)

    def loss(flat: Array) -> float:
        return float(own.loss(0.1, flat.reshape(w.shape))[0])

    close(own.loss(0.1, w)[1].ravel(), approx_fprime(w.ravel(), loss, 1e-7), by=1e-5)


@every_family
def test_a_label_that_all_or_no_rows_have_gets_its_share(family: str) -> None:
    train = of_labels(0)
    train.y[:, 1], train.y[:, 2] = 1.0, 0.0
    head = fit_head(spec_named(family), train, of_labels(1)).head
    p = log_odds(head.raw(of_labels(2).x))
    assert np.ptp(p[:, 1:], axis=0).max() < 0.02
    assert p[:, 1].min() > 0.8
    assert p[:, 2].max() < 0.2
    assert np.ptp(p[:, 0]) > 0.4


@every_family
@pytest.mark.parametrize("lacking", [0, 1, 3, (0, 1), (1, 2), (0, 3)])
def test_a_grade_without_rows_is_unlikely_and_in_its_place(family: str, lacking: Any) -> None:
    train = of_grades(0)
    kept = ~np.isin(train.y, lacking)
    few = Rows(train.x[kept], train.y[kept], train.target)
    head = fit_head(spec_named(family), few, Rows(train.x[:0], train.y[:0], train.target)).head
    above = log_odds(head.raw(few.x))
    edges = np.hstack([np.ones((len(above), 1)), above, np.zeros((len(above), 1))])
    p = edges[:, :-1] - edges[:, 1:]
    assert (p >= 0).all()
    assert p[:, lacking].max() < 0.02
    assert np.isfinite(head.raw(of_grades(1).x)).all()


def test_ridge_outputs_of_labels_become_calibrated_log_odds() -> None:
    train, test = of_labels(0, n=2000), of_labels(1, n=4000)
    p = log_odds(fit_head(RidgeSpec(l2=(1e-3,)), train, train).head.raw(test.x))
    for label in range(3):
        bins = np.digitize(p[:, label], [0.2, 0.4, 0.6, 0.8])
        for b in range(5):
            own = bins == b
            assert own.sum() < 100 or abs(p[own, label].mean() - test.y[own, label].mean()) < 0.08


def test_ridge_on_noise_predicts_the_shares() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 200)).astype(np.float32)
    labels = Rows(x, (rng.random((60, 3)) < 0.3).astype(float), ToyLabels())
    grades = Rows(x, rng.integers(4, size=60), ToyGrades())
    for rows in (labels, grades):
        others = rng.normal(size=(50, 200)).astype(np.float32)
        raw = fit_head(RidgeSpec(l2=(1e-3,)), rows, rows).head.raw(others)
        close(log_odds(raw), np.tile(rows.target.regression(rows.y).mean(axis=0), (50, 1)), by=0.25)


def test_neighbours_of_a_number_are_averaged_as_worked_out_by_hand() -> None:
    x = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    three = Rows(x, np.array([10.0, 20.0, 90.0]), ToyNumber())
    head = fit_head(NearestSpec(neighbours=(2,)), three, three).head
    near, far = 1.0, np.exp((0.8 - 1.0) / 0.07)
    close(head.raw(x[:1])[0], (near * 10 + far * 20) / (near + far), by=1e-3)


@every_kind
def test_labels_that_are_all_alike_teach_nothing(rows: Any) -> None:
    train = rows(0)
    same = Rows(train.x, np.repeat(train.y[:1], len(train.y), axis=0), train.target)
    with pytest.raises(DataError, match="at least two need training rows"):
        fit_head(RidgeSpec(), same, rows(1))


@every_family
@every_kind
def test_folds_choose_without_validation_rows(rows: Any, family: str) -> None:
    train, none = rows(0), Rows(np.zeros((0, 6), np.float32), rows(0).y[:0], rows(0).target)
    if HEADS[family].supports(train.target):
        found = fit_head(spec_named(family), train, none)
        assert found.chosen["by"] == "loss in 5-fold cross-validation"
        assert min(entry["loss"] for entry in found.path) < found.path[0]["loss"]
