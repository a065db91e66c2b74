"""What fitting gives: a model with its history, and the candidates of two phases."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from headstart.data.dataset import Dataset
from headstart.features.extract import FeatureTable
from headstart.models.model import Model
from headstart.targets.predictions import Predictions
from headstart.training.history import Epoch
from headstart.training.network import Count


@dataclass(frozen=True, eq=False)
class FitResult:
    """A model, and how it was fitted; it predicts.

    chosen: what was chosen on validation. path: what else was tried there. history: one line per
    epoch. count: the numbers that were trained.
    """

    model: Model
    chosen: dict[str, Any]
    path: tuple[dict[str, Any], ...]
    history: tuple[Epoch, ...]
    count: Count

    def predict(self, data: Dataset, **how: Any) -> Predictions:
        """Scores for every readable row, as `Model.predict` gives them."""
        return self.model.predict(data, **how)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that a phase made, and its features of the validation rows."""

    fitted: FitResult
    table: FeatureTable

    @cached_property
    def val(self) -> Predictions:
        """Its predictions on validation."""
        return self.fitted.model.predict_table(self.table)

    @property
    def merit(self) -> tuple[float, ...]:
        """What the target compares models by; 0 where validation has no rows."""
        if not len(self.val):
            return (0.0,)
        return self.val.target.merit(self.val.outputs, self.val.labels)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The models of the phases, by name, in the order in which they were made.

    kept: the name of the one to use. seconds: that parts of the work took. extracted: the tables
    of features that were extracted on the way, by whose counts a run tells what was computed.
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
        """The model that is kept, with the history of all phases."""
        return replace(self.made[self.kept].fitted, history=self.history)


def best_of(made: Mapping[str, Candidate]) -> str:
    """The name of the best on validation; ties go to the simpler model, which was made first."""
    return max(made, key=lambda name: made[name].merit)
