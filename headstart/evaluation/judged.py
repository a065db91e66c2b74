"""How far a model's scores can be trusted, measured on rows not used to choose any setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record, later
from headstart.evaluation.comparison import mcnemar
from headstart.evaluation.evaluation import RESAMPLES, Estimate, bootstrap, compare, wilson
from headstart.models.calibration import Calibration, calibration, coverage_curve
from headstart.models.limits import Limits, TrustPlan
from headstart.targets.predictions import Predictions
from headstart.targets.target import Target
from headstart.targets.temperature import scaled


@dataclass(frozen=True)
class ScalingEffect(Record):
    """Calibration on the same rows before and after temperature scaling."""

    before: Calibration
    after: Calibration


@dataclass(frozen=True)
class TemperatureScaling(Record):
    """fitted_on: rows on which the temperature was fitted; 0 without scaling. coverage: pairs
    (share of rows answered, most confident first; accuracy of these rows)."""

    temperature: float
    fitted_on: int
    test: ScalingEffect
    coverage: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class ConformalSets(Record):
    """Sets of labels, or intervals, that should contain the label of 1 - alpha of the rows.

    limit: None if validation had too few rows; one per question if the target asks several of each
    row. coverage: the share of labels that are contained. mean_size: of the target's regions; None
    if it has no size. each: the coverage of each question by its name, () for a single one.
    """

    alpha: float
    limit: float | None | tuple[float | None, ...]
    coverage: Estimate | None
    mean_size: float | None
    each: tuple["QuestionCoverage", ...] = field(default=(), metadata=later())


@dataclass(frozen=True)
class QuestionCoverage(Record):
    """How often the truth about one question, such as a label, is contained; n: of the rows."""

    name: str
    coverage: Estimate | None


@dataclass(frozen=True)
class DistanceLimit(Record):
    """asked: share of in-distribution rows that may be called unknown. limit: None if validation
    had too few rows. unknown: share of rows called unknown."""

    asked: float
    limit: float | None
    unknown: Estimate | None


@dataclass(frozen=True)
class ConfidenceLimit(Record):
    """asked: the requested precision or coverage, by `kind`. limit: the lowest score that is
    answered; None if no score reaches the request."""

    kind: Literal["precision", "coverage"]
    asked: float
    limit: float | None
    coverage: Estimate | None
    precision: Estimate | None


@dataclass(frozen=True)
class Doubts(Record):
    """The effect of a model's limits on test rows."""

    conformal: ConformalSets | None = None
    distance: DistanceLimit | None = None
    confidence: ConfidenceLimit | None = None


@dataclass(frozen=True)
class Gain(Record):
    """How much more accurate model `a` is than `b` on the part `on`; p: McNemar's p-value."""

    a: str
    b: str
    on: str
    gain: Estimate
    p: float | None = None


def temperature_scaling(
    predictions: Predictions,
    temperature: float,
    fitted_on: int,
    unscaled: NDArray[np.float32] | None = None,
) -> TemperatureScaling | None:
    """Return the calibration of scaled predictions; None if no label is known.

    unscaled: scores (N, C) before scaling, where rows were scaled by several temperatures.
    """
    rows = np.flatnonzero(predictions.known)
    known = predictions.take(rows)
    if not len(known):
        return None
    plain = scaled(known.scores, 1 / temperature) if unscaled is None else unscaled[rows]
    before = calibration(plain, known.labels)
    effect = ScalingEffect(before, calibration(known.scores, known.labels))
    coverage = tuple(coverage_curve(known.scores, known.labels))
    return TemperatureScaling(temperature, fitted_on, effect, coverage)


@dataclass(frozen=True, eq=False)
class LimitEffects:
    """What the limits of a model say about N rows with known labels.

    held: whether the region contains the label, (N,) or (N, L), NaN if unknown; None without
    regions. size: (N,) of the regions; None without. far, sure: (N,) whether a row is beyond the
    distance limit, and whether its score reaches the confidence limit.
    """

    held: NDArray[np.float64] | None
    size: NDArray[np.float64] | None
    far: NDArray[np.bool_]
    sure: NDArray[np.bool_]


