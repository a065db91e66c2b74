"""What speaks for a class, and where: told in several ways, of which the picture itself picks one.

The places of a network's layers, through which gradients are followed; what is lost where a spot
is hidden; single pixels. Which of the maps is most right, deletion curves say (bench/explain.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones.graph import FromPixels
from headstart.backbones.probing import Probe, probes
from headstart.errors import MissingPackage
from headstart.explaining.attribution import Attribution
from headstart.explaining.deletion import area_under, curve
from headstart.explaining.hiding import hiding
from headstart.explaining.lens import Lens, Squares, log_odds
from headstart.explaining.method import METHODS, PIXELS, Method
from headstart.heads.head import check_word

STEPS = 24  # of the integral
AT_ONCE = 8  # pictures, or steps of the integral of the pixels of one
FINEST = 32  # places a side; below it what there is are edges, not things
BROAD = 0.09  # of the square's side: what a texture is all over, no single place decides
CLEARLY = 0.9  # of an area: within that, the map that was told first is as good
DEPTH = 3  # layers, each with finer places than the one before
STILL = 1e-6  # of the largest gradient: if no place has more, nothing there decides anything
SPOT, DRAWN = 4, 16  # spots that go into a side, and how many are tried


@dataclass(frozen=True, eq=False)
class Looker:
    """A lens and the layers at which it is looked into, the last first; none where it can't be
    taken apart."""

    lens: Lens
    probes: tuple[Probe, ...]


def looker_of(lens: Lens) -> Looker:
    """The last layer with places that decide something and lie where they do in the picture; and,
    where places get smaller further down, the last of those, and once more.

    Behind the last attention of a transformer that reads only its class token no place decides;
    where the layers before have seen all of a small picture, each place has something of all.
    """
    found = list[Probe]()
    for probe in probes(lens.backbone):
        if not found and _decides(lens, probe) and _in_place(lens, probe):
            found.append(probe)
        elif found and found[-1].side < probe.side <= FINEST:  # further down it is no less so
            found.append(probe)
        if len(found) == DEPTH:
            break
    return Looker(lens, tuple(found))


def attribute(
    looker: Looker, squares: Squares, numbers: NDArray[np.int64], method: Method = "best"
) -> list[Attribution]:
    """A map of each square (N, S, S, 3), for its class in `numbers` (N,).

    places: integrated gradients (Sundararajan, Taly, Yan 2017, eq. 1) of what crosses at the last
        layer with places, from what a featureless square gives there to what this one does; and
        the mean of that and the same at layers with finer places.
    hiding: what the log odds lose where a soft spot is hidden (`hiding`).
    best: of places at one layer, at two, at all, and these smoothed, and of hiding, for each square
        the map whose deletion curve has the smallest area; a later one must be lower by a tenth.
        Where there are no places, of pixels.
    gradcam: Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) at the last layer, but signed.
    pixels: integrated gradients of the pixels; so too where the network can't be taken apart.
    """
    check_word("method", method, METHODS)
    told: Callable[[Looker, Squares, NDArray[np.int64]], list[Attribution]] = {
        "best": _best,
        "places": lambda *asked: list(_by_depth(*asked))[-1],
        "hiding": _by_hiding,
        "gradcam": _by_gradcam,
        PIXELS: _by_pixels,
    }[method]
    found = list[Attribution]()
    for first in range(0, len(squares), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        found += told(looker, squares[part], numbers[part])
    return found


def featureless(pixels: Tensor) -> Tensor:  # (N, S, S, 3) -> the same
    """Each square as a surface of its own median colour: its mean has in it what stands out."""
    colours = pixels.flatten(1, 2).median(dim=1).values
    return colours[:, None, None].expand_as(pixels).contiguous()


def _best(looker: Looker, squares: Squares, numbers: NDArray[np.int64]) -> list[Attribution]:
    asked = looker, squares, numbers
    depths = list(_by_depth(*asked))
    smooth = [found.smoothed(BROAD) for found in depths[-1]]
    ways = [*depths, smooth, _by_hiding(*asked)]
    return [
        picked(looker.lens, square, maps)
        for square, maps in zip(squares, zip(*ways, strict=True), strict=True)
    ]


def picked(lens: Lens, square: NDArray[np.uint8], maps: Sequence[Attribution]) -> Attribution:
    """The first, unless the curve of a later one is clearly lower; and so on."""
    best, area = maps[0], _area(lens, square, maps[0])
    for found in maps[1:]:
        if (own := _area(lens, square, found)) < CLEARLY * area:
            best, area = found, own
    return best


def _area(lens: Lens, square: NDArray[np.uint8], found: Attribution) -> float:
    return area_under(curve(lens, square, found.over(len(square)), found.number))


def _by_depth(
    looker: Looker, squares: Squares, numbers: NDArray[np.int64]
) -> Iterator[list[Attribution]]:
    """Maps by places at the last layer, then by the last two, and so on; by pixels if none has."""
    if not looker.probes:
        yield _by_pixels(looker, squares, numbers)
    added, names = list[Tensor](), list[str]()
    pixels, of = _tensors(squares, numbers)
    for probe in looker.probes:
        added.append(_at(looker.lens, probe, pixels, of))
        names.append(probe.name)
        mean = torch.stack([_spread(values, probe.side) for values in added]).mean(dim=0)
        yield _told(mean, numbers, "places", " and ".join(names))


def _by_hiding(looker: Looker, squares: Squares, numbers: NDArray[np.int64]) -> list[Attribution]:
    lost = torch.from_numpy(hiding(looker.lens, squares, numbers))
    return _told(lost, numbers, "hiding", PIXELS)


def _by_gradcam(looker: Looker, squares: Squares, numbers: NDArray[np.int64]) -> list[Attribution]:
    if not looker.probes:
        return _by_pixels(looker, squares, numbers)
    lens, probe = looker.lens, looker.probes[0]
    pixels, of = _tensors(squares, numbers)
    with torch.no_grad():
        there = _crossed(lens, probe, pixels)
    slope = _slope(lambda x: log_odds(_said(lens, probe, x), of), there)
    weights = probe.grid(slope).mean(dim=(1, 2), keepdim=True)
    return _told((weights * probe.grid(there)).sum(dim=-1), numbers, "gradcam", probe.name)


def _by_pixels(looker: Looker, squares: Squares, numbers: NDArray[np.int64]) -> list[Attribution]:
    pixels, of = _tensors(squares, numbers)

    def odds(x: Tensor, of: Tensor) -> Tensor:
        return log_odds(looker.lens.logits(x), of)

    added = _integrated(odds, pixels, featureless(pixels), of, AT_ONCE)
    return _told(added.sum(dim=-1), numbers, PIXELS, PIXELS)


def _tensors(squares: Squares, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(squares)).float(), torch.from_numpy(numbers)


def _told(
    maps: Tensor, numbers: NDArray[np.int64], method: Method, layer: str
) -> list[Attribution]:  # (N, h, w), (N,)
    of = zip(maps.float().numpy(), numbers, strict=True)
    return [Attribution(values, int(number), method, layer) for values, number in of]


def _at(lens: Lens, probe: Probe, pixels: Tensor, numbers: Tensor) -> Tensor:  # -> (N, h, w)
    """What is added by each place at one probe."""
    with torch.no_grad():
        there, without = _crossed(lens, probe, pixels), _crossed(lens, probe, featureless(pixels))

    def odds(crossed: Tensor, of: Tensor) -> Tensor:
        return log_odds(_said(lens, probe, crossed), of)

    added = _integrated(odds, there, without, numbers, AT_ONCE * len(pixels))
    return probe.grid(added).sum(dim=-1)


def _spread(values: Tensor, side: int) -> Tensor:  # (N, h, w) -> (N, side, side)
    """The same on finer places, its sum kept: each value is shared out among those it becomes."""
    how: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
    finer = nn.functional.interpolate(values[:, None], (side, side), **how)[:, 0]
    return finer * (values.shape[-1] / side) ** 2


def _integrated(
    odds: Callable[[Tensor, Tensor], Tensor],
    there: Tensor,
    without: Tensor,
    numbers: Tensor,
    rows: int,
) -> Tensor:
    """What each value adds on the way from `without` to `there`; `rows` of steps at once."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise MissingPackage("captum", purpose="Explaining", extra="train") from None
    added: Tensor = IntegratedGradients(odds).attribute(
        there,
        without,
        additional_forward_args=(numbers,),
        n_steps=STEPS,
        internal_batch_size=max(rows, len(there)),
    )
    return added.detach()


