"""A network for texts, for tests: without download or packages, it runs in a millisecond."""

import torch
from torch import nn

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights
from headstart.base.errors import SpecError
from headstart.modalities.text.inputs import TextInput
from headstart.modalities.text.networks import TinyText

weight_files = (".safetensors",)
INPUT = TextInput(window=32)


def load(id: str, weights: Weights) -> Backbone:
    """Load `tiny-text:D`, with D features (1 to 4096) and random weights, the same every time."""
    if not (id.isdecimal() and 0 < int(id) <= 4096):
        raise SpecError(
            f"A tiny backbone is named by its number of features, 1 to 4096; got {id!r}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TinyText(int(id))
    weights.into(network)
    name, origin = f"tiny-text:{id}", weights.origin if weights.file else "random"
    card = Card(name, name, int(id), INPUT, origin, "Apache-2.0")
    return Backbone(card, network.eval().requires_grad_(False), network.blocks())


def build(card: Card) -> tuple[nn.Module, tuple[Block, ...]]:
    """Return the network that a card describes, and its blocks."""
    return load(card.id, Weights()).parts


def listing() -> tuple[Listing, ...]:
    """Return nothing: there is a network for each number of features."""
    return ()
