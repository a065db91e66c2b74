"""Ridge regression along a path of L2 strengths, its outputs turned into probabilities."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from headstart.heads.basis import Basis, Doubles
from headstart.heads.head import LEAST, FeatureRows, Floats, Trial, softmax
from headstart.heads.linear import (
    LinearHead,
    cumulative_head,
    linear_head,
    sigmoid_head,
    softmax_head,
)
from headstart.heads.logistic import Cumulative, minimised, sigmoid
from headstart.heads.residuals import residual_trials
from headstart.heads.specs import RidgeSpec
from headstart.targets.target import Link

SHRINKAGE = 1e-4  # L2 strength of a calibration, so that it is finite for separated rows
MOST_SLOPE = 150.0  # of a calibration: e^5, as of the temperature of classes

# (weights, biases, leave-one-out outputs of the training rows) -> (settings, head)
Finish = Callable[[Doubles, Doubles, Doubles], tuple[dict[str, float], LinearHead]]


@dataclass(frozen=True, eq=False)
class Regression:
    """What ridge regresses on, (N, K), and how its solution becomes a head."""

    targets: Doubles
    finish: Finish


def ridge_trials(spec: RidgeSpec, train: FeatureRows, x: Floats) -> Iterator[Trial]:
    """Fit ridge regression for each strength, from strong to weak.

    By the target's link it regresses on 1 and -1 for each class or label (on 2 p - 1 where the data
    has probabilities p of classes), on the standardised grade or on the standardised number.
    Leave-one-out outputs of the training rows decide how outputs become probabilities: one
    temperature for all classes, a line for each label, cut points of grades. A number with another
    loss than the squared one has that loss minimised instead.
    """
    if (loss := train.target.residual_loss) is not None:
        yield from residual_trials(spec, train, x, loss)
        return
    basis = Basis.of(train, spec.class_weights)
    regression = REGRESSIONS[train.target.link](basis)
    targets = regression.targets
    bias = basis.mean_of(targets)
    slopes = basis.z.T @ (basis.row_weights[:, None] * (targets - bias)) / len(targets)
    for l2 in sorted(set(spec.l2), reverse=True):
        weight = slopes / (basis.values + l2)[:, None]
        left_out = left_out_outputs(basis, targets, weight, bias, l2)
        settings, head = regression.finish(weight, bias, left_out)
        yield Trial({"l2": l2} | settings, head, train.target.activate(head.raw(x)))


def left_out_outputs(
    basis: Basis, targets: Doubles, weight: Doubles, bias: Doubles, l2: float
) -> Doubles:
    """Return the leave-one-out ridge output of each training row, (N, K), left out with its weight.

    The residual over 1 - leverage (Hastie, Tibshirani, Friedman 2009, eq. 7.52).
    """
    spread = (basis.z.astype(np.float64) ** 2) @ (1.0 / (basis.values + l2))
    leverage = basis.row_weights * (1.0 + spread) / len(targets)
    residual = targets - (basis.z @ weight + bias)
    return targets - residual / np.maximum(1.0 - leverage, 1e-6)[:, None]


def _of_classes(basis: Basis) -> Regression:
    """Regress on 1 and -1; one temperature divides the outputs."""
    present = np.asarray(basis.targets.any(axis=0))
    hot = np.ascontiguousarray(basis.targets[:, present])

    def finish(
        weight: Doubles, bias: Doubles, left_out: Doubles
    ) -> tuple[dict[str, float], LinearHead]:
        temperature = temperature_of(left_out, hot, basis.row_weights)
        head = softmax_head(basis, weight / temperature, bias / temperature, present)
        return {"temperature": temperature}, head

    return Regression(2.0 * hot - 1.0, finish)


def _of_labels(basis: Basis) -> Regression:
    """Regress on 1 and -1; a line for each label makes log odds of its output (Platt 1999)."""
    learned = np.asarray((basis.targets != basis.targets[0]).any(axis=0))
    own = np.ascontiguousarray(basis.targets[:, learned])

    def finish(
        weight: Doubles, bias: Doubles, left_out: Doubles
    ) -> tuple[dict[str, float], LinearHead]:
        slope, shift = _lines(left_out, own, basis.row_weights)
        return {}, sigmoid_head(basis, weight * slope, bias * slope + shift, learned)

    return Regression(2.0 * own - 1.0, finish)


def _of_grades(basis: Basis) -> Regression:
    """Regress on the standardised grade; proportional odds of its output give the cut points."""
    grade = basis.targets.sum(axis=1, keepdims=True)
    mean = basis.mean_of(grade)
    std = np.sqrt(basis.mean_of((grade - mean) ** 2))

    def finish(
        weight: Doubles, bias: Doubles, left_out: Doubles
    ) -> tuple[dict[str, float], LinearHead]:
        problem = Cumulative.on(left_out, basis.mean_of(left_out**2), basis)
        w = minimised(problem, SHRINKAGE, problem.start())
        if not 0 <= w[0] <= MOST_SLOPE:  # a fit that predicts other rows worse than no fit
            w = problem.start()
        biases = problem.biases_of(w) + w[0] * bias
        return {}, cumulative_head(basis, w[0] * weight[:, 0], biases)

    return Regression((grade - mean) / std, finish)


def _of_numbers(basis: Basis) -> Regression:
    return Regression(basis.targets, lambda w, b, _: ({}, linear_head(basis, w, b)))


REGRESSIONS: dict[Link | None, Callable[[Basis], Regression]] = {
    "softmax": _of_classes,
    "sigmoid": _of_labels,
    "cumulative": _of_grades,
    "identity": _of_numbers,
}


def temperature_of(outputs: Doubles, hot: Doubles, row_weights: Doubles) -> float:
    """Return the temperature of least log loss for `outputs` (N, K) (Guo et al. 2017, sec. 4.2).

    hot: (N, K) the probabilities that the log loss is of, 0 and 1 for labels.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        logs = np.log(np.maximum(softmax(outputs / np.exp(log_temperature)), LEAST))
        return float(np.average(-(hot * logs).sum(axis=1), weights=row_weights))

    found = minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def _lines(outputs: Doubles, labels: Doubles, row_weights: Doubles) -> tuple[Doubles, Doubles]:
    """Return slopes from 0 to MOST_SLOPE and shifts (L,) that make log odds of `outputs` (N, L)."""
    from scipy.optimize import minimize

    share, n = row_weights[:, None] / len(outputs), outputs.shape[1]
    average = (share * labels).sum(axis=0)

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        slope, shift = flat[:n], flat[n:]
        logits = outputs * slope + shift
        value = (share * (np.logaddexp(0.0, logits) - labels * logits)).sum()
        residual = share * (sigmoid(logits) - labels)
        by_slope = (residual * outputs).sum(axis=0) + SHRINKAGE * slope
        gradient = np.concatenate([by_slope, residual.sum(axis=0)])
        return float(value) + SHRINKAGE / 2 * float(slope @ slope), gradient

    start = np.concatenate([np.ones(n), np.log(average / (1 - average))])
    bounds = [(0.0, MOST_SLOPE)] * n + [(None, None)] * n
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x[:n], found.x[n:]
