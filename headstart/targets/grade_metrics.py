"""Metrics of grades, whole numbers from 0. `answers` and `y` are (N,), `scores` (N, C)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.targets.metrics import Floats, Ints

HALF = 0.5 - 1e-6  # scores are float32


def median_grades(scores: Floats) -> NDArray[np.int64]:  # (N, C) -> (N,)
    """Return the lowest grade that, with those below it, has half of the probability.

    No other answer has a smaller expected distance from the grade.
    """
    below = np.cumsum(scores.astype(np.float64), axis=1)
    return (below[:, :-1] < HALF).sum(axis=1).astype(np.int64)


def quadratic_kappa(answers: Ints, y: Ints) -> Callable[[NDArray[np.int64]], float]:
    """Return the statistic of rows: Cohen's kappa with squared distances as weights (1968).

    1 - the mean squared distance of the rows / that of answers and grades paired at random. NaN
    where all answers and grades are the same.
    """

    def of(rows: NDArray[np.int64]) -> float:
        a, b = answers[rows].astype(np.float64), y[rows].astype(np.float64)
        by_chance = a.var() + b.var() + (a.mean() - b.mean()) ** 2
        return float(1 - ((a - b) ** 2).mean() / by_chance) if by_chance > 0 else np.nan

    return of


def reach(scores: Floats) -> NDArray[np.float64]:
    """Return (N, C) the probability of the shortest run of grades that reaches each grade.

    A run begins with the median and grows by the more probable of its two neighbours; ties go to
    the lower one (Lu, Angelopoulos, Pomerantz 2022, Improving trustworthiness of AI disease
    severity rating with ordinal conformal prediction sets, algorithm 1).
    """
    p, rows = scores.astype(np.float64), np.arange(len(scores))
    padded = np.pad(p, ((0, 0), (1, 1)), constant_values=-1.0)  # outside there is no grade
    low = high = median_grades(scores)
    mass = p[rows, low]
    found = np.zeros(p.shape)
    found[rows, low] = mass
    for _ in range(p.shape[1] - 1):
        left, right = padded[rows, low], padded[rows, high + 2]
        lower = left >= right
        low, high = low - lower, high + ~lower
        mass = mass + np.maximum(left, right)
        found[rows, np.where(lower, low, high)] = mass
    return found
