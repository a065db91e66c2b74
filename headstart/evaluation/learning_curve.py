"""Would more data help? Accuracy of heads by number of training rows, and its projection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record, later
from headstart.evaluation.evaluation import Estimate, wilson
from headstart.heads.fit import fit_head
from headstart.heads.head import FeatureRows, counted, some_of
from headstart.heads.specs import LogisticSpec

SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)  # of the training rows
REPEATS = 4  # draws of rows for each share
POWERS = np.linspace(0.1, 1.5, 29)  # exponents tried for the power law
DRAWS = 300  # of the points, for the interval of the projection
MORE = 2  # the projection is for this many times the training rows


@dataclass(frozen=True)
class CurvePoint(Record):
    """Accuracy with `rows` training rows, and its 95 % interval."""

    rows: int
    accuracy: float
    low: float
    high: float

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.accuracy, self.low, self.high, 0)


@dataclass(frozen=True)
class LearningCurve(Record):
    """judged_on: the part, of n rows. projection: for more training rows than there are. rises:
    whether accuracy rises with the rows by more than the error of measuring it."""

    judged_on: str
    n: int
    points: tuple[CurvePoint, ...]
    projection: CurvePoint | None = None
    rises: bool = field(default=True, metadata=later())


def learning_curve(
    l2: float, train: FeatureRows, val: FeatureRows, seed: int = 0, draws: int = REPEATS
) -> LearningCurve | None:
    """Fit heads on growing shares of the training rows and evaluate them on validation.

    draws: of rows, for each share but the last. Training rows of weight 0 are left out. Returns
    None without validation rows.
    """
    if not len(val.y):
        return None
    train = counted(train)
    spec, rng = LogisticSpec(l2=(l2,)), np.random.default_rng(seed)
    spreads = list[tuple[int, float, float]]()
    for share in SHARES:
        drawn = [_stratified(train.y, share, rng) for _ in range(draws if share < 1 else 1)]
        accuracies = [_accuracy_on(spec, train, rows, val) for rows in drawn]
        spreads.append((len(drawn[0]), float(np.mean(accuracies)), float(np.std(accuracies))))
    n = len(val.y)
    points = tuple(_measured(rows, mean, n) for rows, mean, _ in spreads)
    rises = rising(spreads, n, draws)
    return LearningCurve("val", n, points, projection(spreads, rng, draws, n), rises)


def _measured(rows: int, accuracy: float, n: int) -> CurvePoint:
    estimate = wilson(round(accuracy * n), n)
    assert estimate is not None  # there are validation rows
    return CurvePoint(rows, accuracy, estimate.low, estimate.high)


def fitted_rows(train: int, draws: int = REPEATS) -> float:
    """Return the sum of the training rows of all heads of a learning curve."""
    return train * (draws * sum(SHARES[:-1]) + 1)


def projection(
    points: Sequence[tuple[int, float, float]],
    rng: np.random.Generator,
    draws: int = REPEATS,
    n: int | None = None,
) -> CurvePoint:
    """Return the accuracy with twice the rows by the power law error = a + b rows^-c.

    points: (training rows, mean accuracy, standard deviation over the draws). draws: for each. n:
    rows that the accuracies are shares of; None for exact ones. Cortes et al. 1994, Learning
    curves: asymptotic values and rate of convergence. The interval is that of laws fitted to points
    drawn with their errors: of the drawn training rows, each by itself, and of the n rows, which
    are the same for all points.
    """
    rows, means, noise = _errors(points, draws)
    target = MORE * int(rows[-1])
    value = float(_projected(rows, means[None], target)[0])
    shared = 0.0 if n is None else math.sqrt(value * (1 - value) / n + 0.25 / n**2)
    moved = rng.normal(means, noise, (DRAWS, len(means)))
    drawn = _projected(rows, moved, target) + rng.normal(0, shared, DRAWS)
    low, high = np.clip(np.quantile(drawn, (0.025, 0.975)), 0, 1)
    return CurvePoint(target, value, min(float(low), value), max(float(high), value))


def rising(points: Sequence[tuple[int, float, float]], n: int, draws: int = REPEATS) -> bool:
    """Return whether accuracy rises with the logarithm of the rows, by more than 1.96 times the
    standard error of the slope. points, draws, n: as for `projection`."""
    rows, means, noise = _errors(points, draws)
    error = np.sqrt(noise**2 + means * (1 - means) / n)  # as if each had been judged on other rows
    weights = 1 / np.maximum(error, 1e-6) ** 2
    x = np.log(rows) - np.average(np.log(rows), weights=weights)
    spread = float(weights @ x**2)
    return bool(spread > 0 and weights @ (x * means) / spread > 1.96 / math.sqrt(spread))


def _errors(points: Sequence[tuple[int, float, float]], draws: int) -> tuple[NDArray[Any], ...]:
    """Return rows, mean accuracies, and the errors of these that come from the drawn rows."""
    rows, means, spreads = (np.array(column) for column in zip(*points, strict=True))
    noise = np.maximum(np.where(spreads > 0, spreads, spreads.max(initial=0)), 2e-3)
    return rows, means, noise / np.sqrt(draws)


def _projected(rows: NDArray[Any], accuracies: NDArray[Any], target: int) -> NDArray[Any]:
    """Return the accuracy at `target` rows by the law fitted to each of M curves, (M, P) -> (M,).

    Least squares with a, b >= 0, and c the best of POWERS.
    """
    scale, errors = rows[-1], 1 - accuracies
    columns = (rows / scale) ** -POWERS[:, None]  # (K, P)
    a, b = _non_negative(columns, errors)
    misfit = _misfit(columns, errors, a, b)
    each, best = np.arange(len(errors)), misfit.argmin(axis=1)
    return np.asarray(1 - a[each, best] - b[each, best] * (target / scale) ** -POWERS[best])


def _non_negative(columns: NDArray[Any], errors: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return a and b, (M, K), of the least squares a + b * column to each of M curves (M, P).

    Where one of the two would be negative it is 0, and the other is fitted alone.
    """
    n, sums, norms = columns.shape[1], columns.sum(axis=1), (columns**2).sum(axis=1)
    whole, along = errors.sum(axis=1)[:, None], errors @ columns.T
    spread = n * norms - sums**2
    b = (n * along - sums * whole) / np.where(spread > 1e-12, spread, np.inf)
    a = (whole - b * sums) / n
    level, none = np.maximum(whole / n, 0) + 0 * b, np.zeros_like(b)
    slope = np.maximum(along / norms, 0)
    flat = _misfit(columns, errors, level, none) <= _misfit(columns, errors, none, slope)
    good = (a >= 0) & (b >= 0)
    return (
        np.where(good, a, np.where(flat, level, none)),
        np.where(good, b, np.where(flat, none, slope)),
    )


def _misfit(
    columns: NDArray[Any], errors: NDArray[Any], a: NDArray[Any], b: NDArray[Any]
) -> NDArray[Any]:
    """Return the sum of squares that is left of each curve by each power, (M, K)."""
    fitted = a[..., None] + b[..., None] * columns
    return np.asarray(((fitted - errors[:, None]) ** 2).sum(axis=-1))


def _stratified(y: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw a share of the rows of each class, at least one; returns sorted indices."""
    by_class = [np.flatnonzero(y == c) for c in np.unique(y)]
    drawn = [rng.permutation(rows)[: max(1, round(share * len(rows)))] for rows in by_class]
    return np.sort(np.concatenate(drawn))


def _accuracy_on(
    spec: LogisticSpec, train: FeatureRows, rows: NDArray[np.intp], val: FeatureRows
) -> float:
    some = some_of(train, rows)
    head = fit_head(spec, some, val).head
    return float((head.scores(val.x).argmax(axis=1) == val.y).mean())
