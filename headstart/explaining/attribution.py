"""What speaks for a class, and where: maps over the square that the network was given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones.graph import FromPixels
from headstart.backbones.probing import Probe, probes
from headstart.errors import MissingPackage
from headstart.explaining.lens import Lens, Squares
from headstart.heads.head import check_word

Method = Literal["places", "gradcam", "pixels"]
METHODS = get_args(Method)
STEPS = 24  # of the integral
AT_ONCE = 8  # pictures, or steps of the integral of the pixels of one
FINEST = 32  # places a side of the finer layer; below it what there is are edges, not things
STILL = 1e-6  # of the largest gradient: if no place has more, nothing there decides anything
PIXELS: Literal["pixels"] = "pixels"


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each place of the square adds to the log odds of a class; below 0, it speaks against it.

    values: (h, w) float32, rows from the top. layer: where in the network it was told, or "pixels".
    """

    values: NDArray[np.float32]
    number: int
    method: Method
    layer: str

    def over(self, side: int) -> NDArray[np.float32]:
        """The same, smooth, at the square's own size: (side, side)."""
        grid = torch.from_numpy(self.values)[None, None]
        if len(self.values) > side // 2:  # single pixels are too fine to be seen
            grid = _blurred(grid, side / 40)
        how: dict[str, Any] = {"mode": "bicubic", "align_corners": False}
        return nn.functional.interpolate(grid, (side, side), **how)[0, 0].numpy()


@dataclass(frozen=True, eq=False)
class Looker:
    """A lens and the layers at which it is looked into, the last first; none where it can't be
    taken apart."""

    lens: Lens
    probes: tuple[Probe, ...]


def looker_of(lens: Lens) -> Looker:
    """The last layer that still has places and whose places decide something; and, where places
    get smaller further down, the last of those.

    Behind the last attention of a transformer that reads only its class token no place decides.
    """
    alive = (probe for probe in probes(lens.backbone) if _decides(lens, probe))
    last = next(alive, None)
    if last is None:
        return Looker(lens, ())
    finer = next((probe for probe in alive if probe.side > last.side), None)
    return Looker(lens, (last, finer) if finer and finer.side <= FINEST else (last,))


def attribute(
    looker: Looker, squares: Squares, numbers: NDArray[np.int64], method: Method = "places"
) -> list[Attribution]:
    """A map of each square (N, S, S, 3), for its class in `numbers` (N,).

    places: integrated gradients (Sundararajan, Taly, Yan 2017, eq. 1) of what crosses at the last
        layer with places, from what a featureless square gives there to what this one does; and
        the mean of that and the same one size finer, which hits more closely (bench/explain.py).
    gradcam: Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) at the last of them, but signed.
    pixels: integrated gradients of the pixels; so too where the network can't be taken apart.
    """
    check_word("method", method, METHODS)
    how: Method = method if looker.probes else PIXELS
    told = {"places": _by_places, "gradcam": _by_gradcam, PIXELS: _by_pixels}[how]
    layer = {"places": " and ".join(p.name for p in looker.probes), "gradcam": _last(looker)}
    found = list[Attribution]()
    for first in range(0, len(squares), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        pixels = torch.from_numpy(np.ascontiguousarray(squares[part])).float()
        maps = told(looker, pixels, torch.from_numpy(numbers[part])).float().numpy()
        of = zip(maps, numbers[part].tolist(), strict=True)
        found += [Attribution(values, number, how, layer.get(how, PIXELS)) for values, number in of]
    return found


def log_odds(logits: Tensor, numbers: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
    """Of each row's class against all others: what is added to every logit says nothing."""
    own = logits.gather(1, numbers[:, None])[:, 0]
    others = logits.scatter(1, numbers[:, None], -torch.inf)
    return own - others.logsumexp(dim=1)


def featureless(pixels: Tensor) -> Tensor:  # (N, S, S, 3) -> the same
    """Each square as a surface of its own median colour: its mean has in it what stands out."""
    colours = pixels.flatten(1, 2).median(dim=1).values
    return colours[:, None, None].expand_as(pixels).contiguous()


def _by_places(looker: Looker, pixels: Tensor, numbers: Tensor) -> Tensor:  # -> (N, h, w)
    maps = [_at(looker.lens, probe, pixels, numbers) for probe in looker.probes]
    side = maps[-1].shape[-1]
    return torch.stack([_spread(values, side) for values in maps]).mean(dim=0)


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


def _by_gradcam(looker: Looker, pixels: Tensor, numbers: Tensor) -> Tensor:  # -> (N, h, w)
    lens, probe = looker.lens, looker.probes[0]
    with torch.no_grad():
        there = _crossed(lens, probe, pixels)
    slope = _slope(lambda x: log_odds(_said(lens, probe, x), numbers), there)
    weights = probe.grid(slope).mean(dim=(1, 2), keepdim=True)
    return (weights * probe.grid(there)).sum(dim=-1)


def _by_pixels(looker: Looker, pixels: Tensor, numbers: Tensor) -> Tensor:  # -> (N, S, S)
    def odds(x: Tensor, of: Tensor) -> Tensor:
        return log_odds(looker.lens.logits(x), of)

    return _integrated(odds, pixels, featureless(pixels), numbers, AT_ONCE).sum(dim=-1)


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


def _last(looker: Looker) -> str:
    return looker.probes[0].name if looker.probes else PIXELS


def _decides(lens: Lens, probe: Probe) -> bool:
    """Whether anything at the places of a probe moves what comes out."""
    side = lens.preprocess.size
    drawn = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0)) * 255
    crossed = _crossed(lens, probe, drawn)
    slope = _slope(lambda x: _said(lens, probe, x).pow(2), crossed)
    return bool(probe.grid(slope).abs().max() > STILL * slope.abs().max())


def _blurred(grid: Tensor, sigma: float) -> Tensor:  # (1, 1, h, w)
    from torchvision.transforms.functional import gaussian_blur

    size = 2 * round(2 * sigma) + 1
    return gaussian_blur(grid, [size, size], [sigma, sigma])
