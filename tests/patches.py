"""Pictures of which a pasted patch alone decides the class, and networks that were taught so."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.entry import WholeNetwork
from headstart.explaining.pixels.grad_model import GradModel, Squares
from headstart.modalities.images.inputs import of_pictures

PATCH = 4  # patches that go into a side
COLOURS = np.array([[20, 110, 230], [230, 110, 20]])  # of a patch, by class; a third has none
Places = NDArray[np.int64]  # (N, 3): top, left and side of each patch


def patched(
    count: int, size: int, seed: int, classes: int = 2
) -> tuple[Squares, NDArray[np.int64], Places]:
    """Grey clouds with a blue or an orange patch somewhere, the class of each, and where it is.

    Those of a third class have none: with it, no class can be told by what is not there.
    """
    rng = np.random.default_rng(seed)
    labels, side = np.arange(count) % classes, size // PATCH
    clouds = torch.from_numpy(rng.normal(0, 25, (count, 1, 8, 8)))
    grey = nn.functional.interpolate(clouds, (size, size), mode="bicubic")[:, 0].numpy()
    strength = rng.random((count, 1, 1))  # down to none: a flat surface is of no class either
    grey = (
        128 + rng.normal(0, 25, (count, 1, 1)) + strength * (grey + rng.normal(0, 12, grey.shape))
    )
    squares = np.repeat(grey[..., None], 3, axis=3)
    corners = rng.integers(0, size - side + 1, (count, 2))
    for square, label, (top, left) in zip(squares, labels, corners, strict=True):
        noise = rng.normal(0, 12, (side, side, 3))
        if label < len(COLOURS):
            square[top : top + side, left : left + side] = COLOURS[label] + noise
    places = np.column_stack([corners, np.full(count, side)])
    return squares.clip(0, 255).astype(np.uint8), labels, places


def taught(backbone: Backbone, steps: int = 60, lr: float = 2e-3, start: int = 0) -> GradModel:
    """The whole network trained to tell the patches apart, on pictures made afresh each step.

    Another start has another head and other pictures, and gives another network, just as right.
    """
    size, input = of_pictures(backbone.card.input).size, backbone.card.input
    torch.manual_seed(start)
    head = nn.Linear(backbone.card.dim, 3)
    network = WholeNetwork(backbone.module, input).train().requires_grad_(True)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 0.1  # few steps must do
    descent = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=lr)
    for step in range(steps):
        squares, labels, _ = patched(18, size, (start + 1) * 10_000 + step, classes=3)
        logits = head(network(torch.from_numpy(squares)))
        descent.zero_grad()
        nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
        descent.step()
    return grad_model_on(backbone, head, ("blue", "orange", "none"))


def grad_model_on(
    backbone: Backbone, head: nn.Module, classes: tuple[str, ...] = ("a", "b")
) -> GradModel:
    network = WholeNetwork(backbone.module, backbone.card.input)
    network.eval().requires_grad_(False)
    return GradModel(backbone, network, head.eval().requires_grad_(False), classes)


def on_the_patch(smooth: NDArray[np.float32], place: NDArray[np.int64]) -> bool:
    """Whether the centre of what speaks for the class lies on the patch. smooth: (S, S)."""
    mass = np.maximum(smooth, 0)
    if not mass.sum():
        return False
    across = np.arange(len(mass))
    y, x = (mass.sum(axis=1) @ across) / mass.sum(), (mass.sum(axis=0) @ across) / mass.sum()
    top, left, side = place
    return bool(top <= y < top + side and left <= x < left + side)


def shuffled(grad_model: GradModel, seed: int) -> GradModel:
    """The same with the weights of its head in another order."""
    (layer,) = (m for m in grad_model.head.modules() if isinstance(m, nn.Linear))
    mixed = torch.randperm(layer.weight.numel(), generator=torch.Generator().manual_seed(seed))
    head = nn.Linear(layer.in_features, layer.out_features)
    head.load_state_dict(
        {"weight": layer.weight.flatten()[mixed].view_as(layer.weight), "bias": layer.bias}
    )
    return grad_model_on(grad_model.backbone, head, grad_model.classes)
