"""A backbone for tests, without download, that runs in a millisecond."""

import torch
from torch import nn

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights
from headstart.base.errors import SpecError
from headstart.modalities.images.inputs import ImageInput
from headstart.modalities.images.scratch import untrained

weight_files = (".safetensors",)
PREPROCESS = ImageInput(size=32, resize=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def load(id: str, weights: Weights) -> Backbone:
    """Load `tiny:D`, with D features (1 to 4096) and random weights, the same every time."""
    if not (id.isdecimal() and 0 < int(id) <= 4096):
        raise SpecError(
            f"A tiny backbone is named by its number of features, 1 to 4096; got {id!r}."
        )
    return untrained(f"tiny:{id}", network(int(id)), PREPROCESS, int(id), weights)


def build(card: Card) -> tuple[nn.Module, tuple[Block, ...]]:
    """Return the network that a card describes, and its blocks."""
    return load(card.id, Weights()).parts


def listing() -> tuple[Listing, ...]:
    """Return nothing: there is a network for each number of features."""
    return ()


def network(dim: int) -> nn.Sequential:
    """Return two convolutions with batch norm and average pooling: (N, 3, 32, 32) -> (N, dim)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential()
        module.add_module("stem", _layer(3, 16))
        module.add_module("body", _layer(16, dim))
        module.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return module.eval()


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )
