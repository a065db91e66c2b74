"""Attribution maps by several methods: gradients of a layer's activations, gradients of the pixels,
occlusion. bench/explain.py compares the methods by their deletion curves.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.base.errors import MissingPackage
from headstart.explaining.pixels.attribution import Attribution
from headstart.explaining.pixels.deletion import area_under, curve
from headstart.explaining.pixels.grad_model import Squares, featureless
from headstart.explaining.pixels.hiding import hiding
from headstart.explaining.pixels.method import METHODS, PIXELS, Method
from headstart.explaining.pixels.probed_model import (
    ProbedModel,
    activations_at,
    logits_from,
    slope_of,
)
from headstart.explaining.pixels.probing import Probe
from headstart.heads.head import check_word

STEPS = 24  # of the integral
AT_ONCE = 8  # squares in a batch, or steps of the integral over the pixels of one square
BROAD = 0.09  # sigma of the smoothing, a share of the side; evidence for a texture is spread out
CLEARLY = 0.9  # a later map replaces an earlier one only below this share of its area


def attribute(
    probed: ProbedModel, squares: Squares, numbers: NDArray[np.int64], method: Method = "best"
) -> list[Attribution]:
    """Return an attribution map of each input square (N, S, S, 3), for its topic in `numbers` (N,).

    A topic is a class, a label or the only quantity (`Target.topics`).


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
    maps = list[Attribution]()
    for first in range(0, len(squares), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        maps += WAYS[method](_Batch(probed, squares[part], numbers[part]))
    return maps


def picked(
    probed: ProbedModel, square: NDArray[np.uint8], maps: Sequence[Attribution]
) -> Attribution:
    """Return the map with the smallest deletion area; a later map must be clearly smaller."""
    best, smallest = maps[0], np.inf
    for map in maps:
        scores = curve(probed, square, map.over(len(square)), map.number)
        if (area := area_under(scores)) < CLEARLY * smallest:
            best, smallest = map, area
    return best


@dataclass(frozen=True, eq=False)
class _Batch:
    """Squares (N, S, S, 3), and the number of the topic of each to explain, (N,)."""

    probed: ProbedModel
    squares: Squares
    numbers: NDArray[np.int64]

    @cached_property
    def pixels(self) -> Tensor:
        squares = torch.from_numpy(np.ascontiguousarray(self.squares))
        return squares.to(self.probed.model.device).float()

    @cached_property
    def topics(self) -> Tensor:
        return torch.from_numpy(self.numbers).to(self.probed.model.device)

    def best(self) -> list[Attribution]:
        depths, hidden = list(self.by_depth()), self.by_hiding()
        smooth = [map.smoothed(BROAD) for map in depths[-1]]
        unsure = self.probed.mixed or not self.probed.probes
        ways = [hidden, *depths, smooth] if unsure else [*depths, smooth, hidden]
        each = zip(self.squares, zip(*ways, strict=True), strict=True)
        return [picked(self.probed, square, maps) for square, maps in each]

    def by_places(self) -> list[Attribution]:
        return list(self.by_depth())[-1]

    def by_depth(self) -> Iterator[list[Attribution]]:
        """Yield `places` maps of the last layer, of the last two, …; or `pixels` maps."""
        if not self.probed.probes:
            yield self.by_pixels()
        added, names = list[Tensor](), list[str]()
        for probe in self.probed.probes:
            added.append(self._added_at(probe))
            names.append(probe.name)
            mean = torch.stack([_spread(values, probe.side) for values in added]).mean(dim=0)
            yield self._maps(mean, "places", " and ".join(names))

    def by_hiding(self) -> list[Attribution]:
        lost = torch.from_numpy(hiding(self.probed, self.squares, self.numbers))
        return self._maps(lost, "hiding", PIXELS)

    def by_gradcam(self) -> list[Attribution]:
        if not self.probed.probes:
            return self.by_pixels()
        model, probe = self.probed.model, self.probed.tokens or self.probed.probes[0]
        with torch.no_grad():
            there = activations_at(model, probe, self.pixels)
        evidence = model.target.evidence
        slope = slope_of(lambda x: evidence(logits_from(model, probe, x), self.topics), there)
        weights = probe.grid(slope).mean(dim=(1, 2), keepdim=True)
        return self._maps((weights * probe.grid(there)).sum(dim=-1), "gradcam", probe.name)

    def by_pixels(self) -> list[Attribution]:
        logits, blank = self.probed.model.logits, featureless(self.pixels)
        added = self._integrated(logits, self.pixels, blank, AT_ONCE)
        return self._maps(added.sum(dim=-1), PIXELS, PIXELS)

    def _added_at(self, probe: Probe) -> Tensor:  # -> (N, h, w)
        """Return the integrated gradients at one probe, summed over channels."""
        model = self.probed.model
        with torch.no_grad():
            there = activations_at(model, probe, self.pixels)
            without = activations_at(model, probe, featureless(self.pixels))
        logits, rows = partial(logits_from, model, probe), AT_ONCE * len(self.pixels)
        return probe.grid(self._integrated(logits, there, without, rows)).sum(dim=-1)

    def _integrated(
        self, logits: Callable[[Tensor], Tensor], there: Tensor, without: Tensor, rows: int
    ) -> Tensor:
        """Return integrated gradients from the baseline `without` to `there`, `rows` in a batch."""
        try:
            from captum.attr import IntegratedGradients
        except ImportError:
            raise MissingPackage("captum", purpose="Explaining", extra="train") from None
        evidence = self.probed.model.target.evidence
        odds = IntegratedGradients(lambda x, topics: evidence(logits(x), topics))
        added: Tensor = odds.attribute(
            there,
            without,
            additional_forward_args=(self.topics,),
            n_steps=STEPS,
            internal_batch_size=max(rows, len(there)),
        )
        return added.detach()

    def _maps(self, values: Tensor, method: Method, layer: str) -> list[Attribution]:
        of = zip(values.float().cpu().numpy(), self.numbers, strict=True)  # (N, h, w), (N,)
        return [Attribution(own, int(number), method, layer) for own, number in of]


def _spread(values: Tensor, side: int) -> Tensor:  # (N, h, w) -> (N, side, side)
    """Interpolate the maps to a finer grid; divide the values so that the sum is kept."""
    how: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
    finer = nn.functional.interpolate(values[:, None], (side, side), **how)[:, 0]
    return finer * (values.shape[-1] / side) ** 2


WAYS: dict[Method, Callable[[_Batch], list[Attribution]]] = {
    "best": _Batch.best,
    "places": _Batch.by_places,
    "hiding": _Batch.by_hiding,
    "gradcam": _Batch.by_gradcam,
    PIXELS: _Batch.by_pixels,
}
