"""Cross-validate a solved head: its answers to each row by heads that did not have it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.heads.fit import FEWEST, TRIALS, folds_of
from headstart.heads.head import FeatureRows, some_of
from headstart.heads.specs import HeadSpec
from headstart.targets.target import Outputs


@dataclass(frozen=True, eq=False)
class FoldAnswers:
    """A head's setting, and its answers in cross-validation.

    chosen: the setting of least loss, with its loss. rows: (M,) the rows that have an answer.
    answers: to these rows.
    """

    chosen: dict[str, Any]
    rows: NDArray[np.intp]
    answers: Outputs


def cross_validated(spec: HeadSpec, table: FeatureRows) -> FoldAnswers | None:
    """Choose the setting of a solved head by its out-of-fold loss, and return its answers.

    Folds keep groups together and the shares of the target's strata. The strongest regularisation
    is tried first, and ties go to it. None for too few rows, or rows of one label.
    """
    folds = folds_of(table.target.strata(table.y), table.groups)
    rows = np.flatnonzero(folds >= 0)
    values = table.target.regression(table.y[rows])
    if len(rows) < FEWEST or not (values != values[:1]).any():
        return None
    tried = dict[float, tuple[dict[str, float], dict[str, NDArray[Any]]]]()
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        for trial in TRIALS[spec.family](spec, some_of(table, ~out), table.x[out]):
            empty = {
                k: np.zeros((len(out), *a.shape[1:]), a.dtype) for k, a in trial.answers.items()
            }
            _, answers = tried.setdefault(trial.tried, (trial.settings, empty))
            for name, given in trial.answers.items():
                answers[name][out] = given
    target, y = table.target, table.y[rows]
    weights = target.row_weights(spec.class_weights, table.y)[rows]
    best: FoldAnswers | None = None
    for settings, answers in tried.values():
        own = {name: given[rows] for name, given in answers.items()}
        loss = float(np.average(target.row_losses(own, y), weights=weights))
        if best is None or loss < best.chosen[target.loss_name]:
            best = FoldAnswers({**settings, target.loss_name: loss}, rows, own)
    return best


def _like(given: NDArray[Any], rows: int) -> NDArray[Any]:
    return np.zeros((rows, *given.shape[1:]), given.dtype)
