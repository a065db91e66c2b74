"""A map laid over its square, as pictures and pages show it: no PyTorch."""

import numpy as np
from numpy.typing import NDArray

FOR, AGAINST = (226, 74, 18), (28, 98, 200)  # orange and blue
PALE = 0.75  # how much of the picture's contrast stays below the map, and none of its colour
MOST = 0.995  # of a map's values lie below what is painted at full strength


def painted(square: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The square (S, S, 3), grey and paler, under what speaks for a class and what against it.

    values: (S, S), above 0 for, below against.
    """
    most = max(float(np.quantile(np.abs(values), MOST)), 1e-12)
    strength = np.clip(np.abs(values) / most, 0, 1)[..., None] ** 0.8 * 0.85
    grey = square.mean(axis=2, keepdims=True)
    pale = 255 - (255 - grey) * PALE
    colour = np.where(values[..., None] > 0, np.array(FOR), np.array(AGAINST))
    return np.rint(pale * (1 - strength) + colour * strength).astype(np.uint8)
