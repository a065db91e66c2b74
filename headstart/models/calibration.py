"""Calibration of scores: of the answers with score 0.8, 80 in 100 should be right."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record
from headstart.heads.head import Floats

BINS = 15  # as in Guo et al. 2017
POINTS = 20  # of the curve of accuracy against coverage


@dataclass(frozen=True)
class Bin(Record):
    """n rows with a best score from `low` to `high`; confidence, accuracy: their means."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration(Record):
    """ece: expected calibration error, the mean over rows of |confidence - accuracy| of their
    bin (Guo et al. 2017, On calibration of modern neural networks, eq. 3). bins: non-empty ones."""

    ece: float
    bins: tuple[Bin, ...]


def calibration(scores: Floats, labels: NDArray[np.int64], bins: int = BINS) -> Calibration:
    """Return the calibration error of scores (N, C), in bins of equal width."""
    sure, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, bins - 1)
    found = tuple(
        _bin(edges[b], edges[b + 1], sure[place == b], right[place == b]) for b in np.unique(place)
    )
    apart = sum(b.n * abs(b.confidence - b.accuracy) for b in found)
    return Calibration(apart / max(len(labels), 1), found)


def coverage_curve(scores: Floats, labels: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Return (coverage, accuracy) of the most confident 5, 10, … 100 % of the rows.

    Rows with equal confidence each count with their mean accuracy, whatever their order.
    """
    sure, hits = scores.max(axis=1), scores.argmax(axis=1) == labels
    _, group = np.unique(-sure, return_inverse=True)
    right = (np.bincount(group, hits) / np.maximum(np.bincount(group), 1))[np.sort(group)]
    counts = [-(-len(right) * k // POINTS) for k in range(1, POINTS + 1)] if len(right) else []
    return [(n / len(right), float(right[:n].mean())) for n in dict.fromkeys(counts)]


def _bin(low: float, high: float, sure: Floats, right: NDArray[np.bool_]) -> Bin:
    return Bin(float(low), float(high), len(sure), float(sure.mean()), float(right.mean()))
