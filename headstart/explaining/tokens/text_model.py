"""A model of texts in two parts, of which gradients go through the upper one.

Below is the embedding layer: from a window's tokens to hidden states. Above are the other layers,
the pooling of the windows and the head.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones.frozen import Frozen
from headstart.base.errors import SpecError, UnknownName
from headstart.base.runtime import keep_memory
from headstart.explaining.devices import on_device
from headstart.heads.head import Floats, TunableHead
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import MlpHead
from headstart.modalities.sources import reopened
from headstart.modalities.text.inputs import TextInput
from headstart.models.model import Model
from headstart.targets.predictions import joined_names
from headstart.training.network import head_module

HEADS = (LinearHead.kind, MlpHead.kind)
FIRST = "embeddings"  # the block with the embeddings, unless the module names another
AT_ONCE = 16  # windows that the network reads at once
POSITIONS = 4096  # tokens that it reads at once, of several versions of a text with few windows


@dataclass(frozen=True, eq=False)
class TextPlaces:
    """A text as the network reads it, with the place of each token.

    ids, mask: (P, L), one row per window. spans: (P, L, 2), the characters of each token, -1 of
    special ones. weights: (P,), of the windows in the features; their sum is 1.
    """

    text: str
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    spans: NDArray[np.int64]
    weights: NDArray[np.float64]

    @property
    def own(self) -> NDArray[np.bool_]:
        """(P, L) whether a token is of the text: neither special nor filled up."""
        return self.spans[..., 0] >= 0


@dataclass(frozen=True, eq=False)
class TextGradModel:
    """lower: ids, mask (P, L) -> hidden (P, L, H). upper: hidden, mask -> features (P, D).
    head: (N, D) -> raw outputs (N, K). device: where all three are; what comes in and goes out as
    an array is on the CPU."""

    model: Model
    input: TextInput
    lower: nn.Module
    upper: nn.Module
    head: nn.Module
    device: str = "cpu"

    @property
    def topics(self) -> tuple[str, ...]:
        return self.model.target.topics()

    def number(self, name: str) -> int:
        """Return the number of a class or label; raises UnknownName with the nearest names."""
        if name not in self.topics:
            raise UnknownName("class of this model", name, self.topics)
        return self.topics.index(name)

    def places(self, text: str) -> TextPlaces:
        batch = self.input.prepare(text)
        weights = self.input.part_weights(batch)
        spans = self.input.spans(text)
        return TextPlaces(text, batch["ids"], batch["mask"], spans, weights / weights.sum())

    def hidden(self, places: TextPlaces, part: slice) -> tuple[Tensor, Tensor]:
        """Return the hidden states (P, L, H) of some windows, and those with all words hidden.

        A hidden token is the mask token, or zeros for a network that was trained without one.
        """
        ids, mask, own = places.ids[part], places.mask[part], places.own[part]
        there = self._lower(ids, mask)
        if (neutral := self.input.neutral) is not None:
            return there, self._lower(np.where(own, neutral, ids), mask)
        return there, there.masked_fill(self._here(own)[..., None], 0.0)

    def _lower(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Tensor:
        found: Tensor = self.lower(self._here(ids), self._here(mask))[0]
        return found

    def _here(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def weights(self, places: TextPlaces) -> Tensor:  # (P,)
        """Return the shares of the windows in the features, for gradients."""
        return self._here(places.weights).float()

    def above(self, hidden: Tensor, mask: NDArray[np.int64]) -> Tensor:  # (P, L, H) -> (P, D)
        found: Tensor = self.upper(hidden, self._here(mask))
        return found

    def features(self, places: TextPlaces, gone: NDArray[np.bool_] | None = None) -> Floats:
        """Return the features (1, D) of a text without the tokens of `gone` (P, L)."""
        gone = np.zeros(places.ids.shape, bool) if gone is None else gone
        found = list[Tensor]()
        with torch.inference_mode():
            for part in parts(len(places.ids)):
                x, without = self.hidden(places, part)
                x = torch.where(self._here(gone[part])[..., None], without, x)
                found.append(self.above(x, places.mask[part]))
        return self._pooled(places, torch.cat(found)[None])

    def features_without(self, places: TextPlaces, gone: NDArray[np.bool_]) -> Floats:
        """Return the features (V, D) of V versions of a text, each without tokens of `gone`
        (V, P, L); several versions are read at once if the text has few windows."""
        few = versions_at_once(places)
        if not few:
            return np.concatenate([self.features(places, version) for version in gone])
        found = list[Floats]()
        with torch.inference_mode():
            there, without = self.hidden(places, slice(None))
            for some in parts(len(gone), few):
                versions = torch.where(self._here(gone[some])[..., None], without, there)
                mask = np.tile(places.mask, (len(versions), 1))
                x = self.above(versions.flatten(0, 1), mask)
                found.append(self._pooled(places, x.unflatten(0, (len(versions), -1))))
        return np.concatenate(found)

    def _pooled(self, places: TextPlaces, x: Tensor) -> Floats:  # (V, P, D) -> (V, D)
        own = x.cpu().double().numpy()
        return np.asarray(np.einsum("p,vpd->vd", places.weights, own), np.float32)

    def degrees(self, x: Floats, topic: int) -> NDArray[np.float64]:  # (N, D) -> (N,)
        """Return from 0 to 1 what the model answers about a topic."""
        return np.asarray(self.model.target.degree(self.model.answers(x), topic), np.float64)

    def answer(self, x: Floats) -> str:
        """Return the answer for features (1, D) as text: a class, labels, a number, a grade."""
        columns = self.model.target.columns(self.model.answers(x))
        value = next(iter(columns.values()))[0]
        number = isinstance(value, float | np.floating)
        return f"{value:.6g}" if number else joined_names(value)

    def evidence(self, x: Tensor, topic: int) -> Tensor:  # (N, D) -> (N,)
        return self.model.target.evidence(self.head(x), topic)


def parts(count: int, size: int = AT_ONCE) -> Iterator[slice]:
    """Yield slices of at most `size` rows."""
    for first in range(0, count, size):
        yield slice(first, first + size)


def versions_at_once(places: TextPlaces) -> int:
    """Return how many versions of a text are read at once; 0 if it has more than AT_ONCE windows,
    which are then read in turn."""
    return 0 if len(places.ids) > AT_ONCE else max(1, POSITIONS // places.ids.size)


def text_model_of(model: Model, device: str = "cpu") -> TextGradModel:
    """Return a trained model of texts with gradients, on a device of PyTorch.

    Raises SpecError for a head without gradients or a network that can't be divided behind its
    embeddings, MissingPackage without the training extra.
    """
    backbone, input = model.backbone, model.backbone.card.input
    assert isinstance(input, TextInput)
    if model.head.kind not in HEADS and not isinstance(model.head, TunableHead):
        raise SpecError(
            f"Seeing inside takes a head of linear layers, which gradients go through; the model's "
            f"is {model.head.kind!r}. Train one with another --head, such as logistic."
        )
    if isinstance(backbone, Frozen):
        backbone = reopened(backbone)
    backbone = on_device(backbone, device)
    keep_memory()  # every step allocates the same tensors
    module: Any = backbone.module.eval().requires_grad_(False)
    first = getattr(module, "first", FIRST)
    above = [name for block in backbone.blocks if block.name != first for name in block.parameters]
    cut = module.cut_before(above) if hasattr(module, "cut_before") else None
    if cut is None:
        raise SpecError(
            f"Explaining a text goes through the network behind its embeddings, and "
            f"{backbone.card.name} can't be divided there. Use another --backbone."
        )
    head = head_module(model.head).eval().requires_grad_(False).to(device)
    return TextGradModel(model, input, cut.trunk.eval(), cut.tail.eval(), head, device)
