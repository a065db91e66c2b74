"""Solved heads of Huber's and the quantile loss: compared with scikit-learn."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scales import scale_of

from headstart.heads.basis import Basis
from headstart.heads.families import HEADS, head_for
from headstart.heads.fit import fit_head
from headstart.heads.head import Rows
from headstart.heads.residuals import Linear
from headstart.heads.specs import RidgeSpec, UsualSpec
from headstart.targets.numbers import LEVELS, NumberTarget
from headstart.targets.residuals import Huber, Pinball, ResidualLoss, weighted_quantile

Array = NDArray[Any]
WEAK = RidgeSpec(l2=(1e-6,))


def numbers(objective: str, seed: int = 0, n: int = 300, dim: int = 5, noise: float = 3) -> Rows:
    """Return rows whose numbers depend on two columns; one in ten is far off."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)).astype(np.float32) * 2 + 1
    wild = 40 * (rng.random(n) < 0.1)
    y = 50 + 10 * x[:, 0] - 4 * x[:, 1] + noise * rng.normal(size=n) + wild
    return Rows(x, y, NumberTarget(objective).fitted(y))


def mean_loss(rows: Rows, raw: Array) -> float:
    return float(rows.target.row_losses(rows.target.activate(raw), rows.y).mean())


def scaled(rows: Rows) -> tuple[Array, Array]:
    x = rows.x.astype(np.float64)
    return (x - x.mean(axis=0)) / scale_of(x), rows.target.regression(rows.y)[:, 0]


def test_a_head_for_hubers_loss_is_as_good_as_scikit_learns() -> None:
    from sklearn.linear_model import HuberRegressor

    rows = numbers("huber")
    z, t = scaled(rows)
    theirs = HuberRegressor(epsilon=1.0, alpha=0.0, max_iter=1000)  # it learns a scale of its own
    theirs.fit(z, t)
    ours = mean_loss(rows, fit_head(WEAK, rows, rows).head.raw(rows.x))
    assert ours <= mean_loss(rows, theirs.predict(z)[:, None]) + 1e-6
    plain = np.linalg.lstsq(np.c_[z, np.ones(len(z))], t, rcond=None)[0]
    assert ours < mean_loss(rows, np.c_[z, np.ones(len(z))] @ plain[:, None]) - 1e-4


@pytest.mark.parametrize("noise", [0.5, 3.0, 20.0])
def test_quantiles_are_as_good_as_scikit_learns(noise: float) -> None:
    from sklearn.linear_model import QuantileRegressor

    rows = numbers("quantile", noise=noise)
    z, t = scaled(rows)
    each = [QuantileRegressor(quantile=q, alpha=0, solver="highs").fit(z, t) for q in LEVELS]
    theirs = np.stack([model.predict(z) for model in each], axis=1)
    raw = fit_head(WEAK, rows, rows).head.raw(rows.x)
    assert mean_loss(rows, raw) <= mean_loss(rows, theirs) * 1.01
    below = (rows.y[:, None] <= np.sort(raw) * rows.target.std + rows.target.mean).mean(axis=0)
    assert below == pytest.approx(LEVELS, abs=0.02)


@pytest.mark.parametrize("objective", ["huber", "quantile"])
def test_the_strength_is_chosen_by_the_loss_and_the_default_head_is_solved(objective: str) -> None:
    train, val = numbers(objective, n=80, dim=60), numbers(objective, seed=1, n=200, dim=60)
    spec, why = head_for(UsualSpec(), train.target)
    assert spec == RidgeSpec()
    assert "does not predict a number" in why
    assert not HEADS["nearest"].supports(train.target)
    found = fit_head(spec, train, Rows(val.x, val.y, train.target))
    losses = [entry["loss"] for entry in found.path]
    assert found.chosen["l2"] == found.path[int(np.argmin(losses))]["l2"]
    assert min(losses) < losses[0]


def test_a_solved_head_of_hubers_loss_finds_the_line_among_wild_values() -> None:
    errors = dict[str, float]()
    for objective in ("squared", "huber"):
        train, test = numbers(objective, n=600), numbers(objective, seed=1, n=600)
        val = Rows(test.x, test.y, train.target)
        answers = train.target.activate(fit_head(RidgeSpec(), train, val).head.raw(test.x))
        true = 50 + 10 * test.x[:, 0] - 4 * test.x[:, 1]
        errors[objective] = float(np.median(np.abs(answers["value"] - true)))
    assert errors["huber"] < 0.8 * errors["squared"]


@pytest.mark.parametrize("loss", [Huber(), Pinball(LEVELS)])
def test_gradients_are_those_of_the_loss(loss: ResidualLoss) -> None:
    from scipy.optimize import approx_fprime

    rows = numbers("quantile" if isinstance(loss, Pinball) else "huber", n=40)
    basis = Basis.of(rows, "none")
    object.__setattr__(basis, "z", basis.z.astype(np.float64))  # differences need the digits
    problem = Linear(basis, loss)
    w = problem.start() + 0.3 * np.random.default_rng(0).normal(size=problem.start().shape)

    def value(flat: Array) -> float:
        return float(problem.loss(0.1, flat.reshape(w.shape))[0])

    slopes = approx_fprime(w.ravel(), value, 1e-7)
    assert problem.loss(0.1, w)[1].ravel() == pytest.approx(slopes, abs=1e-4)
    r = np.linspace(-3, 3, 50)[:, None].repeat(len(basis.targets[0]), axis=1) + 0.01
    bend = (loss.slopes(r + 1e-6) - loss.slopes(r - 1e-6)) / 2e-6
    assert loss.curvatures(r) == pytest.approx(bend, abs=1e-4)


def test_a_quantile_of_weighted_rows_counts_a_row_of_weight_two_twice() -> None:
    values, weights = np.array([5.0, 1.0, 3.0]), np.array([2.0, 1.0, 1.0])
    for level in (0.05, 0.5, 0.6, 0.95):
        twice = weighted_quantile(np.array([5.0, 1.0, 3.0, 5.0]), np.ones(4), level)
        assert weighted_quantile(values, weights, level) == twice
