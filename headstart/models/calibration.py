"""Scores that mean what they say: of the answers given with 0.8, 80 in 100 are right."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record
from headstart.heads.head import Floats, softmax

BINS = 15  # as Guo et al. 2017 have it
TEMPERATURES = (0.05, 20.0)
POINTS = 20  # of the curve of accuracy against coverage


@dataclass(frozen=True)
class Bin(Record):
    """n rows whose best score lies from `low` up to `high`; confidence, accuracy: their means."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration(Record):
    """ece: expected calibration error, the mean over rows of |confidence - accuracy| of their bin
    (Guo et al. 2017, On calibration of modern neural networks, eq. 3). bins: those with rows."""

    ece: float
    bins: tuple[Bin, ...]


def scaled(scores: Floats, temperature: float) -> NDArray[np.float32]:  # (N, C) -> (N, C)
    """The softmax of the logits divided by the temperature, from the probabilities alone.

    A softmax forgets a constant of its logits, and no more: their logarithms will do (Guo et al.
    2017, eq. 9). Rows keep the order of their classes.
    """
    if temperature == 1.0:
        return scores.astype(np.float32)
    return softmax(_logs(scores) / temperature).astype(np.float32)


def fit_temperature(scores: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature with the least log loss on rows that trained nothing; 1 if they can't tell.

    labels: (N,), each known. Rows without a mistake among them would ask for certainty, which no
    number of right answers can warrant: they tell nothing.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if not len(labels) or (scores.argmax(axis=1) == labels).all():
        return 1.0
    logs = _logs(scores)
    own = logs[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float(np.mean(logsumexp(logs / temperature, axis=1) - own / temperature))

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), options={"xatol": 1e-8})
    return float(np.exp(found.x))


def calibration(scores: Floats, labels: NDArray[np.int64], bins: int = BINS) -> Calibration:
    """How far confidence is from accuracy, in bins of equal width."""
    sure, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, bins - 1)
    found = tuple(
        _bin(edges[b], edges[b + 1], sure[place == b], right[place == b]) for b in np.unique(place)
    )
    apart = sum(b.n * abs(b.confidence - b.accuracy) for b in found)
    return Calibration(apart / max(len(labels), 1), found)


def coverage_curve(scores: Floats, labels: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Accuracy of the surest 5, 10, … 100 % of the rows, as (coverage, accuracy).

    Of rows that are equally sure each counts as they do on average, whatever their order.
    """
    sure, hits = scores.max(axis=1), scores.argmax(axis=1) == labels
    _, group = np.unique(-sure, return_inverse=True)
    right = (np.bincount(group, hits) / np.maximum(np.bincount(group), 1))[np.sort(group)]
    counts = [-(-len(right) * k // POINTS) for k in range(1, POINTS + 1)] if len(right) else []
    return [(n / len(right), float(right[:n].mean())) for n in dict.fromkeys(counts)]


def _logs(scores: Floats) -> NDArray[np.float64]:
    return np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))


def _bin(low: float, high: float, sure: Floats, right: NDArray[np.bool_]) -> Bin:
    return Bin(float(low), float(high), len(sure), float(sure.mean()), float(right.mean()))
