"""Integrated gradients over the tokens of a text (Sundararajan, Taly, Yan 2017, eq. 1).

The path leads from the text with all of its tokens hidden, special ones apart, to the text itself,
in the space behind the embedding layer. What the tokens get adds up to the difference
of the evidence between both ends (completeness); the error of the integral is kept.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.explaining.tokens.text_model import (
    TextGradModel,
    TextPlaces,
    parts,
    versions_at_once,
)

STEPS = (12, 36, 108)  # of the integral; the next number if the error is above TOLERANCE
TOLERANCE = 0.02  # error of the sum, a share of all that is given to tokens


@dataclass(frozen=True, eq=False)
class TokenAttribution:
    """values: (P, L), what each token adds to the evidence; 0 for special tokens. difference: of
    the evidence between the text and the masked one, to which the values should add up."""

    values: NDArray[np.float64]
    topic: int
    difference: float

    @property
    def error(self) -> float:
        """How far the sum of the values is from the difference."""
        return abs(float(self.values.sum()) - self.difference)

    @property
    def complete(self) -> bool:
        return self.error <= TOLERANCE * float(np.abs(self.values).sum())


def attribute_tokens(
    model: TextGradModel, places: TextPlaces, topic: int, steps: tuple[int, ...] = STEPS
) -> TokenAttribution:
    """Return what each token adds to the evidence of a topic, with as few steps as suffice."""
    ends = np.concatenate([model.features(places, places.own), model.features(places)])
    with torch.inference_mode():
        without, there = model.evidence(torch.from_numpy(ends).to(model.device), topic).tolist()
    for count in steps:
        values = _integral(model, places, topic, count)
        found = TokenAttribution(values, topic, there - without)
        if found.complete:
            break
    return found


def _integral(
    model: TextGradModel, places: TextPlaces, topic: int, count: int
) -> NDArray[np.float64]:
    """Return the integral by the Gauss-Legendre rule with `count` points on the path."""
    points, shares = np.polynomial.legendre.leggauss(count)
    points, shares = (points + 1) / 2, shares / 2
    total, few = np.zeros(places.ids.shape), versions_at_once(places)
    for some in parts(count, max(1, few)):
        slopes = _slopes_together if few else _slopes_in_turn
        total += np.tensordot(shares[some], slopes(model, places, topic, points[some]), axes=1)
    return np.where(places.own, total, 0.0)


def _slopes_together(
    model: TextGradModel, places: TextPlaces, topic: int, at: NDArray[np.float64]
) -> NDArray[np.float64]:  # (K, P, L)
    """Return the gradients at K points of the path, times the whole change of each token."""
    without, change = _path(model, places, slice(None))
    hidden = without + torch.from_numpy(at).float().to(change.device)[:, None, None, None] * change
    hidden.requires_grad_()
    mask = np.tile(places.mask, (len(at), 1))
    x = model.above(hidden.flatten(0, 1), mask).unflatten(0, (len(at), -1))  # (K, P, D)
    evidence = model.evidence(torch.einsum("p,kpd->kd", model.weights(places), x), topic)
    (slope,) = torch.autograd.grad(evidence.sum(), hidden)
    return (slope * change).sum(dim=3).cpu().double().numpy()


def _slopes_in_turn(
    model: TextGradModel, places: TextPlaces, topic: int, at: NDArray[np.float64]
) -> NDArray[np.float64]:  # (1, P, L)
    """Return the gradients at a single point, of a text with many windows.

    Windows are read a few at a time, twice: for the features, and for the gradients.
    """
    weights, point = model.weights(places), float(at[0])
    chunks = list(parts(len(places.ids)))
    with torch.no_grad():
        found = [model.above(_between(model, places, c, point)[0], places.mask[c]) for c in chunks]
        x = (weights[:, None] * torch.cat(found)).sum(dim=0, keepdim=True)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model.evidence(x, topic).sum(), x)
    made = list[Tensor]()
    for c in chunks:
        hidden, change = _between(model, places, c, point)
        hidden.requires_grad_()
        (own,) = torch.autograd.grad(
            model.above(hidden, places.mask[c]), hidden, weights[c, None] * slope
        )
        made.append((own * change).sum(dim=2))
    return torch.cat(made)[None].cpu().double().numpy()


def _between(
    model: TextGradModel, places: TextPlaces, part: slice, at: float
) -> tuple[Tensor, Tensor]:
    """Return the hidden states of some windows at a point of the path, and the path's whole change:
    (P, L, H) each."""
    without, change = _path(model, places, part)
    return without + at * change, change


@torch.no_grad()
def _path(model: TextGradModel, places: TextPlaces, part: slice) -> tuple[Tensor, Tensor]:
    """Return the start of the path and its whole change, of some windows: (P, L, H) each."""
    there, without = model.hidden(places, part)
    return without, there - without
