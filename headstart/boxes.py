"""What exists for models of boxes alone: explanations of their detections."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.inputs import Input
from headstart.base.errors import HeadstartError, SpecError
from headstart.base.listener import Listener
from headstart.data.dataset import Dataset, LeftOut
from headstart.explainer import BEST, AnyModel, Asked, Explainer, FileWork
from headstart.explaining.boxes.explaining import KnownBoxes, class_number, try_explain
from headstart.explaining.boxes.explanation import BoxExplanation
from headstart.explaining.boxes.opened import OpenedDetector
from headstart.heads.head import Floats
from headstart.in_python import run_folder
from headstart.models.bundle import load_bundle
from headstart.models.model import Model
from headstart.models.results import FitResult
from headstart.runs.recorded import part_of, recorded_data

KNOWN = 400  # training pictures whose boxes are compared: each is run once


@dataclass(frozen=True, eq=False)
class BoxExplainer(Explainer[BoxExplanation]):
    """detector: the opened model."""

    detector: OpenedDetector
    suffix: ClassVar[str] = ".png"
    noun: ClassVar[str] = "pictures"

    @classmethod
    def open(cls, given: AnyModel, asked: Asked, listener: Listener, name: str = "") -> Self:
        if isinstance(given, Backbone):
            raise SpecError(f"Name a run or bundle of boxes in place of {given.card.name}.")
        if isinstance(given, FitResult):
            given = given.model
        if isinstance(given, Model):
            opened = OpenedDetector.of(given)
            return cls(given, None, name or "the model", asked, listener, opened)
        folder = run_folder(given)
        run = folder if (folder / "model").is_dir() else None
        model = load_bundle(folder / "model" if run else folder).model
        opened = OpenedDetector.of(model)
        return cls(model, run, name or str(folder), asked, listener, opened)

    @property
    def input(self) -> Input[Any]:
        return self.detector.input

    def check(self) -> None:
        if self.asked.method != BEST:
            raise SpecError(
                "--method chooses how maps of whole pictures are made; a detection is explained by "
                "occlusion alone, so leave it out."
            )
        if self.asked.class_name is not None:
            class_number(self.detector, self.asked.class_name)

    def explained(self, rows: Dataset) -> Iterator[BoxExplanation | LeftOut]:
        for id, source in zip(rows.ids, rows.sources, strict=True):
            yield try_explain(self.detector, id, source, self.asked.class_name)

    def of_run(self, out: Path | None, *, own: bool = False) -> FileWork[BoxExplanation]:
        raise SpecError(
            f"Of a model of boxes, one detection is explained in each picture that is named: name "
            f"FILE after {self.name}."
        )

    def rows_explained(
        self, run: Path, model: Model, sources: Mapping[str, Any]
    ) -> tuple[int, Iterator[BoxExplanation | LeftOut]]:
        raise SpecError("Detections are explained in pictures that are named.")

    def features(self, explanation: BoxExplanation) -> Floats:
        assert explanation.features is not None
        return explanation.features[None]

    def _similar(self) -> Callable[[BoxExplanation], tuple[Any, ...]]:
        """Return a function that finds the training boxes most alike; see `Explainer._similar`."""
        if self.run is None or not self.detector.mapped:
            self._leave_out_nearest("only a run folder names its training boxes")
            return lambda explanation: ()
        try:
            rows = part_of(self.run, recorded_data(self.run, self.asked.data), "train")
        except HeadstartError as error:
            if self.asked.data is not None:
                raise
            self._leave_out_nearest(str(error))
            return lambda explanation: ()
        if len(rows) > KNOWN:
            self.listener.stage("nearest", f"among {KNOWN:,} of {len(rows):,} training pictures")
            rows = rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[:KNOWN]))

        @cache
        def known() -> KnownBoxes | None:
            try:
                return KnownBoxes.of(
                    self.detector, rows, partial(self.listener.progress, "nearest")
                )
            except HeadstartError as error:
                self._leave_out_nearest(str(error))
                return None

        def similar(explanation: BoxExplanation) -> tuple[Any, ...]:
            table = known()
            return () if table is None else table.nearest(self.features(explanation)[0])

        return similar
