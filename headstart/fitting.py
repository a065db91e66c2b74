"""From a recipe, a backbone and split data to a model."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.registry import load_backbone
from headstart.data.preprocess import Fit
from headstart.data.splits import Splits
from headstart.errors import SpecError
from headstart.features import FeatureTable, Watch, extract
from headstart.heads.fit import fit_head
from headstart.heads.head import HeadSpec
from headstart.model import Model
from headstart.runtime import Runtime
from headstart.store import USUAL, Store


@dataclass(frozen=True)
class FeatureExtraction(HeadSpec):
    """A head on a frozen backbone: every choice that can change the result.

    fit: how a picture becomes the backbone's square; card is as the backbone was trained. Where
        what matters sits at the edges, don't crop.
    draft: large JPEGs may be decoded at a fraction of their size.
    """

    fit: Fit | Literal["card"] = "card"
    draft: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fit not in ("card", *get_args(Fit)):
            raise SpecError(f"fit is one of card, {', '.join(get_args(Fit))}; got {self.fit!r}.")

    def resolved(self, backbone: Backbone) -> "FeatureExtraction":
        """The same recipe with "card" replaced by what this backbone's card says."""
        return replace(self, fit=self.prepared(backbone).card.preprocess.fit)

    def prepared(self, backbone: Backbone) -> Backbone:
        """The backbone with its preprocessing as the recipe wants it."""
        own = backbone.card.preprocess
        wanted = replace(own, fit=own.fit if self.fit == "card" else self.fit, draft=self.draft)
        return replace(backbone, card=replace(backbone.card, preprocess=wanted))


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model, what was chosen on validation, and what else was tried there."""

    model: Model
    chosen: dict[str, Any]
    path: tuple[dict[str, Any], ...]


def fit(
    recipe: FeatureExtraction,
    backbone: str | Backbone,
    data: Splits,
    *,
    store: Store | None = USUAL,
    runtime: Runtime | None = None,
    watch: Watch | None = None,
) -> Model:
    """A model on `data.train`, its strength chosen on `data.val`; `data.test` is not touched."""
    loaded = load_backbone(backbone) if isinstance(backbone, str) else backbone
    prepared = recipe.prepared(loaded)
    train, val = (
        extract(prepared, part, store=store, runtime=runtime, watch=watch)
        for part in (data.train, data.val)
    )
    return fit_tables(recipe, prepared, train, val).model


def fit_tables(
    recipe: FeatureExtraction, backbone: Backbone, train: FeatureTable, val: FeatureTable
) -> Fitted:
    """The head that `recipe` asks for, on features of a backbone prepared for it."""
    fitted = fit_head(recipe, train, val)
    majority = train.classes[int(np.bincount(train.y).argmax())]
    model = Model(backbone, fitted.head, train.classes, majority)
    return Fitted(model, fitted.chosen, fitted.path)
