"""What a model predicts for one example, exactly as `predict` and `classify` do for its file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Input
from headstart.base.runtime import ON_CPU
from headstart.features.engines import Engine, Features, open_engine
from headstart.features.extract import FeatureTable
from headstart.models.limits import Limits
from headstart.models.model import Model

Scored = Callable[[Features], tuple[NDArray[np.floating], str]]  # (1, D) -> (C,), doubt


@dataclass(frozen=True, eq=False)
class Answer:
    """name: of the class with the highest score. doubt: why the model does not call it so but
    unknown, in a phrase; "" where it does."""

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
    """Runs what a model runs where it is used, ONNX Runtime on a CPU, and not PyTorch.

    limits: what the model knows of its doubts; none of a pretrained network as it is.
    """

    input: Input[Any]
    engine: Engine
    scored: Scored
    classes: tuple[str, ...]
    limits: Limits = Limits()

    def of_example(self, raw: Any) -> Answer:
        """Of an example as it is read: of a picture's pixels (H, W, 3)."""
        x, *_ = self.engine(self.input.prepare(raw))
        scores, doubt = self.scored(x)
        return Answer(self.classes[scores.argmax()], scores, doubt)

    def of_file(self, data: bytes) -> Answer:
        """Of a file with these bytes; raises DataError if it can't be read."""
        return self.of_example(self.input.read(data))


def answerer(asked: Model | Backbone) -> Answerer:
    """Of a trained model, or of a pretrained network among its source classes.

    Raises SpecError for a network that came without the layer that names them.
    """
    backbone: Backbone | Frozen
    if isinstance(asked, Model):
        backbone, limits = asked.backbone, asked.limits
        classes, scored = asked.classes, _by_model(asked)
    else:
        backbone, limits = asked, Limits()
        classes, scored = asked.card.source_classes, _by_source(asked)
    engine = open_engine(backbone, ON_CPU.resolved())
    return Answerer(backbone.card.input, engine, scored, classes, limits)


def _by_model(model: Model) -> Scored:
    def scored(x: Features) -> tuple[NDArray[np.floating], str]:
        table = FeatureTable(("",), x, np.zeros(1, np.int64), model.target, made_by="")
        said = model.predict_table(table)
        return said.scores[0], model.doubts(said, table)[0]

    return scored


def _by_source(backbone: Backbone) -> Scored:
    source = backbone.source()
    return lambda x: (source.scores(x)[0], "")
