"""When a model should say "I don't know": limits found on validation, which travel with it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch, SpecError
from headstart.heads.head import Floats
from headstart.models.calibration import fit_temperature, scaled
from headstart.models.conformal import conformal_limit, conformal_sets, upper_limit
from headstart.models.distance import Seen
from headstart.targets.metrics import wilson_bounds

Z = 1.6448536269514722  # the normal quantile of 95 %, for a bound on one side


@dataclass(frozen=True)
class TrustPlan:
    """What a model is to know of its own doubts; all of it is found on validation."""

    calibrate: Annotated[
        bool,
        "scale the scores by one temperature, so that of answers with score 0.8, 80 in 100 are "
        "right",
    ] = True
    precision: Annotated[
        float,
        "answer unknown where the score is too low for this share of the answers to be right; 0 "
        "asks for none",
    ] = 0.0
    coverage: Annotated[
        float,
        "instead, answer this share of the pictures, and unknown for the least sure ones; 0 asks "
        "for none",
    ] = 0.0
    alpha: Annotated[
        float,
        "how often the set of classes that can't be ruled out may miss the right one",
    ] = 0.1
    false_alarms: Annotated[
        float,
        "share of pictures like those of validation that may be called unlike anything seen in "
        "training; 0 never calls one so",
    ] = 0.01

    def __post_init__(self) -> None:
        for name in ("precision", "coverage", "false_alarms"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is a share from 0 to below 1; got {getattr(self, name)}.")
        if not 0 < self.alpha < 1:
            raise SpecError(f"alpha is a share between 0 and 1; got {self.alpha}.")
        if self.precision and self.coverage:
            raise SpecError(
                f"A threshold keeps a precision or a coverage, not both; got "
                f"precision={self.precision} and coverage={self.coverage}. Leave one of them out."
            )


@dataclass(frozen=True, eq=False)
class Limits:
    """What a model knows of its doubts.

    temperature: of its scores. confidence: the best score must reach it, 0 for no such limit.
    miss: a class this far below 1 is ruled out (see `conformal_sets`), infinite if validation was
    too small to tell. far: a picture farther than this from what was seen is unlike it.
    """

    temperature: float = 1.0
    confidence: float = 0.0
    miss: float = math.inf
    far: float = math.inf
    seen: Seen | None = None

    def sets(self, scores: Floats) -> NDArray[np.bool_]:  # (N, C)
        return conformal_sets(scores, self.miss)

    def doubts(self, scores: Floats, x: Floats) -> tuple[str, ...]:
        """Why each row is not answered, in a phrase; "" where it is. scores: after scaling."""
        best = scores.max(axis=1)
        away = self.distance(x)
        return tuple(map(self._doubt, best.tolist(), away.tolist()))

    def distance(self, x: Floats) -> NDArray[np.float64]:  # (N, D) -> (N,)
        return self.seen.distance(x) if self.seen is not None else np.zeros(len(x))

    def settings(self) -> dict[str, float | None]:
        """Its numbers; None for a limit that there is not, since JSON knows no infinity."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return {name: n if math.isfinite(n) else None for name, n in numbers.items()}

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {} if self.seen is None else {"seen": self.seen.rows}

    def _doubt(self, best: float, away: float) -> str:
        if away > self.far:
            return f"unlike the training images (distance {away:.2f}, limit {self.far:.2f})"
        if best < self.confidence:
            return f"not sure enough (score {best:.2f}, limit {self.confidence:.2f})"
        return ""


NUMBERS = ("temperature", "confidence", "miss", "far")


def load_limits(settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Limits:
    """What `settings` and `tensors` gave; raises Mismatch for anything else."""
    if set(settings) != set(NUMBERS) or set(tensors) - {"seen"}:
        raise Mismatch(
            f"A model's limits are {', '.join(NUMBERS)}; got {sorted(settings)}, {sorted(tensors)}."
        )
    numbers = {name: math.inf if n is None else float(n) for name, n in settings.items()}
    rows = tensors.get("seen")
    return Limits(**numbers, seen=None if rows is None else Seen(rows.astype(np.float16)))


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows that trained nothing. scores: (N, C) before scaling. labels: (N,), each known.
    x: (N, D)."""

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    x: NDArray[np.float32]


def find_limits(plan: TrustPlan, val: Judged, seen: Seen | None) -> Limits:
    """Every limit that the plan asks for and validation can tell. seen: rows of training."""
    temperature = fit_temperature(val.scores, val.labels) if plan.calibrate else 1.0
    scores = scaled(val.scores, temperature)
    asked = bool(plan.false_alarms) and seen is not None and len(val.labels) > 0
    away = upper_limit(seen.distance(val.x), plan.false_alarms) if seen and asked else math.inf
    return Limits(
        temperature=temperature,
        confidence=_confidence(plan, scores, val.labels),
        miss=conformal_limit(scores, val.labels, plan.alpha),
        far=away,
        seen=seen if asked else None,
    )


def _confidence(plan: TrustPlan, scores: Floats, labels: NDArray[np.int64]) -> float:
    best, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == labels
    if plan.precision:
        return precision_limit(best, right, plan.precision)
    if plan.coverage and len(best):
        return float(np.quantile(best, 1 - plan.coverage, method="lower"))
    return 0.0


def precision_limit(best: Floats, right: NDArray[np.bool_], wanted: float) -> float:
    """The lowest score from which on the wanted share of answers is right; 0 if there is none.

    best: (N,) the score of each answer. It is Wilson's lower bound of the share that must reach the
    wanted one: of many thresholds the best looking one promises more than it keeps.
    """
    order, n = np.argsort(-best, kind="stable"), np.arange(1, len(best) + 1)
    share = np.cumsum(right[order]) / n
    bound, _ = wilson_bounds(share, n, Z)
    last = np.append(best[order][1:] < best[order][:-1], True)  # of equal scores all or none
    good = np.flatnonzero((bound >= wanted) & last)
    return float(best[order][good[-1]]) if len(good) else 0.0
