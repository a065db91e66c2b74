"""A model as one differentiable function from pixels to logits, or to other raw outputs."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.entry import WholeNetwork
from headstart.backbones.frozen import Frozen
from headstart.base.errors import SpecError, UnknownName
from headstart.base.runtime import keep_memory
from headstart.explaining.devices import on_device
from headstart.explaining.pixels.averaged import AveragedNetwork
from headstart.heads.head import TunableHead
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import MlpHead
from headstart.modalities.images.inputs import ImageInput, of_pictures
from headstart.modalities.sources import reopened
from headstart.models.model import Model
from headstart.targets.classes import ClassTarget
from headstart.targets.classes import log_odds as log_odds
from headstart.targets.target import POOLED, Outputs, Target
from headstart.training.network import head_module

DOES = "Looking inside a network takes"  # start of the message about other inputs
HEADS = (LinearHead.kind, MlpHead.kind)
Squares = NDArray[np.uint8]  # (N, S, S, 3): inputs of the network


@dataclass(frozen=True, eq=False)
class GradModel:
    """A frozen network with a head, in inference mode.

    network: pixels (N, S, S, 3), 0 to 255 of any type -> features (N, D), or their means over the
    model's test-time views; it normalises the pixels.
    head: (N, D) -> (N, C) logits. device: where both are; tensors that they give are there too, and
    arrays are on the CPU. temperature: of the scores. graph: the network, if it was
    exported before. other: what the head predicts, from raw outputs (N, K), if not classes; only
    explanations know it.
    """

    backbone: Backbone
    network: nn.Module
    head: nn.Module
    classes: tuple[str, ...]
    temperature: float = 1.0
    graph: Frozen | None = None
    other: Target | None = None
    device: str = "cpu"

    @property
    def target(self) -> Target:
        return self.other or ClassTarget(self.classes)

    @property
    def input(self) -> ImageInput:
        return of_pictures(self.backbone.card.input, DOES)

    @property
    def name(self) -> str:
        return self.backbone.card.name

    def logits(self, squares: Tensor) -> Tensor:  # (N, S, S, 3) -> (N, C)
        logits: Tensor = self.head(self.network(squares.to(self.device)))
        return logits

    def scores(self, squares: Squares) -> NDArray[np.float32]:  # (N, S, S, 3) -> (N, C)
        """Return probabilities, the same as the model's."""
        with torch.inference_mode():
            logits = self.logits(torch.from_numpy(np.array(squares, order="C")))
            return torch.softmax(logits / self.temperature, dim=1).cpu().numpy()

    def answers(self, raw: Tensor) -> Outputs:  # (N, K)
        """Return the model's answers for raw outputs of its head."""
        raw = raw.cpu()
        if self.other is None:
            return {"scores": torch.softmax(raw / self.temperature, dim=1).numpy()}
        return self.other.scaled(self.other.activate(raw.numpy()), self.temperature)

    def renumbered(self, classes: tuple[str, ...], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return labels of `classes` as numbers of this model's; -1 for a class that it lacks."""
        place = {name: number for number, name in enumerate(self.classes)}
        return np.array([place.get(name, -1) for name in classes], np.int64)[labels]

    def number(self, name: str) -> int:
        """Return the number of a class or label by its whole name, or a class by one of its names
        between commas.

        Raises UnknownName with the nearest names, SpecError if several classes have that name or if
        the model predicts neither classes nor labels.
        """
        topics = self.target.topics()
        if not self.target.names_topics:
            raise SpecError(
                f"A class or label is named to explain it, and the model predicts "
                f"{self.target.noun}: name none."
            )
        if name in topics:
            return topics.index(name)
        names = [[n.strip().casefold() for n in c.split(",")] for c in topics]
        found = [number for number, own in enumerate(names) if name.strip().casefold() in own]
        if len(found) > 1:
            several = "; ".join(repr(topics[number]) for number in found)
            raise SpecError(f"{name!r} is a name of {several}: give the whole name of one.")
        if not found:
            written = {n.strip() for c in topics for n in (c, *c.split(","))} - {""}
            what = "class" if self.classes else "label"
            raise UnknownName(f"{what} of this model", name, written)
        return found[0]


def grad_model_of(
    model: Model, does: str = DOES, *, of_classes: bool = True, device: str = "cpu"
) -> GradModel:
    """Return a trained model with gradients; does: start of the message if inputs are no pictures.

    of_classes: whether to refuse a model without classes. device: of PyTorch. Raises SpecError for
    a refused model and for a head without gradients, MissingPackage without the training extra.
    """
    backbone, kind = model.backbone, model.head.kind
    of_pictures(backbone.card.input, does)
    if of_classes and not model.classes:
        raise SpecError(
            f"This looks for what makes a class likely, and the model predicts "
            f"{model.target.noun}. Name a model of classes."
        )
    if model.target.takes != POOLED:  # gradients go through a head on pooled features
        raise SpecError(
            f"Explanations are of one answer per picture, and this model predicts "
            f"{model.target.noun}. Name another model."
        )
    if kind not in HEADS and not isinstance(model.head, TunableHead):
        raise SpecError(
            f"Seeing inside takes a head of linear layers, which gradients go through; the model's "
            f"is {kind!r}. Train one with another --head, such as logistic."
        )
    graph = backbone if isinstance(backbone, Frozen) else None
    if isinstance(backbone, Frozen):
        backbone = reopened(backbone)
    head, other = head_module(model.head), None if model.classes else model.target
    if other is None:
        head = nn.Sequential(head, _TwoLogits())
    made = _grad_model(backbone, head, model.classes, model.limits.temperature, device)
    return replace(made, graph=graph, other=other)


def source_grad_model(backbone: Backbone, does: str = DOES, device: str = "cpu") -> GradModel:
    """Return a pretrained network with its own classifier, for its source classes.

    device: of PyTorch. Raises SpecError if it came without a classifier.
    """
    of_pictures(backbone.card.input, does)
    source, classes = backbone.source(), backbone.card.source_classes
    layer = nn.Linear(*source.weight.shape)
    layer.load_state_dict(
        {"weight": torch.tensor(source.weight.T), "bias": torch.tensor(source.bias)}
    )
    return _grad_model(backbone, layer, classes, 1.0, device)


def featureless(pixels: Tensor) -> Tensor:  # (N, S, S, 3) -> the same
    """Fill each square with its median colour; an object would change the mean colour more."""
    colours = pixels.flatten(1, 2).median(dim=1).values
    return colours[:, None, None].expand_as(pixels).contiguous()


class _TwoLogits(nn.Module):
    """Turns one logit, the log odds of the second class, into two; keeps two or more unchanged."""

    def forward(self, logits: Tensor) -> Tensor:
        if logits.shape[1] > 1:
            return logits
        return torch.cat([torch.zeros_like(logits), logits], dim=1)


def _grad_model(
    backbone: Backbone, head: nn.Module, classes: tuple[str, ...], temperature: float, device: str
) -> GradModel:
    keep_memory()  # every step allocates the same tensors
    backbone = on_device(backbone, device)
    input = of_pictures(backbone.card.input, DOES)
    network: nn.Module = WholeNetwork(backbone.module, input).to(device)
    if input.test_views > 1:
        network = AveragedNetwork(network, input.averaged)
    network.eval().requires_grad_(False)
    head = head.eval().requires_grad_(False).to(device)
    return GradModel(backbone, network, head, classes, temperature, device=device)
