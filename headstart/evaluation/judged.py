"""How far a model's scores can be trusted, on rows that chose nothing; plain numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.evaluation.comparison import mcnemar
from headstart.evaluation.evaluation import compare, wilson
from headstart.models.calibration import calibration, coverage_curve, scaled, to_plain
from headstart.models.limits import TrustPlan
from headstart.models.model import Model
from headstart.targets.predictions import Predictions


def calibration_facts(said: Predictions, temperature: float, fitted_on: int) -> Any:
    """Before and after scaling, on rows that chose nothing. said: after scaling.

    fitted_on: rows that the temperature was fitted on, 0 if nothing was scaled.
    """
    told = said.take(np.flatnonzero(said.known))
    if not len(told):
        return None
    before = scaled(told.scores, 1 / temperature)
    return {
        "temperature": temperature,
        "fitted_on": fitted_on,
        "test": {
            "before": to_plain(calibration(before, told.labels)),
            "after": to_plain(calibration(told.scores, told.labels)),
        },
        "coverage": [list(point) for point in coverage_curve(told.scores, told.labels)],
    }


def doubt_facts(model: Model, plan: TrustPlan, said: Predictions, x: NDArray[np.float32]) -> Any:
    """What the limits do to rows that chose none of them. said: after scaling. x: (N, D)."""
    known, limits = np.flatnonzero(said.known), model.limits
    if not len(known):
        return None
    told = said.take(known)
    n, sets = len(told), limits.sets(told.scores)
    held, right = sets[np.arange(n), told.labels], told.correct
    unlike = limits.distance(x[known]) > limits.far
    sure = told.scores.max(axis=1) >= limits.confidence
    settings = limits.settings()
    return {
        "conformal": {
            "alpha": plan.alpha,
            "limit": settings["miss"],
            "coverage": _share(held),
            "mean_size": float(sets.sum(axis=1).mean()),
        },
        "distance": {
            "asked": plan.false_alarms,
            "limit": settings["far"],
            "unknown": _share(unlike),
        },
        "confidence": {
            "kind": "precision" if plan.precision else "coverage",
            "asked": plan.precision or plan.coverage,
            "limit": limits.confidence or None,
            "coverage": _share(sure),
            "precision": _share(right[sure]),
        }
        if plan.precision or plan.coverage
        else None,
    }


def compared(kept: str, said: Mapping[str, Predictions], on: str) -> list[dict[str, Any]]:
    """How the kept model does against each other one, on the same rows."""
    own, found = said[kept], list[dict[str, Any]]()
    for name, other in said.items():
        if name != kept and own.known.any():
            gain, p = compare(own, other).to_plain(), mcnemar(own, other)
            found.append({"a": kept, "b": name, "on": on, "gain": gain, "p": p})
    return found


def _share(hits: NDArray[np.bool_]) -> dict[str, float | None] | None:
    estimate = wilson(int(hits.sum()), len(hits))
    return None if estimate is None else estimate.to_plain()
