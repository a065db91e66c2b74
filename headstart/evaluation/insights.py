"""The findings of a run beside its metrics: the content of insights.json."""

from dataclasses import dataclass
from typing import Any

from headstart.base.values import Record
from headstart.evaluation.embedding_map import EmbeddingMap
from headstart.evaluation.judged import Doubts, Gain, TemperatureScaling
from headstart.evaluation.learning_curve import LearningCurve
from headstart.evaluation.mistakes import Mistakes, Outlier
from headstart.targets.target import Chart


@dataclass(frozen=True)
class Insights(Record):
    """The findings of a run; None for one that was not computed or that the rows do not allow."""

    calibration: TemperatureScaling | None = None
    doubt: Doubts | None = None
    compared: tuple[Gain, ...] | None = None
    learning_curve: LearningCurve | None = None
    mistakes: Mistakes | None = None
    outliers: tuple[Outlier, ...] | None = None
    map: EmbeddingMap | None = None
    charts: tuple[Chart, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return the plain dict of insights.json, without charts if the target has none."""
        plain = super().to_plain()
        return plain if self.charts else {k: v for k, v in plain.items() if k != "charts"}
