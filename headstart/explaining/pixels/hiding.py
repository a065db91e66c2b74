"""What a spot of the square adds, seen from outside: the one map that no network can object to."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.explaining.pixels.lens import Squares, featureless, log_odds
from headstart.explaining.pixels.looker import Looker

SPOTS = 7  # a side


def hiding(
    looker: Looker, squares: Squares, numbers: NDArray[np.int64]
) -> NDArray[np.float32]:  # (N, S, S, 3), (N,) -> (N, SPOTS, SPOTS)
    """How far the log odds of each square's class fall where a spot is hidden (Zeiler, Fergus 2014,
    section 4.2) and how far they rise where it alone is shown, the mean of both.

    They are what a spot adds when it comes last and when it comes first, the two ends of a Shapley
    value: of what several spots tell alike, hiding one loses nothing; of what only several tell
    together, one alone gives nothing. Spots have soft edges, a hard one being something new to see.
    """
    added = np.empty((len(squares), SPOTS, SPOTS), np.float32)
    spots = _spots(squares.shape[1])
    for values, square, number in zip(added, squares, numbers, strict=True):
        logits = looker.forward.logits(_hidden_and_shown(square, spots))
        odds = log_odds(logits, torch.full((len(logits),), int(number))).numpy().reshape(-1, 2)
        (whole, blank), (hidden, alone) = odds[0], odds[1:].T
        values[:] = np.reshape((whole - hidden + alone - blank) / 2, values.shape)
    return added


def _hidden_and_shown(
    square: NDArray[np.uint8], spots: NDArray[np.float32]
) -> Iterator[NDArray[np.uint8]]:
    """In turn with a spot hidden, and with it alone: of none, so all and nothing; then of each."""
    whole = square.astype(np.float32)
    blank = featureless(torch.from_numpy(whole)[None])[0].numpy()
    for mask in (np.zeros_like(spots[0]), *spots):
        yield np.rint(whole + mask * (blank - whole)).astype(np.uint8)
        yield np.rint(blank + mask * (whole - blank)).astype(np.uint8)


def _spots(side: int) -> NDArray[np.float32]:  # -> (SPOTS * SPOTS, side, side, 1)
    """Bells of height 1, as wide (sigma) as they are apart, row by row."""
    middles = (np.arange(SPOTS, dtype=np.float32) + 0.5) * side / SPOTS
    away = np.arange(side, dtype=np.float32)[None] + 0.5 - middles[:, None]
    bell = np.exp(-0.5 * (away * SPOTS / side) ** 2)
    return (bell[:, None, :, None] * bell[None, :, None, :]).reshape(SPOTS**2, side, side, 1)
