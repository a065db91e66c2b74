"""What exists for models of texts alone: their explanations, by marked words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from headstart.backbones.backbone import Backbone
from headstart.backbones.inputs import Input
from headstart.base.errors import MissingPackage, SpecError
from headstart.base.listener import Listener

try:
    import torch  # noqa: F401  # every file below needs it
except ModuleNotFoundError as error:
    raise MissingPackage("torch", purpose="Looking into a network", extra="train") from error

from headstart.data.dataset import Dataset, LeftOut
from headstart.explainer import BEST, AnyModel, Asked, Explainer
from headstart.explaining.devices import device_of
from headstart.explaining.tokens.explaining import (
    count_of_run,
    explain_run,
    try_explain_text,
)
from headstart.explaining.tokens.explanation import TextExplanation, files_of
from headstart.explaining.tokens.text_model import TextGradModel, text_model_of
from headstart.heads.head import Floats
from headstart.in_python import run_folder
from headstart.models.bundle import load_bundle
from headstart.models.model import Model
from headstart.models.results import FitResult


@dataclass(frozen=True, eq=False)
class TextExplainer(Explainer[TextExplanation]):
    suffix: ClassVar[str] = ".html"
    noun: ClassVar[str] = "texts"

    @classmethod
    def open(cls, given: AnyModel, asked: Asked, listener: Listener, name: str = "") -> Self:
        if isinstance(given, Backbone):
            raise SpecError(
                f"A pretrained network for texts answers nothing yet; name a run or bundle in "
                f"place of {given.card.name}."
            )
        if isinstance(given, FitResult):
            given = given.model
        if isinstance(given, Model):
            return cls(given, None, name or "the model", asked, listener)
        folder = run_folder(given)
        run = folder if (folder / "model").is_dir() else None
        model = load_bundle(folder / "model" if run else folder).model
        return cls(model, run, name or str(folder), asked, listener)

    @property
    def input(self) -> Input[Any]:
        return self.opened.input

    @cached_property
    def opened(self) -> TextGradModel:
        assert self.model is not None
        return text_model_of(self.model, device_of(self.asked.device))

    def check(self) -> None:
        if self.asked.method != BEST:
            raise SpecError(
                "--method chooses how maps of pictures are made; texts have one way, so leave it "
                "out."
            )
        if (name := self.asked.class_name) is None:
            return
        if not self.opened.model.target.names_topics:
            raise SpecError(
                f"--class goes with a model of classes or labels; this one predicts "
                f"{self.opened.model.target.noun}."
            )
        self.opened.number(name)

    def files(self, file: Path) -> tuple[Path, ...]:
        return files_of(file)

    def explained(self, rows: Dataset) -> Iterator[TextExplanation | LeftOut]:
        for id, source in zip(rows.ids, rows.sources, strict=True):
            yield try_explain_text(self.opened, id, source, self.asked.class_name)

    def rows_explained(
        self, run: Path, model: Model, sources: Mapping[str, Any]
    ) -> tuple[int, Iterator[TextExplanation | LeftOut]]:
        count = count_of_run(run, model, sources)
        return count, explain_run(run, model, sources, opened=self.opened)

    def features(self, explanation: TextExplanation) -> Floats:
        return explanation.features[None]
