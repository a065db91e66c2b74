"""Limits of a model beyond which it answers "unknown", found on rows it did not learn from.

Regions are those of split conformal prediction. The target scores how much each answer disagrees
with the truth (`conformity`), and a region contains all labels whose score is at most the limit.
For classes the score is 1 - p of the true class: Sadinle, Lei, Wasserman 2019, Least ambiguous
set-valued classifiers with bounded error levels; the finite-sample rank of Angelopoulos and Bates
2021, A gentle introduction to conformal prediction, section 1. If the calibration rows were not
trained on and are exchangeable with new rows, a new row's region contains the truth with
probability 1 - alpha or more. With out-of-fold answers of a head in place of validation, that is
cross-conformal prediction with the folds' scores in one list (Vovk 2015, Cross-conformal
predictors): the coverage is 1 - alpha as far as the folds' heads answer like the final one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch, SpecError
from headstart.heads.head import Floats
from headstart.models.distance import Seen
from headstart.targets.metrics import wilson_bounds
from headstart.targets.saved import number
from headstart.targets.target import Array, Labels, Outputs, Target

Z = 1.6448536269514722  # the 95 % quantile of the normal distribution, for a one-sided bound


@dataclass(frozen=True)
class TrustPlan:
    """The limits to find on validation."""

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
        float, "how often the set of classes that can't be ruled out may miss the right one"
    ] = 0.1
    false_alarms: Annotated[
        float,
        "share of pictures like those of validation that may be called unlike anything seen in "
        "training, or the lowest share that so few rows can warrant; 0 never calls one so",
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

    def false_alarms_of(self, rows: int) -> float:
        """Return the share of false alarms that `rows` calibration rows can warrant.

        >>> TrustPlan(false_alarms=0.01).false_alarms_of(39)
        0.025
        """
        return max(self.false_alarms, 1 / (rows + 1)) if self.false_alarms else 0.0

    def check_supports(self, target: Target) -> None:
        """Raise SpecError for a threshold that needs answers that are right or wrong."""
        if (self.precision or self.coverage) and not target.counts_right:
            asked = "precision" if self.precision else "coverage"
            raise SpecError(
                f"A threshold by {asked} needs answers that are right or wrong; those of the "
                f"target {target.kind!r} can be partly right. Leave --{asked} out."
            )


@dataclass(frozen=True, eq=False)
class Limits:
    """The limits of a model.

    temperature: scales its outputs. confidence: lowest score of an answer; 0 for no limit. miss:
    limit of `Target.region`, one number or (L,); infinite if validation was too small. far: largest
    distance from the training rows. alpha: share of the regions that may miss the label; 0 for
    targets whose regions are no columns of their predictions.
    """

    temperature: float = 1.0
    confidence: float = 0.0
    miss: float | NDArray[np.float64] = math.inf
    far: float = math.inf
    seen: Seen | None = None
    alpha: float = 0.0

    def __post_init__(self) -> None:
        others = (self.confidence, *np.atleast_1d(self.miss), self.far)
        if not 0 < self.temperature < math.inf or not all(n > -math.inf for n in others):
            raise Mismatch(
                f"A model's temperature is a finite number above 0, and its other limits are "
                f"numbers; got temperature={self.temperature}, confidence={self.confidence}, "
                f"miss={self.miss}, far={self.far}."
            )

    def region(self, target: Target, answers: Outputs) -> Mapping[str, Array]:
        """Return the labels that are not ruled out for each row, as columns of the target."""
        return target.region(answers, self.miss)

    def columns(self, target: Target, answers: Outputs) -> Mapping[str, Array]:
        """Return the columns of the region, {} without a limit; for predictions.csv and predict."""
        if not target.region_names or np.isinf(self.miss).all():
            return {}
        return target.region_columns(self.region(target, answers))

    def doubts(
        self, target: Target, answers: Outputs, x: Floats, noun: str = "images"
    ) -> tuple[str, ...]:
        """Return why each row is not answered, or "" if it is.

        answers: after scaling. noun: of the examples, for messages.
        """
        return self.doubts_at(target, answers, self.distance(x), noun)

    def doubts_at(
        self, target: Target, answers: Outputs, distance: NDArray[np.float64], noun: str
    ) -> tuple[str, ...]:
        """Return what `doubts` does, from each row's `distance` (N,)."""
        sure = target.confidence(answers)
        best = np.ones(len(distance)) if sure is None else sure
        rows = zip(best.tolist(), distance.tolist(), strict=True)
        return tuple(self._doubt(own, away, noun) for own, away in rows)

    def distance(self, x: Floats) -> NDArray[np.float64]:  # (N, D) -> (N,)
        return self.seen.distance(x) if self.seen is not None else np.zeros(len(x))

    def settings(self) -> dict[str, float | None]:
        """Return the limits; None for an infinite one, since JSON has no infinity."""
        several = isinstance(self.miss, np.ndarray)
        numbers = {n: math.inf if several and n == "miss" else getattr(self, n) for n in NUMBERS}
        plain = {name: float(n) if math.isfinite(n) else None for name, n in numbers.items()}
        return plain | ({"alpha": self.alpha} if self.alpha else {})

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the features of training rows as "seen", and a limit (L,) as "miss"."""
        tensors = {} if self.seen is None else {"seen": self.seen.rows}
        return tensors | ({"miss": self.miss} if isinstance(self.miss, np.ndarray) else {})

    def _doubt(self, best: float, away: float, noun: str) -> str:
        if away > self.far:
            return f"unlike the training {noun} (distance {away:.2f}, limit {self.far:.2f})"
        if best < self.confidence:
            return f"not sure enough (score {best:.2f}, limit {self.confidence:.2f})"
        return ""


NUMBERS = ("temperature", "confidence", "miss", "far")
RANGES = {  # of limits in a file
    "temperature": (0.0, 1e6),
    "confidence": (0.0, 1.0),
    "miss": (-1e300, 1e300),
    "far": (0.0, 1e6),
    "alpha": (0.0, 1.0),
}
TYPES = {"seen": np.dtype(np.float16), "miss": np.dtype(np.float64)}


def load_limits(settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Limits:
    """Rebuild limits from `settings` and `tensors`; raises Mismatch for anything else."""
    if set(settings) - {"alpha"} != set(NUMBERS) or set(tensors) - {"seen", "miss"}:
        raise Mismatch(
            f"A model's limits are {', '.join(NUMBERS)}; got {sorted(settings)}, {sorted(tensors)}."
        )
    for name, (low, high) in RANGES.items():
        if (n := settings.get(name)) is not None:
            number(n, name, low, high)
    for name, array in tensors.items():
        if array.dtype != TYPES[name]:
            raise Mismatch(f"limits.{name} is {TYPES[name]}; got {array.dtype}.")
    numbers: dict[str, Any] = {
        name: math.inf if n is None else float(n) for name, n in settings.items()
    }
    if "miss" in tensors:
        numbers["miss"] = tensors["miss"].astype(np.float64)
    rows = tensors.get("seen")
    if rows is not None and rows.size and not float(np.abs(rows).max()) <= 1.01:
        raise Mismatch("Features that were seen are rows of length 1; got longer ones.")
    return Limits(**numbers, seen=None if rows is None else Seen(rows.astype(np.float16)))


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows that the model, or its folds' heads, answered without having learned from them.

    answers: not temperature-scaled. y: known labels. x: features (N, D). own: (N, M), which of the
    rows that are seen are the row itself or of its group.
    """

    target: Target
    answers: Outputs
    y: Labels
    x: NDArray[np.float32]
    own: NDArray[np.bool_] | None = None


