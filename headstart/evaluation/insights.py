"""What a run finds out beside its figures, as insights.json holds it."""

from dataclasses import dataclass

from headstart.base.values import Record
from headstart.evaluation.embedding_map import EmbeddingMap
from headstart.evaluation.judged import Doubts, Gain, TemperatureScaling
from headstart.evaluation.learning_curve import LearningCurve
from headstart.evaluation.mistakes import Mistakes, Outlier


@dataclass(frozen=True)
class Insights(Record):
    """None for what was not looked for, or could not be told from the rows there are."""

    calibration: TemperatureScaling | None = None
    doubt: Doubts | None = None
    compared: tuple[Gain, ...] | None = None
    learning_curve: LearningCurve | None = None
    mistakes: Mistakes | None = None
    outliers: tuple[Outlier, ...] | None = None
    map: EmbeddingMap | None = None
