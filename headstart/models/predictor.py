"""Predict single examples, with the same results as `predict` and `classify` for files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Input
from headstart.base.runtime import ON_CPU
from headstart.features.engine_table import FrozenPart, open_engine
from headstart.features.engines import Engine, Features, features_of
from headstart.features.extract import FeatureTable
from headstart.models.limits import Limits
from headstart.models.model import Model

Scored = Callable[[Features], tuple[NDArray[np.floating], str]]  # (1, D) -> (C,), doubt


@dataclass(frozen=True, eq=False)
class Answer:
    """name: the class with the highest score. doubt: why the model answers unknown instead, or
    ""."""

    name: str
    scores: NDArray[np.floating]  # (C,)
    doubt: str = ""

    @property
    def label(self) -> int:
        return int(self.scores.argmax())

    @property
    def score(self) -> float:
        return float(self.scores.max())


@dataclass(frozen=True, eq=False)
class Answerer:
    """Predicts with ONNX Runtime on a CPU, as a deployed model does, without PyTorch.

    limits: those of the model; none for a pretrained network.
    """

    input: Input[Any]
    engine: Engine
    scored: Scored
    classes: tuple[str, ...]
    limits: Limits = Limits()

    def of_example(self, raw: Any) -> Answer:
        """Predict a decoded example, such as an image's pixels (H, W, 3)."""
        scores, doubt = self.scored(features_of(self.engine, self.input, self.input.prepare(raw)))
        return Answer(self.classes[scores.argmax()], scores, doubt)

    def of_file(self, data: bytes) -> Answer:
        """Predict a file with these bytes; raises DataError if it can't be read."""
        return self.of_example(self.input.read(data))


def answerer(asked: Model | Backbone | Frozen) -> Answerer:
    """Return the answerer of a model, or of a pretrained network for its source classes.

    Raises SpecError for a network without its source head.
    """
    backbone: Backbone | Frozen
    if isinstance(asked, Model):
        backbone, limits = asked.backbone, asked.limits
        classes, scored = asked.classes, _by_model(asked)
    else:
        backbone, limits = asked, Limits()
        classes, scored = asked.card.source_classes, _by_source(asked)
    engine = open_engine(FrozenPart(backbone, ON_CPU.resolved()))
    return Answerer(backbone.card.input, engine, scored, classes, limits)


def _by_model(model: Model) -> Scored:
    def scored(x: Features) -> tuple[NDArray[np.floating], str]:
        table = FeatureTable(("",), x, np.zeros(1, np.int64), model.target, made_by="")
        predictions = model.predict_table(table)
        return predictions.scores[0], model.doubts(predictions, table)[0]

    return scored


def _by_source(backbone: Backbone | Frozen) -> Scored:
    source = backbone.source()
    return lambda x: (source.scores(x)[0], "")
