"""Occlusion maps: the effect of hiding a spot. They need no gradients, so any network works."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.explaining.pixels.grad_model import Squares, featureless
from headstart.explaining.pixels.probed_model import ProbedModel

SPOTS = 7  # per side


def hiding(
    probed: ProbedModel, squares: Squares, numbers: NDArray[np.int64]
) -> NDArray[np.float32]:  # (N, S, S, 3), (N,) -> (N, SPOTS, SPOTS)
    """Return the mean of how far the log odds of each square's class fall where a spot is hidden
    (Zeiler, Fergus 2014, section 4.2) and how far they rise where only the spot is shown.

    These are two terms of a Shapley value: the spot added last, and added first. Each alone fails:
    hiding one of several redundant spots loses nothing, and showing one of several spots that only
    count together gains nothing. Spots have soft edges, since a hard edge adds a shape.
    """
    added = np.empty((len(squares), SPOTS, SPOTS), np.float32)
    spots = _spots(squares.shape[1])
    for values, square, number in zip(added, squares, numbers, strict=True):
        logits = probed.forward.logits(_hidden_and_shown(square, spots))
        odds = probed.model.target.evidence(logits, int(number)).numpy().reshape(-1, 2)
        (whole, blank), (hidden, alone) = odds[0], odds[1:].T
        values[:] = np.reshape((whole - hidden + alone - blank) / 2, values.shape)
    return added


def _hidden_and_shown(
    square: NDArray[np.uint8], spots: NDArray[np.float32]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the square, a blank one, then per spot the square without it and the spot alone."""
    whole = square.astype(np.float32)
    blank = featureless(torch.from_numpy(whole)[None])[0].numpy()
    for mask in (np.zeros_like(spots[0]), *spots):
        yield np.rint(whole + mask * (blank - whole)).astype(np.uint8)
        yield np.rint(blank + mask * (whole - blank)).astype(np.uint8)


def _spots(side: int) -> NDArray[np.float32]:  # -> (SPOTS * SPOTS, side, side, 1)
    """Return Gaussian masks of height 1 on a grid, row by row; their distance is their sigma."""
    middles = (np.arange(SPOTS, dtype=np.float32) + 0.5) * side / SPOTS
    away = np.arange(side, dtype=np.float32)[None] + 0.5 - middles[:, None]
    bell = np.exp(-0.5 * (away * SPOTS / side) ** 2)
    return (bell[:, None, :, None] * bell[None, :, None, :]).reshape(SPOTS**2, side, side, 1)
