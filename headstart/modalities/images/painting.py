"""Paint an attribution map over the network's input. No PyTorch."""

import numpy as np
from numpy.typing import NDArray

FOR, AGAINST = (226, 74, 18), (28, 98, 200)  # orange and blue
PALE = 0.75  # share of the grey picture's contrast that stays below the map
MOST = 0.995  # quantile of the map's magnitudes that is painted at full strength


def painted(square: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Paint a map over the network's input (S, S, 3), which is made grey and paler.

    values: (S, S), above 0 for the class, below 0 against it.
    """
    most = max(float(np.quantile(np.abs(values), MOST)), 1e-12)
    strength = np.clip(np.abs(values) / most, 0, 1)[..., None] ** 0.8 * 0.85
    grey = square.mean(axis=2, keepdims=True)
    pale = 255 - (255 - grey) * PALE
    colour = np.where(values[..., None] > 0, np.array(FOR), np.array(AGAINST))
    return np.rint(pale * (1 - strength) + colour * strength).astype(np.uint8)
