"""Ridge regression along a path of L2 strengths, its outputs turned into probabilities."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.base.mapped import empty_rows
from headstart.heads.basis import Axes, Basis, Doubles
from headstart.heads.head import (
    BLOCK,
    LEAST,
    ClassWeights,
    FeatureRows,
    Floats,
    Trial,
    blocks,
    counted,
    is_rotated,
    loss_weights,
    softmax,
    view_of,
)
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
from headstart.heads.sums import RidgeSums, merged
from headstart.targets.target import Link

SHRINKAGE = 1e-4  # L2 strength of a calibration, so that it is finite for separated rows
MOST_SLOPE = 150.0  # of a calibration: e^5, as of the temperature of classes
CALIBRATION_ROWS = 2**15  # of more rows a sample decides how outputs become probabilities,
CALIBRATION_CELLS = 2**22  # and of fewer, where there are so many outputs
FEWEST_OF_STRATUM = 20  # rows of such a sample, if there are as many

# (weights, biases, leave-one-out outputs of the calibration rows) -> (settings, head)
Finish = Callable[[Doubles, Doubles, Doubles], tuple[dict[str, float], LinearHead]]


@dataclass(frozen=True, eq=False)
class CalibrationRows:
    """Training rows whose leave-one-out outputs decide how outputs become probabilities.

    z: (M, R), along the axes. targets: (M, K). row_weights: (M,) of mean 1. influence: (M,), each
    row's share of the weight of all training rows.
    """

    z: NDArray[np.float32]
    targets: Doubles
    row_weights: Doubles
    influence: Doubles

    def left_out(self, axes: Axes, weight: Doubles, bias: Doubles, l2: float) -> Doubles:
        """Return the ridge output of each row, (M, K), by a regression without the row.

        The residual over 1 - leverage (Hastie, Tibshirani, Friedman 2009, eq. 7.52).
        """
        inverse, out = 1.0 / (axes.values + l2), np.empty(self.targets.shape)
        for some in blocks(len(self.z), BLOCK):
            z, targets = self.z[some].astype(np.float64), self.targets[some]
            leverage = self.influence[some] * (1.0 + (z**2) @ inverse)
            residual = targets - (z @ weight + bias)
            out[some] = targets - residual / np.maximum(1.0 - leverage, 1e-6)[:, None]
        return out


@dataclass(frozen=True, eq=False)
class Equations:
    """The normal equations of ridge regression along the axes of N training rows.

    slopes: (R, K), the covariances with the targets of `encoded`. mean: (K,), of the targets.
    deviation: (K,), of the targets. present, varied: (K,), targets that are not 0 in some row, and
    not alike in all. outputs: of the target.
    """

    axes: Axes
    slopes: Doubles
    mean: Doubles
    deviation: Doubles
    present: NDArray[np.bool_]
    varied: NDArray[np.bool_]
    calibration: CalibrationRows
    rows: int
    outputs: int

    @classmethod
    def of_few(cls, rows: FeatureRows, how: ClassWeights) -> "Equations":
        """Return the equations of no more rows than columns, from their Gram matrix."""
        basis = Basis.of(rows, how)
        y = encoded(rows, slice(None))
        mean, n = basis.mean_of(y), len(y)
        slopes = basis.z.T @ (basis.row_weights[:, None] * (y - mean)) / n
        deviation = np.sqrt(basis.mean_of((y - mean) ** 2))
        own = CalibrationRows(basis.z, y, basis.row_weights, basis.row_weights / n)
        present, varied = np.asarray(y.any(axis=0)), np.asarray((y != y[0]).any(axis=0))
        outputs = rows.target.outputs
        return cls(basis, slopes, mean, deviation, present, varied, own, n, outputs)

    @classmethod
    def of(cls, sums: RidgeSums, rows: FeatureRows, weights: Doubles) -> "Equations":
        """Return the equations of the sums of `rows`, which are read again for their calibration.

        weights: (N,), as in the sums.
        """
        axes = sums.axes(scaled=not is_rotated(rows))
        deviation = np.sqrt(sums.yy / sums.weight)
        there = (sums.low != 0) | (sums.high != 0), sums.low != sums.high
        own = _calibration(axes, rows, weights, sums.weight)
        slopes, mean = sums.slopes(axes), sums.target_mean
        return cls(axes, slopes, mean, deviation, *there, own, sums.rows, rows.target.outputs)


@dataclass(frozen=True, eq=False)
class Regression:
    """Ridge regression for a kind of target, and how its solution becomes a head."""

    slopes: Doubles  # (R, K)
    bias: Doubles  # (K,)
    calibration: CalibrationRows
    finish: Finish


def ridge_trials(spec: RidgeSpec, train: FeatureRows, x: Floats) -> Iterator[Trial]:
    """Fit ridge regression for each strength, from strong to weak.

    By the target's link it regresses on 1 and -1 for each class or label (on 2 p - 1 where the data
    has probabilities p of classes), on the standardised grade or on the standardised number.
    Leave-one-out outputs of training rows decide how outputs become probabilities: one
    temperature for all classes, a line for each label, cut points of grades. A number with another
    loss than the squared one has that loss minimised instead.

    The features are read in slices and may be memory-mapped: once for sums from which every
    strength is solved, and a sample of 32,768 rows, of each class or label some, again for the
    calibration.
    """
    if (loss := train.target.residual_loss) is not None:
        yield from residual_trials(spec, train, x, loss)
        return
    rows = _counted(train)
    if _few(len(rows.y), rows):
        equations = Equations.of_few(rows, spec.class_weights)
    else:
        weights = loss_weights(rows, spec.class_weights)
        equations = Equations.of(sums_of(rows, weights), rows, weights)
    yield from _trials(spec, equations, rows, x)


def ridge_folds(
    spec: RidgeSpec, train: FeatureRows, parts: Sequence[NDArray[np.bool_]], x: Sequence[Floats]
) -> list[Iterator[Trial]] | None:
    """Return the trials of each fold, which leaves one part of the rows out, from sums of parts.

    parts: masks of the rows, no row in two. x: the rows that each fold answers. The rows are read
    once for all folds. None where each fold has to read its own rows: they are fewer than the
    columns, or their weights depend on the fold.
    """
    least = len(train.y) - max(int(part.sum()) for part in parts)
    by_class = spec.class_weights == "balanced"
    if train.target.residual_loss is not None or by_class or _few(least, train):
        return None
    weights = loss_weights(train, spec.class_weights)
    rest = ~np.any(parts, axis=0)
    sums = [_sums_of_part(train, weights, part) for part in (*parts, rest)]
    none = RidgeSums.none(*sums[-1].xy.shape)

    def trials(fold: int) -> Iterator[Trial]:
        kept = ~parts[fold] & (weights > 0)
        own = merged((s for i, s in enumerate(sums) if i != fold), none)
        rows = view_of(train, kept)
        yield from _trials(spec, Equations.of(own, rows, weights[kept]), rows, x[fold])

    return [trials(fold) for fold in range(len(parts))]


def sums_of(rows: FeatureRows, weights: Doubles) -> RidgeSums:
    """Return the sums from which ridge regression on the target of the rows is solved.

    weights: (N,), of `loss_weights`.
    """
    return RidgeSums.of(rows.x, lambda some: encoded(rows, some), weights)


def encoded(rows: FeatureRows, some: slice | NDArray[np.int64]) -> Doubles:
    """Return what is regressed on for some rows, (n, K): the grade, (n, 1), of grades, and what
    `Target.regression` returns of other targets, or the probabilities of classes."""
    soft = rows.supervision.soft
    own = rows.target.regression(rows.y[some]) if soft is None else soft[some]
    return own.sum(axis=1, keepdims=True) if rows.target.link == "cumulative" else own


def _sums_of_part(train: FeatureRows, weights: Doubles, part: NDArray[np.bool_]) -> RidgeSums:
    part = part & (weights > 0)
    return sums_of(view_of(train, part), weights[part])


def _few(count: int, rows: FeatureRows) -> bool:
    """Return whether so many rows are solved by the products of rows, not of columns."""
    return count < rows.x.shape[1]


def _counted(rows: FeatureRows) -> FeatureRows:
    """Return the rows of a case weight above 0, in memory if they are few."""
    own = rows.supervision.weights
    if own is None:
        return rows
    return counted(rows) if _few(int((own > 0).sum()), rows) else view_of(rows, own > 0)


def _trials(spec: RidgeSpec, equations: Equations, rows: FeatureRows, x: Floats) -> Iterator[Trial]:
    """Yield the head of each strength, and its answers to `x`."""
    target, axes = rows.target, equations.axes
    regression = REGRESSIONS[target.link](equations)
    for l2 in sorted(set(spec.l2), reverse=True):
        weight = regression.slopes / (axes.values + l2)[:, None]
        left_out = regression.calibration.left_out(axes, weight, regression.bias, l2)
        settings, head = regression.finish(weight, regression.bias, left_out)
        yield Trial({"l2": l2} | settings, head, target.activate(head.raw(x)))


def _calibration(axes: Axes, rows: FeatureRows, weights: Doubles, total: float) -> CalibrationRows:
    """Return the rows of the calibration, a sample of very many. total: the weight of all rows."""
    target = rows.target
    if target.link == "identity":  # numbers need none
        numbers, stands_for = np.zeros(0, np.int64), np.zeros(0)
    else:
        most = min(CALIBRATION_ROWS, CALIBRATION_CELLS // target.outputs)
        least = 1 if target.link == "softmax" else FEWEST_OF_STRATUM
        numbers, stands_for = sampled(target.strata(rows.y), most, least)
    z = empty_rows((len(numbers), len(axes.values)))
    for some in blocks(len(numbers), BLOCK):
        z[some] = axes.along(rows.x[numbers[some]])
    own = weights[numbers]
    counting = own * stands_for
    counting = counting / (counting.mean() if len(counting) else 1.0)
    return CalibrationRows(z, encoded(rows, numbers), counting, own / total)


def sampled(strata: NDArray[np.int64], most: int, least: int) -> tuple[NDArray[np.int64], Doubles]:
    """Return the numbers (M,) of about `most` rows, rising, and how many rows each stands for.

    Of each stratum there are at least `least` rows, or all of fewer; they are evenly spread. All
    rows if there are no more than `most`. If there are more strata than `most`, some have none.

    >>> numbers, stands_for = sampled(np.array([0] * 8 + [1]), most=5, least=1)
    >>> numbers.tolist(), stands_for.tolist()
    ([0, 2, 5, 7, 8], [2.0, 2.0, 2.0, 2.0, 1.0])
    >>> sampled(np.arange(9), most=3, least=1)[0].tolist()
    [0, 4, 8]
    """
    n = len(strata)
    if n <= most:
        return np.arange(n), np.ones(n)
    order = np.argsort(strata, kind="stable")
    _, counts = np.unique(strata, return_counts=True)
    if len(counts) > most:
        numbers = np.sort(order[np.linspace(0, n - 1, most).round().astype(np.int64)])
        return numbers, np.full(most, n / most)
    chosen, stands_for = [], []
    for own in np.split(order, np.cumsum(counts)[:-1]):
        count = max(round(len(own) * most / n), min(len(own), least))
        chosen.append(own[np.linspace(0, len(own) - 1, count).round().astype(np.int64)])
        stands_for.append(np.full(count, len(own) / count))
    numbers, weights = np.concatenate(chosen), np.concatenate(stands_for)
    rising = np.argsort(numbers)
    return numbers[rising], weights[rising]


def _of_classes(own: Equations) -> Regression:
    """Regress on 1 and -1; one temperature divides the outputs."""
    present, rows = own.present, own.calibration
    hot = np.ascontiguousarray(rows.targets[:, present])

    def finish(
        weight: Doubles, bias: Doubles, left_out: Doubles
    ) -> tuple[dict[str, float], LinearHead]:
        temperature = temperature_of(left_out, hot, rows.row_weights)
        head = softmax_head(own.axes, weight / temperature, bias / temperature, present)
        return {"temperature": temperature}, head

    return _signed(own, present, hot, finish)


def _of_labels(own: Equations) -> Regression:
    """Regress on 1 and -1; a line for each label makes log odds of its output (Platt 1999)."""
    learned, rows = own.varied, own.calibration
    labels = np.ascontiguousarray(rows.targets[:, learned])

    def finish(
        weight: Doubles, bias: Doubles, left_out: Doubles
    ) -> tuple[dict[str, float], LinearHead]:
        slope, shift = _lines(left_out, labels, rows.row_weights)
        weight, bias = weight * slope, bias * slope + shift
        return {}, sigmoid_head(own.axes, weight, bias, learned, own.mean, own.rows)

    return _signed(own, learned, labels, finish)


def _signed(
    own: Equations, columns: NDArray[np.bool_], targets: Doubles, finish: Finish
) -> Regression:
    """Return the regression of some columns of 0 and 1 as 1 and -1. targets: those columns."""
    rows = replace(own.calibration, targets=2.0 * targets - 1.0)
    return Regression(2.0 * own.slopes[:, columns], 2.0 * own.mean[columns] - 1.0, rows, finish)


def _of_grades(own: Equations) -> Regression:
    """Regress on the standardised grade; proportional odds of its output give the cut points."""
    rows, mean, std = own.calibration, own.mean, own.deviation
    grades = rows.targets[:, 0].astype(np.int64)

    def finish(
        weight: Doubles, bias: Doubles, left_out: Doubles
    ) -> tuple[dict[str, float], LinearHead]:
        square = rows.row_weights @ left_out**2 / len(left_out)
        problem = Cumulative.on(left_out, square, grades, own.outputs, rows.row_weights)
        w = minimised(problem, SHRINKAGE, problem.start())
        if not 0 <= w[0] <= MOST_SLOPE:  # a fit that predicts other rows worse than no fit
            w = problem.start()
        biases = problem.biases_of(w) + w[0] * bias
        return {}, cumulative_head(own.axes, w[0] * weight[:, 0], biases)

    scaled = replace(rows, targets=(rows.targets - mean) / std)
    return Regression(own.slopes / std, np.zeros(1), scaled, finish)


def _of_numbers(own: Equations) -> Regression:
    def finish(
        weight: Doubles, bias: Doubles, left_out: Doubles
    ) -> tuple[dict[str, float], LinearHead]:
        return {}, linear_head(own.axes, weight, bias)

    return Regression(own.slopes, own.mean, own.calibration, finish)


REGRESSIONS: dict[Link | None, Callable[[Equations], Regression]] = {
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
