"""The scale by which solved heads divide their columns, worked out plainly."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def scale_of(x: NDArray[Any], weights: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Return (D,): the deviations of the columns and 0.3 of their root mean square, as sides of a
    right angle."""
    mean = np.average(x.astype(np.float64), axis=0, weights=weights)
    square = np.average((x - mean) ** 2, axis=0, weights=weights)
    scale: NDArray[np.float64] = np.sqrt(square + 0.09 * square.mean())
    return scale
