"""A small untrained network, the CNN of tutorials, as a baseline for transfer learning."""

import torch
from torch import nn

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights
from headstart.base.errors import UnknownName
from headstart.modalities.images.inputs import ImageInput

weight_files = (".safetensors",)
SIZE, DIM = 32, 128  # pixels; features
PREPROCESS = ImageInput(SIZE, SIZE, (0.0,) * 3, (1.0,) * 3, "bilinear", "squash")


def load(id: str, weights: Weights) -> Backbone:
    """Load `scratch:cnn`: convolutions of 32 and 64 with pooling, and a dense layer of 128."""
    if id != "cnn":
        raise UnknownName("network from scratch", id, ["cnn"])
    return untrained(f"scratch:{id}", network(), PREPROCESS, DIM, weights)


def untrained(
    name: str, module: nn.Module, input: ImageInput, dim: int, weights: Weights
) -> Backbone:
    """Return a network without pretrained weights; each child with parameters is a block."""
    weights.into(module)
    names = {child: [n for n, _ in m.named_parameters()] for child, m in module.named_children()}
    blocks = (Block(c, tuple(f"{c}.{n}" for n in own)) for c, own in names.items() if own)
    origin = weights.origin if weights.file else "random"
    return Backbone(Card(name, name, dim, input, origin, "Apache-2.0"), module, tuple(blocks))


def build(card: Card) -> tuple[nn.Module, tuple[Block, ...]]:
    """Return the network that a card describes, and its blocks."""
    return load(card.id, Weights()).parts


def listing() -> tuple[Listing, ...]:
    """Return the listing of `scratch:cnn`, the only network of this source."""
    return (Listing("scratch:cnn", str(SIZE), str(DIM)),)


def network() -> nn.Sequential:
    """Return (N, 3, 32, 32) -> (N, 128), initialised as Keras does: Glorot, biases 0 (seed 0)."""
    module = nn.Sequential()
    module.add_module("conv1", nn.Conv2d(3, 32, 3))
    module.add_module("relu1", nn.ReLU())
    module.add_module("pool1", nn.MaxPool2d(2))
    module.add_module("conv2", nn.Conv2d(32, 64, 3))
    module.add_module("relu2", nn.ReLU())
    module.add_module("pool2", nn.MaxPool2d(2))
    module.add_module("flatten", nn.Flatten())
    module.add_module("dense", nn.Linear(64 * 6 * 6, DIM))
    module.add_module("relu3", nn.ReLU())
    generator = torch.Generator().manual_seed(0)
    for layer in module:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # these layers have one
    return module.eval().requires_grad_(False)
