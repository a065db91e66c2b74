"""Linear heads: multinomial logistic regression and ridge regression along a path of L2 strengths.

Both standardise the columns and rotate them into the eigenbasis of their covariance, where ridge is
a division and logistic regression is so well conditioned that it converges in few steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.heads.head import (
    FeatureRows,
    Floats,
    Head,
    Trial,
    blocks,
    check_tensors,
    log_loss_of,
    softmax,
)
from headstart.heads.mlp import DenseHead
from headstart.heads.specs import HeadSpec, LogisticSpec, RidgeSpec

Doubles = NDArray[np.float64]
SHAPES = {"weight": ("D", "C"), "bias": ("C",)}
NEVER = -1000.0  # bias of a class without training rows: its probability rounds to 0
GRADIENT = 3e-5  # largest gradient entry at convergence: the loss is then exact to about 1e-6 nats


@dataclass(frozen=True, eq=False)
class LinearHead(DenseHead):
    """Softmax of `x @ weight + bias`, computed in double precision."""

    weight: NDArray[np.float32]  # (D, C)
    bias: NDArray[np.float32]  # (C,)
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        check_tensors(self.tensors(), SHAPES)
        object.__setattr__(self, "weights", (self.weight,))
        object.__setattr__(self, "biases", (self.bias,))

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"weight": self.weight, "bias": self.bias}


def load_linear(tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Head:
    check_tensors(tensors, SHAPES)
    return LinearHead(tensors["weight"].astype(np.float32), tensors["bias"].astype(np.float32))


def logistic_trials(spec: LogisticSpec, train: FeatureRows, x: Floats) -> Iterator[Trial]:
    """Fit multinomial logistic regression for each strength, strong to weak, with warm starts.

    Minimises the weighted mean log loss + l2 / 2 · |weight|²; biases are not penalised.
    """
    basis = _Basis.of(train, spec)
    weight = np.zeros((len(basis.values), basis.targets.shape[1]))
    bias = np.log(basis.row_weights @ basis.targets / len(basis.targets))  # best for no weights
    for l2 in sorted(set(spec.l2), reverse=True):
        weight, bias = _solve_logistic(basis, l2, weight, bias)
        head = basis.head(weight, bias)
        yield Trial({"l2": l2}, head, train.target.activate(head.raw(x)))


def ridge_trials(spec: RidgeSpec, train: FeatureRows, x: Floats) -> Iterator[Trial]:
    """Fit ridge regression on targets of ±1 for each strength, from strong to weak.

    One temperature divides the outputs, so that their softmax is a probability: the temperature
    with the least leave-one-out log loss on the training rows.
    """
    basis = _Basis.of(train, spec)
    targets = 2.0 * basis.targets - 1.0
    bias = basis.row_weights @ targets / len(targets)
    slopes = basis.z.T @ (basis.row_weights[:, None] * (targets - bias)) / len(targets)
    for l2 in sorted(set(spec.l2), reverse=True):
        weight = slopes / (basis.values + l2)[:, None]
        temperature = _temperature(_left_out(basis, targets, weight, bias, l2), basis)
        head = basis.head(weight / temperature, bias / temperature)
        answers = train.target.activate(head.raw(x))
        yield Trial({"l2": l2, "temperature": temperature}, head, answers)


@dataclass(frozen=True, eq=False)
class _Basis:
    """Weighted, standardised training rows in the R eigenvectors of their covariance."""

    mean: Doubles  # (D,)
    std: Doubles  # (D,)
    vectors: NDArray[np.float32]  # (D, R), orthonormal
    values: Doubles  # (R,) the variance along each vector
    z: NDArray[np.float32]  # (N, R)
    targets: Doubles  # (N, K) one-hot over the K classes that have rows
    present: NDArray[np.bool_]  # (C,) whether a class has rows
    row_weights: Doubles  # (N,) of mean 1

    @classmethod
    def of(cls, train: FeatureRows, spec: HeadSpec) -> "_Basis":
        weights = train.target.row_weights(spec.class_weights, train.y)
        mean, std = _moments(train.x, weights)
        z = ((train.x - mean.astype(np.float32)) / std.astype(np.float32)).astype(np.float32)
        values, vectors = _directions(z, weights)
        targets = train.target.regression(train.y)
        present = np.asarray(targets.any(axis=0))
        targets = np.ascontiguousarray(targets[:, present])
        return cls(mean, std, vectors, values, z @ vectors, targets, present, weights)

    def head(self, weight: Doubles, bias: Doubles) -> LinearHead:
        """Undo rotation and standardisation, and add the classes that have no rows."""
        full = np.zeros((len(self.mean), len(self.present)))
        biases = np.full(len(self.present), NEVER)
        weight = weight - weight.mean(axis=1, keepdims=True)  # so the best logit is never below 0
        full[:, self.present] = self.vectors.astype(np.float64) @ weight / self.std[:, None]
        biases[self.present] = bias - bias.mean() - self.mean @ full[:, self.present]
        return LinearHead(full.astype(np.float32), biases.astype(np.float32))


def _moments(x: Floats, weights: Doubles) -> tuple[Doubles, Doubles]:
    """Return the weighted mean and standard deviation of each column, (D,); 1 if constant."""
    mean, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for rows in blocks(len(x)):
        mean += weights[rows] @ x[rows].astype(np.float64) / len(x)
    for rows in blocks(len(x)):
        square += weights[rows] @ (x[rows] - mean) ** 2 / len(x)
    std = np.sqrt(square)
    return mean, np.where(std > 1e-6 * np.abs(mean), std, 1.0)  # smaller is float32 rounding


def _directions(z: NDArray[np.float32], weights: Doubles) -> tuple[Doubles, NDArray[np.float32]]:
    """Return eigenvalues (R,) and eigenvectors (D, R) of the weighted covariance of `z` (N, D).

    With fewer rows than columns it solves the (N, N) Gram problem instead: the L2 penalty is
    rotation invariant, and directions without variance get no weight.
    """
    n, d = z.shape
    if n >= d:
        covariance = np.zeros((d, d))
        for rows in blocks(n):
            half = z[rows] * np.sqrt(weights[rows])[:, None]
            covariance += half.T @ half / n
        values, vectors = np.linalg.eigh(covariance)
        return np.maximum(values, 0.0), vectors.astype(np.float32)
    half = z * np.sqrt(weights)[:, None]
    values, left = np.linalg.eigh(half @ half.T / n)
    kept = values > 1e-9 * max(values[-1], 1e-12)  # the others are rounding errors
    values, left = values[kept], left[:, kept]
    return values, (half.T @ (left / np.sqrt(values * n))).astype(np.float32)


def _solve_logistic(
    basis: _Basis, l2: float, weight: Doubles, bias: Doubles
) -> tuple[Doubles, Doubles]:
    """Minimise the loss by L-BFGS from `weight` and `bias`; return weights (R, K), biases (K,).

    Each direction is scaled by the root of its curvature, bounded by the mean of p (1 - p) (compare
    Böhning 1992, Multinomial logistic regression algorithm).
    """
    from scipy.optimize import minimize

    p = softmax(basis.z @ weight.astype(np.float32) + bias)
    k = p.shape[1]
    curvature = max(float(np.mean(1.0 - (p**2).sum(axis=1))) / (k - 1), 1e-3 / k)
    scale = 1.0 / np.sqrt(np.append(curvature * basis.values + l2, curvature))[:, None]

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        value, slope = _logistic_loss(basis, l2, flat.reshape(-1, k) * scale)
        return value, (slope * scale).ravel()

    start = (np.vstack([weight, bias]) / scale).ravel()
    options = {"gtol": GRADIENT, "ftol": 0.0, "maxiter": 1000, "maxfun": 2000}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    solution = found.x.reshape(-1, k) * scale
    return solution[:-1], solution[-1]


def _logistic_loss(basis: _Basis, l2: float, w: Doubles) -> tuple[float, Doubles]:
    """Return loss and gradient at `w` (R + 1, K), biases in its last row; products in float32."""
    logits = (basis.z @ w[:-1].astype(np.float32)).astype(np.float64) + w[-1]
    logits -= logits.max(axis=1, keepdims=True)
    p = np.exp(logits)
    totals = p.sum(axis=1, keepdims=True)
    share = basis.row_weights[:, None] / len(p)
    value = float((share * basis.targets * (np.log(totals) - logits)).sum())
    residual = share * (p / totals - basis.targets)
    slope = basis.z.T @ residual.astype(np.float32) + l2 * w[:-1]
    return value + l2 / 2 * float((w[:-1] ** 2).sum()), np.vstack([slope, residual.sum(axis=0)])


def _left_out(
    basis: _Basis, targets: Doubles, weight: Doubles, bias: Doubles, l2: float
) -> Doubles:
    """Return the leave-one-out ridge output of each training row, (N, K).

    The residual over 1 - leverage (Hastie, Tibshirani, Friedman 2009, eq. 7.52).
    """
    spread = (basis.z.astype(np.float64) ** 2) @ (1.0 / (basis.values + l2))
    leverage = basis.row_weights * (1.0 + spread) / len(targets)
    residual = targets - (basis.z @ weight + bias)
    return targets - residual / np.maximum(1.0 - leverage, 1e-6)[:, None]


def _temperature(outputs: Doubles, basis: _Basis) -> float:
    """Return the temperature of least log loss for `outputs` (N, K) (Guo et al. 2017, sec. 4.2)."""
    from scipy.optimize import minimize_scalar

    y = basis.targets.argmax(axis=1)

    def loss(log_temperature: float) -> float:
        return log_loss_of(softmax(outputs / np.exp(log_temperature)), y, basis.row_weights)

    found = minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))
