"""Attribution maps by several methods: gradients of a layer's activations, gradients of the pixels,
occlusion. bench/explain.py compares the methods by their deletion curves.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.base.errors import MissingPackage
from headstart.explaining.pixels.attribution import Attribution
from headstart.explaining.pixels.deletion import area_under, curve
from headstart.explaining.pixels.grad_model import GradModel, Squares, featureless, log_odds
from headstart.explaining.pixels.hiding import hiding
from headstart.explaining.pixels.method import METHODS, PIXELS, Method
from headstart.explaining.pixels.probed_model import ProbedModel, crossed_at, said_from, slope_of
from headstart.explaining.pixels.probing import Probe
from headstart.heads.head import check_word

STEPS = 24  # of the integral
AT_ONCE = 8  # squares in a batch, or steps of the integral over the pixels of one square
BROAD = 0.09  # sigma of the smoothing, a share of the side; evidence for a texture is spread out
CLEARLY = 0.9  # a later map replaces an earlier one only below this share of its area


def attribute(
    probed: ProbedModel, squares: Squares, numbers: NDArray[np.int64], method: Method = "best"
) -> list[Attribution]:
    """Return an attribution map of each input square (N, S, S, 3), for its class in `numbers` (N,).

    places: integrated gradients (Sundararajan, Taly, Yan 2017, eq. 1) of the last layer whose
        activations form a grid over the picture, from the activations of a featureless square as
        baseline; averaged with the maps of earlier layers with finer grids. In a transformer, of
        its input tokens.
    hiding: how far log odds fall when a soft-edged spot is hidden and rise when shown alone.
    best: the map whose deletion curve has the smallest area: of one layer, two, all, all smoothed,
        or hiding; a later one must be a tenth smaller. Without such layers, pixels replaces places;
        then, or if `probed.mixed`, hiding comes first.
    gradcam: Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) at the last layer, but signed.
    pixels: integrated gradients of the pixels; used too where the network can't be traced.
    """
    check_word("method", method, METHODS)
    told: Callable[[ProbedModel, Squares, NDArray[np.int64]], list[Attribution]] = {
        "best": _best,
        "places": lambda *asked: list(_by_depth(*asked))[-1],
        "hiding": _by_hiding,
        "gradcam": _by_gradcam,
        PIXELS: _by_pixels,
    }[method]
    found = list[Attribution]()
    for first in range(0, len(squares), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        found += told(probed, squares[part], numbers[part])
    return found


def _best(probed: ProbedModel, squares: Squares, numbers: NDArray[np.int64]) -> list[Attribution]:
    asked = probed, squares, numbers
    depths = list(_by_depth(*asked))
    smooth, hidden = [found.smoothed(BROAD) for found in depths[-1]], _by_hiding(*asked)
    unsure = probed.mixed or not probed.probes
    ways = [hidden, *depths, smooth] if unsure else [*depths, smooth, hidden]
    each = zip(squares, zip(*ways, strict=True), strict=True)
    return [picked(probed, square, maps) for square, maps in each]


def picked(
    probed: ProbedModel, square: NDArray[np.uint8], maps: Sequence[Attribution]
) -> Attribution:
    """Return the map with the smallest deletion area; a later map must be clearly smaller."""
    best, area = maps[0], _area(probed, square, maps[0])
    for found in maps[1:]:
        if (own := _area(probed, square, found)) < CLEARLY * area:
            best, area = found, own
    return best


def _area(probed: ProbedModel, square: NDArray[np.uint8], found: Attribution) -> float:
    return area_under(curve(probed, square, found.over(len(square)), found.number))


def _by_depth(
    probed: ProbedModel, squares: Squares, numbers: NDArray[np.int64]
) -> Iterator[list[Attribution]]:
    """Yield `places` maps of the last layer, of the last two, …; `pixels` maps without probes."""
    if not probed.probes:
        yield _by_pixels(probed, squares, numbers)
    added, names = list[Tensor](), list[str]()
    pixels, of = _tensors(squares, numbers)
    for probe in probed.probes:
        added.append(_at(probed.model, probe, pixels, of))
        names.append(probe.name)
        mean = torch.stack([_spread(values, probe.side) for values in added]).mean(dim=0)
        yield _told(mean, numbers, "places", " and ".join(names))


def _by_hiding(
    probed: ProbedModel, squares: Squares, numbers: NDArray[np.int64]
) -> list[Attribution]:
    lost = torch.from_numpy(hiding(probed, squares, numbers))
    return _told(lost, numbers, "hiding", PIXELS)


def _by_gradcam(
    probed: ProbedModel, squares: Squares, numbers: NDArray[np.int64]
) -> list[Attribution]:
    if not probed.probes:
        return _by_pixels(probed, squares, numbers)
    model, probe = probed.model, probed.tokens or probed.probes[0]
    pixels, of = _tensors(squares, numbers)
    with torch.no_grad():
        there = crossed_at(model, probe, pixels)
    slope = slope_of(lambda x: log_odds(said_from(model, probe, x), of), there)
    weights = probe.grid(slope).mean(dim=(1, 2), keepdim=True)
    return _told((weights * probe.grid(there)).sum(dim=-1), numbers, "gradcam", probe.name)


def _by_pixels(
    probed: ProbedModel, squares: Squares, numbers: NDArray[np.int64]
) -> list[Attribution]:
    pixels, of = _tensors(squares, numbers)

    def odds(x: Tensor, of: Tensor) -> Tensor:
        return log_odds(probed.model.logits(x), of)

    added = _integrated(odds, pixels, featureless(pixels), of, AT_ONCE)
    return _told(added.sum(dim=-1), numbers, PIXELS, PIXELS)


def _tensors(squares: Squares, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(squares)).float(), torch.from_numpy(numbers)


def _told(
    maps: Tensor, numbers: NDArray[np.int64], method: Method, layer: str
) -> list[Attribution]:  # (N, h, w), (N,)
    of = zip(maps.float().numpy(), numbers, strict=True)
    return [Attribution(values, int(number), method, layer) for values, number in of]


def _at(model: GradModel, probe: Probe, pixels: Tensor, numbers: Tensor) -> Tensor:  # -> (N, h, w)
    """Return the integrated gradients at one probe, summed over channels."""
    with torch.no_grad():
        there = crossed_at(model, probe, pixels)
        without = crossed_at(model, probe, featureless(pixels))

    def odds(crossed: Tensor, of: Tensor) -> Tensor:
        return log_odds(said_from(model, probe, crossed), of)

    added = _integrated(odds, there, without, numbers, AT_ONCE * len(pixels))
    return probe.grid(added).sum(dim=-1)


def _spread(values: Tensor, side: int) -> Tensor:  # (N, h, w) -> (N, side, side)
    """Interpolate the maps to a finer grid; divide the values so that the sum is kept."""
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
    """Return integrated gradients from the baseline `without` to `there`, `rows` in a batch."""
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