def _slope(told: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(told(x.clone()).sum(), x)  # layers may work in place
    return slope


def _crossed(lens: Lens, probe: Probe, pixels: Tensor) -> Tensor:  # (N, S, S, 3)
    """What crosses at a probe."""
    crossed: Tensor = FromPixels(probe.trunk, lens.preprocess).eval()(pixels)
    return crossed


def _said(lens: Lens, probe: Probe, crossed: Tensor) -> Tensor:  # -> (N, C)
    """The logits, from what crosses at a probe."""
    logits: Tensor = lens.head(probe.tail(crossed.clone()))  # which a relu may write over
    return logits


def _decides(lens: Lens, probe: Probe) -> bool:
    """Whether anything at the places of a probe moves what comes out."""
    side = lens.preprocess.size
    drawn = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0)) * 255
    crossed = _crossed(lens, probe, drawn)
    slope = _slope(lambda x: _said(lens, probe, x).pow(2), crossed)
    return bool(probe.grid(slope).abs().max() > STILL * slope.abs().max())


def _in_place(lens: Lens, probe: Probe) -> bool:
    """Whether places change where the picture does: of most spots of another colour, the centre of
    the change at the probe lies on the spot."""
    side, rng = lens.preprocess.size, torch.Generator().manual_seed(0)
    spot, shape = side // SPOT, (side, side)
    clouds = torch.rand(DRAWN, 3, 8, 8, generator=rng) * 255
    before = nn.functional.interpolate(clouds, shape, mode="bilinear").permute(0, 2, 3, 1)
    after, corners = before.clone(), torch.randint(side - spot + 1, (DRAWN, 2), generator=rng)
    for picture, (top, left) in zip(after, corners.tolist(), strict=True):
        picture[top : top + spot, left : left + spot] = torch.rand(3, generator=rng) * 255
    with torch.no_grad():
        moved = _crossed(lens, probe, after) - _crossed(lens, probe, before)
    mass = probe.grid(moved).pow(2).sum(dim=-1)
    across = (torch.arange(probe.side) + 0.5) * side / probe.side
    centre = torch.stack([mass.sum(dim=2) @ across, mass.sum(dim=1) @ across], dim=1)
    away = centre / mass.sum(dim=(1, 2))[:, None] - (corners + spot / 2)
    return bool((away.abs() <= spot / 2).all(dim=1).float().mean() > 0.5)
