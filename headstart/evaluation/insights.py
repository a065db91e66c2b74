"""The findings of a run beside its metrics: the content of insights.json."""

from dataclasses import dataclass
from typing import Any

from headstart.base.values import Record
from headstart.evaluation.embedding_map import EmbeddingMap
from headstart.evaluation.judged import Doubts, Gain, TemperatureScaling
from headstart.evaluation.learning_curve import LearningCurve
from headstart.evaluation.missing_labels import MissingLabels
from headstart.evaluation.mistakes import Mistakes, Outlier, RowErrors
from headstart.evaluation.precision_curves import PrecisionCurve
from headstart.evaluation.score_curve import ScoreCurve
from headstart.targets.target import Chart

NOT_OF_CLASSES = ("charts", "score_curve", "errors", "precision_curves", "missing_labels")


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
    score_curve: ScoreCurve | None = None
    errors: RowErrors | None = None
    precision_curves: tuple[PrecisionCurve, ...] = ()
    missing_labels: MissingLabels | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the plain dict of insights.json, without what targets of classes do not have."""
        without = {name for name in NOT_OF_CLASSES if not getattr(self, name)}
        return {k: v for k, v in super().to_plain().items() if k not in without}
