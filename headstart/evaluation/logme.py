"""LogME: how well features explain labels, as the evidence of a Bayesian linear model.

You, Liu, Wang, Long 2021, LogME: Practical Assessment of Pre-trained Models for Transfer Learning.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.head import FeatureRows, check_finite

Doubles = NDArray[np.float64]

STEPS = 500  # of the fixed-point iteration, at most
SETTLED = 1e-7  # relative change at which the iteration has converged
STARTS = (1e-4, 1e-2, 1.0, 1e2)  # first ratios alpha / beta, in units of the mean of sigma
ENDS = (1e-12, 1e12)  # limits of the ratio, in the same units


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Features and columns of labels, in the coordinates in which the evidence is a sum.

    sigma: (R, 1, 1) squared singular values of the features. power: (R, 1, K) squared projections
    of each column on the left singular vectors. rest: (K,) what they leave of its squared norm.
    n: rows.
    """

    sigma: Doubles
    power: Doubles
    rest: Doubles
    n: int

    @classmethod
    def of(cls, x: Doubles, y: Doubles) -> "Spectrum":
        """Return the spectrum of features (N, D) and columns (N, K)."""
        left, singular, _ = np.linalg.svd(x, full_matrices=False)
        power = (left.T @ y) ** 2
        rest = np.maximum((y**2).sum(axis=0) - power.sum(axis=0), 0.0)
        return cls(singular[:, None, None] ** 2, power[:, None, :], rest, len(x))

    def residual(self, ratio: Doubles) -> Doubles:
        """Return |F m - y|² for the posterior mean m, (S, K); ratio: alpha / beta, (S, K)."""
        share = ratio / (self.sigma + ratio)
        misfit: Doubles = (self.power * share**2).sum(axis=0) + self.rest
        return misfit

    def norm(self, ratio: Doubles) -> Doubles:
        """Return |m|², (S, K)."""
        norms: Doubles = (self.power * self.sigma / (self.sigma + ratio) ** 2).sum(axis=0)
        return norms

    def step(self, ratio: Doubles) -> Doubles:
        """Return the next ratio alpha / beta of the fixed-point iteration (eq. 4 of the paper)."""
        gamma = (self.sigma / (self.sigma + ratio)).sum(axis=0)
        alpha = gamma / np.maximum(self.norm(ratio), TINY)
        beta = (self.n - gamma) / np.maximum(self.residual(ratio), TINY)
        return alpha / np.maximum(beta, TINY)

    def evidence(self, ratio: Doubles) -> Doubles:
        """Return log p(y | F) / n for each ratio, (S, K), with the best beta for it."""
        n, misfit = self.n, self.residual(ratio) + ratio * self.norm(ratio)
        log_beta = np.log(n / np.maximum(misfit, TINY))
        volume = np.log1p(self.sigma / ratio).sum(axis=0)
        value: Doubles = (n * (log_beta - math.log(2 * math.pi) - 1) - volume) / (2 * n)
        return value


TINY = float(np.finfo(np.float64).tiny)


def logme(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Return the maximised log evidence of a row, the mean over the columns of `y`.

    x: features (N, D). y: (N,) or (N, K), one column per question; one-hot classes give one
    question per class. The model is y = F w + noise, w ~ N(0, 1 / alpha), noise ~ N(0, 1 / beta);
    alpha and beta maximise the evidence, found by the paper's fixed-point iteration from several
    starts. The higher, the better; only values of the same labels can be compared. Columns without
    variation are left out; NaN without any. Raises Mismatch for features that are not finite.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(40, 3))
    >>> logme(x, x[:, 0]) > logme(x, rng.normal(size=40))
    True
    """
    check_finite(x, "The features for LogME")
    columns = np.asarray(y, np.float64).reshape(len(y), -1)
    columns = columns[:, (columns != columns[:1]).any(axis=0)]
    if not columns.size:
        return math.nan
    space = Spectrum.of(np.asarray(x, np.float64), columns)
    return float(best_evidence(space).mean())


def logme_of(table: FeatureRows) -> float:
    """Return LogME of labelled features by what the target regresses on.

    Classes one against the rest, each label, a number as it is, grades by "above k" for each k.
    """
    return logme(table.x, table.target.fitted(table.y).regression(table.y))


def best_evidence(space: Spectrum) -> Doubles:
    """Return the maximised evidence of each column, (K,), divided by the rows."""
    unit = float(space.sigma.mean()) or 1.0
    columns = space.power.shape[2]
    ratio = np.repeat(unit * np.array(STARTS)[:, None], columns, axis=1)
    for _ in range(STEPS):
        following = np.clip(space.step(ratio), unit * ENDS[0], unit * ENDS[1])
        settled = np.abs(following - ratio) <= SETTLED * ratio
        ratio = following
        if settled.all():
            break
    tried = np.vstack([ratio, np.full((1, columns), unit * ENDS[1])])  # the last: nothing explained
    best: Doubles = space.evidence(tried).max(axis=0)
    return best
