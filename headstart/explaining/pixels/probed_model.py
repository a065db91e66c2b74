"""A GradModel with its probes: layers whose activations match positions in the picture."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from headstart.backbones.entry import WholeNetwork
from headstart.explaining.pixels.forward import Forward
from headstart.explaining.pixels.grad_model import GradModel
from headstart.explaining.pixels.probing import Probe, probes

FINEST = 32  # values per side; layers with finer grids detect edges, not objects
DEPTH = 3  # layers, each with a finer grid than the one before
STILL = 1e-6  # share of the largest gradient; a grid with smaller ones has no effect on the logits
SPOT, DRAWN = 4, 16  # the square's side over a spot's, and how many spots are tried


@dataclass(frozen=True, eq=False)
class ProbedModel:
    """A GradModel and its probes, the last layer first; no probes if the network can't be traced.

    mixed: whether a later layer affects the logits although each of its values depends on the whole
    picture; values at the probes may then partly do so too. tokens: if the probe is at the input
    tokens of a transformer, the probe of its last layer.
    """

    model: GradModel
    probes: tuple[Probe, ...]
    mixed: bool = False
    tokens: Probe | None = None

    @cached_property
    def forward(self) -> Forward:
        """The model, run by the fastest engine, without gradients."""
        return Forward(self.model)


def probed_model_of(model: GradModel) -> ProbedModel:
    """Choose the probes: the last layer whose grid affects the logits and matches the picture, then
    the last layer of each finer grid before it, up to DEPTH layers.

    Not every layer is suitable: if receptive fields cover a small picture, each value depends on
    all of it; if a transformer's head reads only the class token, no patch token after the last
    attention affects the logits. Attention may also move information from any token to any other
    (Darcet et al. 2024, section 2: background tokens store global information). So a transformer
    with a single grid size is probed at its input tokens.
    """
    found, entrance, mixed = list[Probe](), list[Probe](), False
    for probe in probes(model.backbone):
        if not found:
            if _decides(model, probe):
                if _in_place(model, probe):
                    found.append(probe)
                else:
                    mixed = True
        elif found[-1].side < probe.side <= FINEST:  # earlier layers match the picture too
            found.append(probe)
        elif found[-1].side == probe.side:
            entrance = [probe]
        if len(found) == DEPTH:
            break
    if len(found) == 1 and found[0].layout == "tokens":
        return ProbedModel(model, tuple(entrance or found), mixed=True, tokens=found[0])
    return ProbedModel(model, tuple(found), mixed)


def activations_at(model: GradModel, probe: Probe, pixels: Tensor) -> Tensor:  # (N, S, S, 3)
    """Return the activations at a probe."""
    whole = WholeNetwork(probe.trunk, model.input).eval().to(model.device)
    crossed: Tensor = whole(pixels.to(model.device))
    return crossed


def logits_from(model: GradModel, probe: Probe, crossed: Tensor) -> Tensor:  # -> (N, C)
    """Return the logits, from the activations at a probe."""
    logits: Tensor = model.head(probe.tail(crossed.clone()))  # a ReLU may write in place
    return logits


def slope_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient with respect to x of the sum of function(x)."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(function(x.clone()).sum(), x)  # layers may work in place
    return slope


def _decides(model: GradModel, probe: Probe) -> bool:
    """Return whether the logits have a gradient with respect to the grid of a probe."""
    side = model.input.size
    drawn = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0)) * 255
    crossed = activations_at(model, probe, drawn)
    slope = slope_of(lambda x: logits_from(model, probe, x).pow(2), crossed)
    return bool(probe.grid(slope).abs().max() > STILL * slope.abs().max())


def _in_place(model: GradModel, probe: Probe) -> bool:
    """Return whether activations change where the picture changes: for most coloured spots, the
    centre of the change at the probe must lie on the spot."""
    side, rng = model.input.size, torch.Generator().manual_seed(0)
    spot, shape = side // SPOT, (side, side)
    clouds = torch.rand(DRAWN, 3, 8, 8, generator=rng) * 255
    before = nn.functional.interpolate(clouds, shape, mode="bilinear").permute(0, 2, 3, 1)
    after, corners = before.clone(), torch.randint(side - spot + 1, (DRAWN, 2), generator=rng)
    for picture, (top, left) in zip(after, corners.tolist(), strict=True):
        picture[top : top + spot, left : left + spot] = torch.rand(3, generator=rng) * 255
    with torch.no_grad():
        moved = activations_at(model, probe, after) - activations_at(model, probe, before)
    mass = probe.grid(moved).pow(2).sum(dim=-1).cpu()
    across = (torch.arange(probe.side) + 0.5) * side / probe.side
    centre = torch.stack([mass.sum(dim=2) @ across, mass.sum(dim=1) @ across], dim=1)
    away = centre / mass.sum(dim=(1, 2))[:, None] - (corners + spot / 2)
    return bool((away.abs() <= spot / 2).all(dim=1).float().mean() > 0.5)
