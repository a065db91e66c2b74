"""Logistic regression along a path of L2 strengths: of classes, of labels, and of grades."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.heads.basis import Basis, Doubles
from headstart.heads.head import FeatureRows, Floats, Trial, softmax
from headstart.heads.linear import LinearHead, cumulative_head, sigmoid_head, softmax_head
from headstart.heads.specs import LogisticSpec
from headstart.targets.target import Link

GRADIENT = 3e-5  # largest gradient entry at convergence: the loss is then exact to about 1e-6 nats
FEWEST = 1e-3  # lower bound of a curvature, which is 0 for a label that hardly varies


def logistic_trials(spec: LogisticSpec, train: FeatureRows, x: Floats) -> Iterator[Trial]:
    """Fit logistic regression for each strength, strong to weak, with warm starts.

    By the target's link it is multinomial regression of classes, independent binary regressions of
    labels, or proportional odds of grades (McCullagh 1980). Minimises the weighted mean log loss of
    a row + l2 / 2 · |weight|²; biases are not penalised. A row with probabilities of classes counts
    as a row of each class, weighted by its probability.
    """
    assert train.target.link in PROBLEMS, "HeadFamily.supports was asked"
    basis = Basis.of(train, spec.class_weights)
    problem = PROBLEMS[train.target.link](basis)
    w = problem.start()
    for l2 in sorted(set(spec.l2), reverse=True):
        w = minimised(problem, l2, w)
        head = problem.head(w)
        yield Trial({"l2": l2}, head, train.target.activate(head.raw(x)))


class ConvexLoss(Protocol):
    """A convex loss of parameters `w`, an array of any shape."""

    def start(self) -> Doubles: ...  # the best parameters whose weights are 0
    def scale(self, l2: float, w: Doubles) -> Doubles: ...  # steps of about equal curvature at w
    def loss(self, l2: float, w: Doubles) -> tuple[float, Doubles]: ...  # with its gradient


class Problem(ConvexLoss, Protocol):
    """The convex loss of a head."""

    def head(self, w: Doubles) -> LinearHead: ...


def minimised(problem: ConvexLoss, l2: float, w: Doubles) -> Doubles:
    """Return the parameters of least loss, found by L-BFGS from `w`."""
    from scipy.optimize import minimize

    scale = problem.scale(l2, w)

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        value, slope = problem.loss(l2, flat.reshape(w.shape) * scale)
        return value, (slope * scale).ravel()

    options = {"gtol": GRADIENT, "ftol": 0.0, "maxiter": 1000, "maxfun": 2000}
    found = minimize(loss, (w / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
    solution: Doubles = found.x.reshape(w.shape) * scale
    return solution


@dataclass(frozen=True, eq=False)
class Softmax:
    """Multinomial regression; w: (R + 1, C) of the classes with rows, biases in its last row."""

    basis: Basis  # targets: (N, C) of the classes with rows
    present: NDArray[np.bool_]

    @classmethod
    def of(cls, basis: Basis) -> "Softmax":
        present = np.asarray(basis.targets.any(axis=0))
        targets = np.ascontiguousarray(basis.targets[:, present])
        return cls(replace(basis, targets=targets), present)

    def start(self) -> Doubles:
        bias = np.log(self.basis.mean_of(self.basis.targets))
        return np.vstack([np.zeros((len(self.basis.values), len(bias))), bias])

    def scale(self, l2: float, w: Doubles) -> Doubles:
        """Return (R + 1, 1): one over the root of each direction's curvature.

        It is bounded by the mean of p (1 - p) (compare Böhning 1992, Multinomial logistic
        regression algorithm).
        """
        p = softmax(self.basis.z @ w[:-1].astype(np.float32) + w[-1])
        k = p.shape[1]
        curvature = max(float(np.mean(1.0 - (p**2).sum(axis=1))) / (k - 1), FEWEST / k)
        return 1.0 / np.sqrt(np.append(curvature * self.basis.values + l2, curvature))[:, None]

    def loss(self, l2: float, w: Doubles) -> tuple[float, Doubles]:
        """Return loss and gradient; products in the precision of z, float32."""
        basis = self.basis
        logits = basis.outputs(w)
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits)
        totals = p.sum(axis=1, keepdims=True)
        share = basis.row_weights[:, None] / len(p)
        value = float((share * basis.targets * (np.log(totals) - logits)).sum())
        residual = share * (p / totals - basis.targets)
        return basis.penalised(l2, w, value, residual)

    def head(self, w: Doubles) -> LinearHead:
        return softmax_head(self.basis, w[:-1], w[-1], self.present)


@dataclass(frozen=True, eq=False)
class Sigmoid:
    """A binary regression for each label; w: (R + 1, L), biases in its last row.

    Only labels that some rows have and some rows lack are learned.
    """

    basis: Basis  # targets: (N, all labels)
    targets: Doubles  # (N, L) of the learned labels
    learned: NDArray[np.bool_]

    @classmethod
    def of(cls, basis: Basis) -> "Sigmoid":
        learned = np.asarray((basis.targets != basis.targets[0]).any(axis=0))
        return cls(basis, np.ascontiguousarray(basis.targets[:, learned]), learned)

    def start(self) -> Doubles:
        share = self.basis.mean_of(self.targets)
        bias = np.log(share / (1 - share))
        return np.vstack([np.zeros((len(self.basis.values), len(bias))), bias])

    def scale(self, l2: float, w: Doubles) -> Doubles:
        """Return (R + 1, L), as `Softmax.scale` for each label."""
        p = sigmoid(self.basis.z @ w[:-1].astype(np.float32) + w[-1])
        curvature = np.maximum(np.mean(p * (1 - p), axis=0), FEWEST)
        return 1.0 / np.sqrt(np.vstack([np.outer(self.basis.values, curvature) + l2, curvature]))

    def loss(self, l2: float, w: Doubles) -> tuple[float, Doubles]:
        """Return loss, summed over the labels, and gradient; products in the precision of z."""
        basis = self.basis
        logits = basis.outputs(w)
        share = basis.row_weights[:, None] / len(logits)
        value = float((share * (np.logaddexp(0.0, logits) - self.targets * logits)).sum())
        residual = share * (sigmoid(logits) - self.targets)
        return basis.penalised(l2, w, value, residual)

    def head(self, w: Doubles) -> LinearHead:
        own = self.basis
        shares, rows = own.mean_of(own.targets), len(own.targets)
        return sigmoid_head(own, w[:-1], w[-1], self.learned, shares, rows)


@dataclass(frozen=True, eq=False)
class Cumulative:
    """Proportional odds: P(grade > k) = sigmoid(z · slope + bias_k), the biases descending.

    w: the slope (R,), the first bias, and the logarithms of the steps down to the others. Grades
    without rows have no bias of their own here; `biases_of` adds them.
    """

    z: Floats  # (N, R)
    values: Doubles  # (R,) the mean square of each column
    grade: NDArray[np.int64]  # (N,) numbered among the grades with rows
    present: NDArray[np.bool_]  # (grades,)
    row_weights: Doubles
    basis: Basis | None = None

    @classmethod
    def of(cls, basis: Basis) -> "Cumulative":
        grades = basis.targets.sum(axis=1).astype(np.int64)
        own = cls.on(basis.z, basis.values, grades, basis.targets.shape[1], basis.row_weights)
        return replace(own, basis=basis)

    @classmethod
    def on(
        cls,
        z: Floats,
        values: Doubles,
        grades: NDArray[np.int64],
        cuts: int,
        row_weights: Doubles,
    ) -> "Cumulative":
        """Return the problem of rows with these columns and grades (N,) from 0 to `cuts`."""
        counts = np.bincount(grades, minlength=cuts + 1)
        _, numbered = np.unique(grades, return_inverse=True)
        return cls(z, values, numbered, counts > 0, row_weights)

    def start(self) -> Doubles:
        share = np.bincount(self.grade, self.row_weights) / len(self.grade)
        above = 1.0 - np.cumsum(share)[:-1]
        biases = np.log(above / (1.0 - above))
        steps = np.log(np.maximum(-np.diff(biases), 1e-9))
        return np.concatenate([np.zeros(len(self.values)), biases[:1], steps])

    def scale(self, l2: float, w: Doubles) -> Doubles:
        others = np.full(len(w) - len(self.values), 0.25)
        return 1.0 / np.sqrt(np.concatenate([0.25 * self.values + l2, others]))

    def loss(self, l2: float, w: Doubles) -> tuple[float, Doubles]:
        """Return loss and gradient; products in the precision of z.

        The probability of a grade is sigmoid(u) - sigmoid(v) with u = z · slope + the bias of the
        grade below, and v with its own; that is sigmoid(u) sigmoid(-v) (1 - exp(v - u)), where
        v - u depends on the biases alone.
        """
        slope, biases, steps = self.split(w)
        eta = (self.z @ slope.astype(self.z.dtype)).astype(np.float64)
        share, lowest, highest = self.row_weights / len(eta), 0, len(biases)
        upper, lower = self.grade > lowest, self.grade < highest
        u, v = eta[upper] + biases[self.grade[upper] - 1], eta[lower] + biases[self.grade[lower]]
        mass = np.bincount(self.grade, share, highest + 1)[1:-1]  # of the grades between two biases
        value = share[upper] @ np.logaddexp(0.0, -u) + share[lower] @ np.logaddexp(0.0, v)
        value -= mass @ np.log(-np.expm1(-steps))
        down, up = np.zeros(len(eta)), np.zeros(len(eta))
        down[upper], up[lower] = -share[upper] * sigmoid(-u), share[lower] * sigmoid(v)
        by_bias = np.bincount(self.grade[upper] - 1, down[upper], highest)
        by_bias += np.bincount(self.grade[lower], up[lower], highest)
        with np.errstate(over="ignore"):  # of a huge step the quotient is 0
            between = mass / np.expm1(steps)
        by_step = -(by_bias.sum() - np.cumsum(by_bias)[:-1]) - between
        by_slope = self.z.T @ (down + up).astype(self.z.dtype) + l2 * slope
        gradient = np.concatenate([by_slope, [by_bias.sum()], by_step * steps])
        return float(value) + l2 / 2 * float(slope @ slope), gradient

    def split(self, w: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Return the slope (R,), the biases of the grades with rows, and the steps between them."""
        slope, first, steps = np.split(w, [len(self.values), len(self.values) + 1])
        steps = np.exp(np.clip(steps, -30.0, 30.0))
        return slope, first - np.append(0.0, np.cumsum(steps)), steps

    def biases_of(self, w: Doubles) -> Doubles:
        """Return the biases of all cuts (K,), descending.

        A grade without rows between two others has about half a row's probability where it is
        likeliest. One below or above all others has at most that for any training row.
        """
        slope, own, _ = self.split(w)
        eta, n, k = self.z @ slope.astype(self.z.dtype), len(self.grade), len(self.present) - 1
        below = np.cumsum(self.present)[:-1] - 1  # the cut's number among those between grades here
        first = np.searchsorted(below, below)  # where a run of cuts with the same number begins
        last = np.searchsorted(below, below, side="right") - 1
        place, half_a_row = np.arange(k), np.log(2.0 * n + 1.0)
        biases = own[np.clip(below, 0, len(own) - 1)] - 2.0 / ((n + 1) * k) * (place - first)
        lowest = max(own[0], -float(eta.min())) + half_a_row * (last - place + 1)
        highest = min(own[-1], -float(eta.max())) - half_a_row * (place - first + 1)
        return np.where(below < 0, lowest, np.where(below >= len(own), highest, biases))

    def head(self, w: Doubles) -> LinearHead:
        assert self.basis is not None
        return cumulative_head(self.basis, self.split(w)[0], self.biases_of(w))


PROBLEMS: dict[Link | None, Callable[[Basis], Problem]] = {
    "softmax": Softmax.of,
    "sigmoid": Sigmoid.of,
    "cumulative": Cumulative.of,
}


def sigmoid(x: Floats) -> Doubles:
    from scipy.special import expit

    values: Doubles = expit(x.astype(np.float64))
    return values
