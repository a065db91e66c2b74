"""A lens and where it is looked into: the layers whose values still lie in their places."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from headstart.backbones.entry import WholeNetwork
from headstart.explaining.pixels.forward import Forward
from headstart.explaining.pixels.lens import Lens
from headstart.explaining.pixels.probing import Probe, probes

FINEST = 32  # places a side; below it what there is are edges, not things
DEPTH = 3  # layers, each with finer places than the one before
STILL = 1e-6  # of the largest gradient: if no place has more, nothing there decides anything
SPOT, DRAWN = 4, 16  # spots that go into a side, and how many are tried


@dataclass(frozen=True, eq=False)
class Looker:
    """A lens and the layers at which it is looked into, the last first; none where it can't be
    taken apart.

    mixed: whether places further up decide too, but have something of all of the picture; in part,
    then, those that are looked into may have as well. tokens: where these are tokens that come in,
    those of the last layer, which have.
    """

    lens: Lens
    probes: tuple[Probe, ...]
    mixed: bool = False
    tokens: Probe | None = None

    @cached_property
    def forward(self) -> Forward:
        """For all that needs no gradients."""
        return Forward(self.lens)


def looker_of(lens: Lens) -> Looker:
    """The last layer with places that decide something and lie where they do in the picture; and,
    where places get smaller further down, the last of those, and once more.

    Where the layers before have seen all of a small picture, each place has something of all; and
    behind the last attention of a transformer that reads only its class token no place decides. In
    it, attention may move what a token said to any other (Darcet et al. 2024, section 2: tokens of
    the background are where it keeps what it found). So, unless places get smaller, tokens are
    looked into where they come in.
    """
    found, entrance, mixed = list[Probe](), list[Probe](), False
    for probe in probes(lens.backbone):
        if not found:
            if _decides(lens, probe):
                if _in_place(lens, probe):
                    found.append(probe)
                else:
                    mixed = True
        elif found[-1].side < probe.side <= FINEST:  # further down it is no less in place
            found.append(probe)
        elif found[-1].side == probe.side:
            entrance = [probe]
        if len(found) == DEPTH:
            break
    if len(found) == 1 and found[0].layout == "tokens":
        return Looker(lens, tuple(entrance or found), mixed=True, tokens=found[0])
    return Looker(lens, tuple(found), mixed)


def crossed_at(lens: Lens, probe: Probe, pixels: Tensor) -> Tensor:  # (N, S, S, 3)
    """What crosses at a probe."""
    crossed: Tensor = WholeNetwork(probe.trunk, lens.input).eval()(pixels)
    return crossed


def said_from(lens: Lens, probe: Probe, crossed: Tensor) -> Tensor:  # -> (N, C)
    """The logits, from what crosses at a probe."""
    logits: Tensor = lens.head(probe.tail(crossed.clone()))  # which a relu may write over
    return logits


def slope_of(told: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(told(x.clone()).sum(), x)  # layers may work in place
    return slope


def _decides(lens: Lens, probe: Probe) -> bool:
    """Whether anything at the places of a probe moves what comes out."""
    side = lens.input.size
    drawn = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0)) * 255
    crossed = crossed_at(lens, probe, drawn)
    slope = slope_of(lambda x: said_from(lens, probe, x).pow(2), crossed)
    return bool(probe.grid(slope).abs().max() > STILL * slope.abs().max())


def _in_place(lens: Lens, probe: Probe) -> bool:
    """Whether places change where the picture does: of most spots of another colour, the centre of
    the change at the probe lies on the spot."""
    side, rng = lens.input.size, torch.Generator().manual_seed(0)
    spot, shape = side // SPOT, (side, side)
    clouds = torch.rand(DRAWN, 3, 8, 8, generator=rng) * 255
    before = nn.functional.interpolate(clouds, shape, mode="bilinear").permute(0, 2, 3, 1)
    after, corners = before.clone(), torch.randint(side - spot + 1, (DRAWN, 2), generator=rng)
    for picture, (top, left) in zip(after, corners.tolist(), strict=True):
        picture[top : top + spot, left : left + spot] = torch.rand(3, generator=rng) * 255
    with torch.no_grad():
        moved = crossed_at(lens, probe, after) - crossed_at(lens, probe, before)
    mass = probe.grid(moved).pow(2).sum(dim=-1)
    across = (torch.arange(probe.side) + 0.5) * side / probe.side
    centre = torch.stack([mass.sum(dim=2) @ across, mass.sum(dim=1) @ across], dim=1)
    away = centre / mass.sum(dim=(1, 2))[:, None] - (corners + spot / 2)
    return bool((away.abs() <= spot / 2).all(dim=1).float().mean() > 0.5)
