"""Metrics of numbers. `answers` and `y` are (N,); a statistic that no row determines is NaN."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.targets.metrics import midranks

Numbers = NDArray[np.float64]
Statistic = Callable[[NDArray[np.int64]], float]  # of row numbers, which may repeat


def rmse(answers: Numbers, y: Numbers) -> Statistic:
    """Return the statistic of rows: the root of the mean squared error."""
    squares = (answers - y) ** 2
    return lambda rows: float(np.sqrt(squares[rows].mean()))


def median_absolute_error(answers: Numbers, y: Numbers) -> Statistic:
    errors = np.abs(answers - y)
    return lambda rows: float(np.median(errors[rows]))


def r2(answers: Numbers, y: Numbers) -> Statistic:
    """Return the statistic of rows: 1 - squared error / squared distance from the mean.

    NaN for rows that all have the same number.
    """

    def of(rows: NDArray[np.int64]) -> float:
        own = y[rows]
        whole = float(((own - own.mean()) ** 2).sum())
        return 1.0 - float(((answers[rows] - own) ** 2).sum()) / whole if whole > 0 else np.nan

    return of


def spearman(answers: Numbers, y: Numbers) -> Statistic:
    """Return the statistic of rows: the correlation of midranks (Spearman 1904).

    NaN where all answers or all numbers are the same.
    """

    def of(rows: NDArray[np.int64]) -> float:
        a, b = (midranks(values[rows]) for values in (answers, y))
        a, b = a - a.mean(), b - b.mean()
        size = float(np.sqrt((a @ a) * (b @ b)))
        return float(a @ b) / size if size > 0 else float("nan")

    return of