def limit_effects(
    limits: Limits, predictions: Predictions, x: NDArray[np.float32] | None = None
) -> LimitEffects:
    """Return what the limits say about the predictions whose label is known.

    predictions: with scaled scores. x: (N, D) features; without them no row is far.
    """
    rows = np.flatnonzero(predictions.known)
    known = predictions.take(rows)
    region = limits.region(known.target, known.outputs)
    held = known.target.covered(region, known.labels) if region and len(known) else None
    size = None if held is None else known.target.region_size(region)
    sure = known.target.confidence(known.outputs)
    return LimitEffects(
        held,
        size,
        np.zeros(len(rows), bool) if x is None else limits.distance(x[rows]) > limits.far,
        np.ones(len(rows), bool) if sure is None else sure >= limits.confidence,
    )


def doubts(
    limits: Limits, plan: TrustPlan, predictions: Predictions, effects: LimitEffects
) -> Doubts | None:
    """Measure a model's limits on rows that were not used to choose them.

    effects: on the predictions whose label is known. Returns None if there are none.
    """
    rows, settings = np.flatnonzero(predictions.known), limits.settings()
    if not len(rows):
        return None
    known = predictions.take(rows)
    return Doubts(
        coverage_of(plan.alpha, limits, known, effects),
        DistanceLimit(plan.false_alarms, settings["far"], _share(effects.far)),
        _confidence(plan, limits.confidence, known, effects.sure),
    )


def conformal_coverage(
    alpha: float, limits: Limits, predictions: Predictions
) -> ConformalSets | None:
    """Measure how often the regions of `limits` contain the label; None without such regions."""
    return coverage_of(alpha, limits, predictions, limit_effects(limits, predictions))


def coverage_of(
    alpha: float, limits: Limits, predictions: Predictions, effects: LimitEffects
) -> ConformalSets | None:
    """Return how often regions contain the label, from the `effects` on the known predictions."""
    held, sizes = effects.held, effects.size
    if held is None:
        return None
    size = None if sizes is None or not np.isfinite(sizes).all() else float(sizes.mean())
    finite = [float(n) if np.isfinite(n) else None for n in np.atleast_1d(limits.miss)]
    limit = tuple(finite) if isinstance(limits.miss, np.ndarray) else finite[0]
    names = predictions.target.topics()
    several = held.ndim > 1 and len(names) == held.shape[1]
    each = _of_each(names, held) if several else ()
    return ConformalSets(alpha, limit, _mean_held(held), size, each)


def _of_each(names: Sequence[str], held: NDArray[np.float64]) -> tuple[QuestionCoverage, ...]:
    """Return the share of rows (N, L) whose label is held, of each question; NaN left out."""
    columns = (column[~np.isnan(column)] for column in held.T)
    pairs = zip(names, columns, strict=True)
    return tuple(QuestionCoverage(name, _share(column > 0)) for name, column in pairs)


def conformal_row(found: ConformalSets, target: Target) -> tuple[str, str]:
    """Return the stated and the measured coverage as a row to print."""
    size = "" if found.mean_size is None else f"; mean {target.size_noun} {found.mean_size:.3g}"
    return f"in the {1 - found.alpha:.0%} {target.region_noun}", f"{found.coverage or 'n/a'}{size}"


def _mean_held(held: NDArray[np.float64]) -> Estimate | None:
    """Return the share of labels that are held, (N,) or (N, L), NaN left out."""
    if held.ndim == 1:
        return _share(held > 0)
    rows = np.nanmean(held[~np.isnan(held).all(axis=1)], axis=1)
    return bootstrap(rows, RESAMPLES, 0) if len(rows) else None


def _confidence(
    plan: TrustPlan, limit: float, known: Predictions, sure: NDArray[np.bool_]
) -> ConfidenceLimit | None:
    asked = plan.precision or plan.coverage
    if not asked:
        return None
    kind: Literal["precision", "coverage"] = "precision" if plan.precision else "coverage"
    return ConfidenceLimit(kind, asked, limit or None, _share(sure), _share(known.correct[sure]))


def gains(kept: str, predictions: Mapping[str, Predictions], on: str) -> tuple[Gain, ...]:
    """Return the gain of the kept model over each other model on the same rows."""
    own, counts = predictions[kept], predictions[kept].target.counts_right
    return tuple(
        Gain(kept, name, on, compare(own, p), mcnemar(own, p) if counts else None)
        for name, p in predictions.items()
        if name != kept and own.known.any()
    )


def _share(hits: NDArray[np.bool_]) -> Estimate | None:
    return wilson(int(hits.sum()), len(hits))
