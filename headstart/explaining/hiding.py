"""What is lost where a spot of the square is hidden: the one map that no network can object to."""

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.explaining.deletion import blurred
from headstart.explaining.lens import Squares, log_odds
from headstart.explaining.looker import Looker

SPOTS = 7  # a side


def hiding(
    looker: Looker, squares: Squares, numbers: NDArray[np.int64]
) -> NDArray[np.float32]:  # (N, S, S, 3), (N,) -> (N, SPOTS, SPOTS)
    """How far the log odds of each square's class fall (Zeiler, Fergus 2014, section 4.2).

    Spots have soft edges, a hard one being something new to see, and show what is left of the
    square by the blur of deletion curves.
    """
    lost = np.empty((len(squares), SPOTS, SPOTS), np.float32)
    spots = _spots(squares.shape[1])
    for values, square, number in zip(lost, squares, numbers, strict=True):
        whole, blur = square.astype(np.float32), blurred(square).astype(np.float32)
        before = _odds(looker, square[None], number)
        for row, masks in zip(values, spots, strict=True):
            row[:] = before - _odds(looker, whole + masks[..., None] * (blur - whole), number)
    return lost


def _spots(side: int) -> NDArray[np.float32]:  # -> (SPOTS, SPOTS, side, side)
    """Bells of height 1, as wide (sigma) as they are apart, by the row and the column of each."""
    middles = (np.arange(SPOTS, dtype=np.float32) + 0.5) * side / SPOTS
    away = np.arange(side, dtype=np.float32)[None] + 0.5 - middles[:, None]
    bell = np.exp(-0.5 * (away * SPOTS / side) ** 2)
    return bell[:, None, :, None] * bell[None, :, None, :]


def _odds(
    looker: Looker, squares: NDArray[np.float32] | Squares, number: np.int64
) -> NDArray[np.float32]:
    logits = looker.forward.logits(np.rint(squares).astype(np.uint8))
    return log_odds(logits, torch.full((len(squares),), int(number))).numpy()
