"""From numbers of more than 8 bits to levels of 0 to 255."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError


def usual_range(low: float, high: float, *, floats: bool) -> tuple[float, float]:
    """Which values are black and white in numbers that lie between `low` and `high`.

    32-bit integers and floats carry no range, so the smallest usual one that holds all values is
    taken: 0..1 (floats only), 0..255, 0..65535, or else 0..max; with negative values, min..max.
    """
    if low < 0:
        return low, high
    usual = (1.0, 255.0, 65535.0) if floats else (255.0, 65535.0)
    return 0.0, next((top for top in usual if high <= top), high)


def to_levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Values from `low` (black) to `high` (white) as 0 to 255, rounded."""
    scale = 255.0 / ((high - low) or 1.0)
    return np.rint((values.astype(np.float64) - low) * scale).astype(np.uint8)


def check_finite(values: NDArray[Any]) -> None:
    """Raise DataError if a value is infinite or not a number."""
    if not np.isfinite(values).all():
        raise DataError("holds values that are not finite numbers")
