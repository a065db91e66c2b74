"""The results of fitting: a model with its history, and the candidates of two phases."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from headstart.data.splits import Splits
from headstart.features.extract import FeatureTable
from headstart.models.model import Model
from headstart.targets.predictions import Predictions
from headstart.training.history import Count, Epoch, History


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted model, and how it was fitted.

    chosen: settings chosen on validation. path: all settings tried. history: one line per epoch.
    count: the number of trained parameters. splits: the data; it was fitted on `train` and chosen
    on `val`, while `test` is unused.
    """

    model: Model
    chosen: dict[str, Any]
    path: tuple[dict[str, Any], ...]
    history: tuple[Epoch, ...]
    count: Count
    splits: Splits | None = None

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


@dataclass(frozen=True, eq=False)
class Candidates:
    """The results of the phases by name, in the order in which they were made.

    kept: the name of the chosen one. seconds: durations of parts of the work. extracted: the
    feature tables extracted on the way, whose counts a run reports.
    """

    made: Mapping[str, Candidate]
    kept: str
    seconds: Mapping[str, float]
    extracted: tuple[FeatureTable, ...] = ()

    @property
    def history(self) -> tuple[Epoch, ...]:
        """The epochs of all phases in turn."""
        return tuple(line for c in self.made.values() for line in c.fitted.history)

    @property
    def result(self) -> FitResult:
        """The kept result, with the history of all phases."""
        return replace(self.made[self.kept].fitted, history=self.history)


def best_of(made: Mapping[str, Candidate]) -> str:
    """Return the name of the best on validation; ties go to the simpler model, made first."""
    return max(made, key=lambda name: made[name].merit)
