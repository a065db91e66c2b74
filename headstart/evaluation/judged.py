"""How far a model's scores can be trusted, measured on rows not used to choose any setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record
from headstart.evaluation.comparison import mcnemar
from headstart.evaluation.evaluation import Estimate, compare, wilson
from headstart.models.calibration import Calibration, calibration, coverage_curve
from headstart.models.limits import TrustPlan
from headstart.models.model import Model
from headstart.targets.predictions import Predictions
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
    """Sets of classes that should contain the true class for 1 - alpha of the rows. limit: None if
    validation had too few rows. coverage: share of rows whose set contains the true class."""

    alpha: float
    limit: float | None
    coverage: Estimate | None
    mean_size: float


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
    predictions: Predictions, temperature: float, fitted_on: int
) -> TemperatureScaling | None:
    """Return the calibration of scaled predictions; None if no label is known."""
    known = predictions.take(np.flatnonzero(predictions.known))
    if not len(known):
        return None
    before = calibration(scaled(known.scores, 1 / temperature), known.labels)
    effect = ScalingEffect(before, calibration(known.scores, known.labels))
    coverage = tuple(coverage_curve(known.scores, known.labels))
    return TemperatureScaling(temperature, fitted_on, effect, coverage)


def doubts(
    model: Model, plan: TrustPlan, predictions: Predictions, x: NDArray[np.float32]
) -> Doubts | None:
    """Measure the model's limits on rows that were not used to choose them.

    predictions: with scaled scores. x: (N, D) features. Returns None if no label is known.
    """
    rows, limits = np.flatnonzero(predictions.known), model.limits
    if not len(rows):
        return None
    known, settings = predictions.take(rows), limits.settings()
    sets = limits.region(known.target, known.outputs)["not_ruled_out"]
    held = sets[np.arange(len(known)), known.labels]
    size = float(sets.sum(axis=1).mean())
    far = limits.distance(x[rows]) > limits.far
    return Doubts(
        ConformalSets(plan.alpha, settings["miss"], _share(held), size),
        DistanceLimit(plan.false_alarms, settings["far"], _share(far)),
        _confidence(plan, limits.confidence, known),
    )


def _confidence(plan: TrustPlan, limit: float, known: Predictions) -> ConfidenceLimit | None:
    asked = plan.precision or plan.coverage
    if not asked:
        return None
    sure = known.scores.max(axis=1) >= limit
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