def find_limits(plan: TrustPlan, val: Judged, seen: Seen | None) -> Limits:
    """Find the limits of the plan on such rows. seen: M training rows, for distances."""
    target = val.target
    plan.check_supports(target)
    temperature = target.temperature(val.answers, val.y) if plan.calibrate else 1.0
    answers = target.scaled(val.answers, temperature)
    asked = bool(plan.false_alarms) and seen is not None and len(val.y) > 0
    away = math.inf
    if seen is not None and asked:
        away = upper_limit(seen.distance(val.x, val.own), plan.false_alarms_of(len(val.y)))
    unlike = target.conformity(answers, val.y)
    return Limits(
        temperature=temperature,
        confidence=_confidence(plan, val, answers),
        miss=math.inf if unlike is None else _miss(unlike, plan.alpha),
        far=away,
        seen=seen if asked else None,
        alpha=plan.alpha if target.region_names else 0.0,
    )


def _miss(unlike: NDArray[np.float64], alpha: float) -> float | NDArray[np.float64]:
    """Return the limit of conformal scores (N,), or one limit per column of scores (N, L).

    One infinite limit, as of one column, if every column has too few rows.
    """
    if unlike.ndim == 1:
        return upper_limit(unlike, alpha)
    columns = (column[~np.isnan(column)] for column in unlike.T)
    limits = np.array([upper_limit(column, alpha) for column in columns])
    return math.inf if np.isinf(limits).all() else limits


def _confidence(plan: TrustPlan, val: Judged, answers: Outputs) -> float:
    sure = val.target.confidence(answers)
    if sure is None and (plan.precision or plan.coverage):
        raise SpecError(
            f"A threshold of confidence is for answers that say how sure they are, and those "
            f"of the target {val.target.kind!r} do not. Leave precision and coverage out."
        )
    if sure is not None and plan.precision:
        right = val.target.row_scores(answers, val.y) == 1
        return precision_limit(sure, right, plan.precision)
    if sure is not None and plan.coverage and len(sure):
        return float(np.quantile(sure, 1 - plan.coverage, method="lower"))
    return 0.0


def precision_limit(best: Floats, right: NDArray[np.bool_], wanted: float) -> float:
    """Return the lowest score from which on the wanted share of answers is right; 0 if none.

    best: (N,) the score of each answer. The lower bound of Wilson's interval for the share must
    reach `wanted`: the best of many thresholds looks better than it is.
    """
    order, n = np.argsort(-best, kind="stable"), np.arange(1, len(best) + 1)
    share = np.cumsum(right[order]) / n
    bound, _ = wilson_bounds(share, n, Z)
    last = np.append(best[order][1:] < best[order][:-1], True)  # equal scores stay together
    good = np.flatnonzero((bound >= wanted) & last)
    return float(best[order][good[-1]]) if len(good) else 0.0


def upper_limit(values: NDArray[np.float64], share: float) -> float:
    """Return a limit that a new value exceeds with probability `share` at most; inf if n is too
    small.

    The ⌈(n + 1)(1 - share)⌉-th smallest of n exchangeable values.

    >>> upper_limit(np.arange(1.0, 100.0), 0.1)
    90.0
    """
    rank = math.ceil((len(values) + 1) * (1 - share) - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf
