"""A model: a backbone with a head, and its predictions."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import PATH, Input
from headstart.base.errors import DataError, Mismatch
from headstart.base.listener import Listener
from headstart.base.paths import user_path
from headstart.base.runtime import Runtime
from headstart.base.store import USUAL, Store
from headstart.base.tables import MissingColumn
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.index_file import facts_of
from headstart.data.readers import MANIFESTS
from headstart.features.extract import FeatureTable, extract
from headstart.heads.head import Floats, Head
from headstart.heads.specs import HEAD_LR
from headstart.modalities.reading import find, read_for
from headstart.models.limits import Limits
from headstart.targets.classes import class_names
from headstart.targets.predictions import Predictions
from headstart.targets.target import Outputs, Target

FEW = 6  # classes that a model's text names


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A backbone with a head, which predicts.

    target: what is predicted, with facts of the training rows such as the most frequent
    class. limits: from `with_limits`. head_lr, epochs: learning rate and number of epochs of its
    head, for later fine-tuning. refitted: whether it has learned from the rows of validation.
    Bundles do not save these three.

    >>> model = hs.load("runs/flowers")  # doctest: +SKIP
    >>> model.classes, model.predict("new/")  # doctest: +SKIP
    """

    backbone: Backbone | Frozen
    head: Head
    target: Target
    limits: Limits = Limits()
    head_lr: float = HEAD_LR
    epochs: int = 0
    refitted: bool = False

    def __post_init__(self) -> None:
        if not self.target.accepts(self.head.outputs):
            raise Mismatch(
                f"A model's head gives what its target reads; got {self.head.outputs} outputs, "
                f"and {self.target.outputs} are read."
            )
        seen = self.limits.seen
        if seen is not None and seen.rows.shape[1] != self.head.features:
            raise Mismatch(
                f"What a model has seen are rows of the features that its head reads; got "
                f"{seen.rows.shape[1]} and {self.head.features} features."
            )
        miss = self.limits.miss
        if isinstance(miss, np.ndarray) and miss.shape != (self.target.outputs,):
            raise Mismatch(
                f"A model's limits are one for each of {self.target.outputs} labels; got "
                f"{miss.shape}."
            )
        if self.head.features != self.backbone.card.dim:
            raise Mismatch(
                f"A model's head reads what its backbone gives; got {self.head.features} and "
                f"{self.backbone.card.dim} features."
            )

    def __repr__(self) -> str:
        what = ", ".join(self.classes[:FEW]) + (", …" if len(self.classes) > FEW else "")
        return f"Model({self.backbone.card.name}, {self.head.kind}: {what or self.target.kind})"

    def predict(
        self,
        data: Any,
        *,
        store: Store | None = USUAL,
        runtime: Runtime | None = None,
        listener: Listener | None = None,
    ) -> Predictions:
        """Predict every readable example; with `store=None` no features are cached.

        data: a Dataset, a path, a folder, an example in memory (such as a PIL image or an array
        (H, W, 3) uint8), or a list of them. `left_out` of the result names what can't be read;
        `doubts` say why a row is unknown. Raises DataError if there is nothing to predict.

        >>> model.predict("new/").to_frame()  # doctest: +SKIP
        """
        rows, left_out = _examples(data, self.backbone.card.input, self.target)
        table = extract(self.backbone, rows, store=store, runtime=runtime, listener=listener)
        if not len(table) and not isinstance(data, Dataset):
            first = f"{table.left_out[0].path}: {table.left_out[0].reason}"
            raise DataError(
                f"None of {len(rows):,} {self.backbone.card.input.noun} can be read ({first})."
            )
        found = self.predict_table(table)
        lost = (*left_out, *table.left_out)
        return replace(found, doubts=self.doubts(found, table), left_out=lost)

    def logits(self, data: Any, **how: Any) -> NDArray[np.float64]:
        """Return (N, C), the head's output before softmax or scaling, for every readable example.

        data, how: as for `predict`.
        """
        rows, _ = _examples(data, self.backbone.card.input, self.target)
        return self.head.raw(extract(self.backbone, rows, **{"store": USUAL, **how}).x)

    def predict_table(self, table: FeatureTable) -> Predictions:
        """Return predictions from features; labels that the target does not have become unknown."""
        dim = self.backbone.card.dim
        if table.x.shape[1] != dim:
            raise Mismatch(
                f"This model reads {dim} features a row but was given {table.x.shape[1]}. "
                f"Were they extracted with another backbone?"
            )
        labels = self.target.translate(table.y, table.target)
        answers = self.answers(table.x)
        region = self.limits.columns(self.target, answers)
        return Predictions(table.ids, answers, labels, self.target, region=region)

    def answers(self, x: Floats) -> Outputs:
        """Return the target's answers for features (N, D), scaled by the limits' temperature."""
        answers = self.target.activate(self.head.raw(x))
        return self.target.scaled(answers, self.limits.temperature)

    @property
    def classes(self) -> tuple[str, ...]:
        return class_names(self.target)

    def doubts(self, predictions: Predictions, table: FeatureTable) -> tuple[str, ...]:
        """Return why each row of `predict_table(table)` is not answered, or "" if it is."""
        return self.limits.doubts(
            self.target, predictions.outputs, table.x, self.backbone.card.input.noun
        )


def _examples(data: Any, input: Input[Any], target: Target) -> tuple[Dataset, tuple[LeftOut, ...]]:
    """Return a dataset as it is, a manifest's rows, and other examples as rows without labels."""
    if isinstance(data, Dataset):
        return data, ()
    if isinstance(data, str | Path) and Path(data).suffix.lower() in MANIFESTS:
        rows = _labelled(user_path(data), input, target)
        if rows is not None:
            return rows, rows.left_out
    return find(data, input=input, repeated=True)


def _labelled(path: Path, input: Input[Any], target: Target) -> Dataset | None:
    """Return the rows of a manifest; None for one without labels that `find` reads, an index or a
    table with the examples themselves. An index has no boxes."""
    try:
        return read_for(path, target, input=input)
    except DataError as error:
        without = isinstance(error, MissingColumn) or bool(target.listing)
        if without and (input.column != PATH or facts_of(path)):
            return None
        raise


def classify(
    backbone: Backbone | Frozen, files: Dataset, *, runtime: Runtime | None = None
) -> tuple[Predictions, tuple[LeftOut, ...]]:
    """Predict the source classes of a pretrained network; also return the unreadable files.

    Raises SpecError if the backbone has no source head.
    """
    source = backbone.source()
    table = extract(backbone, files, runtime=runtime)
    unknown = np.full(len(table), -1, dtype=np.int64)
    predictions = Predictions(
        table.ids, source.scores(table.x).astype(np.float32), unknown, backbone.card.source_classes
    )
    return predictions, table.left_out
