"""Convex losses of residuals, other than the squared one, that a linear head is solved for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Residuals = NDArray[np.floating[Any]]  # (N, K): truth minus raw output

# Width of the kernel that smooths a pinball loss, in standard deviations of the numbers: the least
# bandwidth that He, Pan, Tan and Zhou (2023, Smoothed quantile regression with large-scale
# inference) use by default.
WIDTH = 0.05


class ResidualLoss(Protocol):
    """A smooth convex loss; each method takes residuals (N, K) and works entry by entry."""

    def losses(self, r: Residuals) -> NDArray[np.float64]: ...
    def slopes(self, r: Residuals) -> NDArray[np.float64]: ...  # derivatives of the losses
    def curvatures(self, r: Residuals) -> NDArray[np.float64]: ...
    def centre(self, r: Residuals, weights: Residuals) -> NDArray[np.float64]:
        """Return (K,) constants that should be added to the raw outputs. weights: (N,)."""
        ...


@dataclass(frozen=True)
class Huber:
    """Half the square up to 1, linear beyond (Huber 1964)."""

    def losses(self, r: Residuals) -> NDArray[np.float64]:
        size = np.abs(r)
        return np.where(size <= 1, size**2 / 2, size - 0.5)

    def slopes(self, r: Residuals) -> NDArray[np.float64]:
        return np.clip(r, -1.0, 1.0).astype(np.float64)

    def curvatures(self, r: Residuals) -> NDArray[np.float64]:
        return (np.abs(r) <= 1).astype(np.float64)

    def centre(self, r: Residuals, weights: Residuals) -> NDArray[np.float64]:
        return np.zeros(r.shape[1])


@dataclass(frozen=True)
class Pinball:
    """The pinball loss of a level per column (Koenker and Bassett 1978), smoothed.

    It is convolved with a logistic density: level · r + width · log(1 + exp(-r / width)), at most
    width · log 2 above the pinball loss. `centre` is exact: the quantiles of the residuals.
    """

    levels: Sequence[float]
    width: float = WIDTH

    def losses(self, r: Residuals) -> NDArray[np.float64]:
        smooth = self.width * np.logaddexp(0.0, -r / self.width)
        return np.asarray(np.array(self.levels) * r + smooth, np.float64)

    def slopes(self, r: Residuals) -> NDArray[np.float64]:
        return np.asarray(np.array(self.levels) - self._above(r), np.float64)

    def curvatures(self, r: Residuals) -> NDArray[np.float64]:
        above = self._above(r)
        return above * (1.0 - above) / self.width

    def centre(self, r: Residuals, weights: Residuals) -> NDArray[np.float64]:
        pairs = zip(r.T, self.levels, strict=True)
        return np.array([weighted_quantile(own, weights, level) for own, level in pairs])

    def _above(self, r: Residuals) -> NDArray[np.float64]:
        from scipy.special import expit

        return np.asarray(expit(-r / self.width), np.float64)


def weighted_quantile(values: Residuals, weights: Residuals, level: float) -> float:
    """Return the least of `values` (N,) up to which a share `level` of the weights lies.

    >>> weighted_quantile(np.array([3.0, 1.0, 2.0]), np.ones(3), 0.5)
    2.0
    """
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, level * below[-1] - 1e-12)])
