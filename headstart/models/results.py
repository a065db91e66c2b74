"""The results of fitting: a model with its history, and the candidates of two phases."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.splits import Splits
from headstart.features.extract import FeatureTable
from headstart.models.model import Model
from headstart.targets.predictions import Predictions
from headstart.training.history import Count, Epoch, History


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers, not temperature-scaled, to rows by models that did not learn from them.

    predictions: by a model on validation, or by the folds' heads on all rows outside the test part.
    x: (N, D) features of the rows. groups: (N,) rows with the same name belong together.
    """

    predictions: Predictions
    x: NDArray[np.float32]
    groups: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted model, and how it was fitted.

    chosen: settings chosen on validation or by folds. path: all settings tried. history: one line
    per epoch. count: the number of trained parameters. splits: the data; it was fitted on `train`
    and chosen on `val`, while `test` is unused. held_out: out-of-fold answers, if its settings were
    chosen by folds. before: the result that was chosen, if `model` is its refit on `train` and
    `val` together. members: the results of fine-tuning that `model` is the average of.
    """

    model: Model
    chosen: dict[str, Any]
    path: tuple[dict[str, Any], ...]
    history: tuple[Epoch, ...]
    count: Count
    splits: Splits | None = None
    held_out: HeldOut | None = None
    before: "FitResult | None" = None
    members: "tuple[FitResult, ...]" = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", History(self.history))

    def __repr__(self) -> str:
        trained = f"{self.count.trainable.parameters:,} trained"
        return f"FitResult({self.model!r}, {self.history!r}, {trained})"

    def predict(self, data: Any, **how: Any) -> Predictions:
        """Predict every readable row; see `Model.predict`."""
        return self.model.predict(data, **how)


@dataclass(frozen=True, eq=False)
class Candidate:
    """The result of a phase, and its features of the validation rows."""

    fitted: FitResult
    table: FeatureTable

    @cached_property
    def val(self) -> Predictions:
        return self.fitted.model.predict_table(self.table)

    @property
    def merit(self) -> tuple[float, ...]:
        """The target's sort key of models on validation; 0 without validation rows."""
        if not len(self.val):
            return (0.0,)
        return self.val.target.merit(self.val.outputs, self.val.labels)


def decided(fitted: FitResult, table: FeatureTable) -> Candidate:
    """Return a candidate whose target's decisions, such as thresholds, are chosen on `table`."""
    model, target = fitted.model, fitted.model.target
    if target.decides and len(table):
        target = target.decided(target.activate(model.head.raw(table.x)), table.y)
    return Candidate(replace(fitted, model=replace(model, target=target)), table)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The results of the phases by name, in the order in which they were made.

    kept: the name of the chosen one. seconds: durations of parts of the work. extracted: the
    feature tables extracted on the way, whose counts a run reports. refit: the chosen one fitted
    again on training and validation rows together; None if that was not asked for.
    """

    made: Mapping[str, Candidate]
    kept: str
    seconds: Mapping[str, float]
    extracted: tuple[FeatureTable, ...] = ()
    refit: FitResult | None = None

    @property
    def history(self) -> tuple[Epoch, ...]:
        """The epochs of all phases in turn."""
        return tuple(line for c in self.made.values() for line in c.fitted.history)

    @property
    def result(self) -> FitResult:
        """What is shipped, the kept result or its refit, with the history of all phases."""
        return replace(self.refit or self.made[self.kept].fitted, history=self.history)


def best_of(made: Mapping[str, Candidate]) -> str:
    """Return the name of the best on validation; ties go to the simpler model, made first."""
    return max(made, key=lambda name: made[name].merit)


def worth_keeping(made: Mapping[str, Candidate]) -> str:
    """Return the name of the best on validation, or of the simplest, made first, if the best gains
    no more than one standard error over it.

    The error is that of the mean paired difference of the rows' scores, which one row does not
    have: few rows of validation can't tell two models apart, and then the simpler one is right as
    often, faster, and mostly better on new rows (the one-standard-error rule of Breiman et al.
    1984, Classification and Regression Trees).
    """
    simplest, best = next(iter(made)), best_of(made)
    one, other = made[best].val, made[simplest].val
    if best == simplest or not len(one):
        return best
    scores = (p.target.row_scores(p.outputs, p.labels) for p in (one, other))
    won = np.subtract(*scores)[one.known]
    if len(won) < 2:
        return simplest
    error = won.std(ddof=1) / np.sqrt(len(won))
    return best if won.mean() > error * (1 + 1e-9) else simplest  # one row alone is one error
