"""Scale numbers of more than 8 bits to levels of 0 to 255."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError


def usual_range(low: float, high: float, *, floats: bool) -> tuple[float, float]:
    """Return the values of black and white, for numbers between `low` and `high`.

    32-bit integers and floats have no range of their own. The result is the smallest usual range
    of all values: 0..1 (floats only), 0..255, 0..65535, or else 0..max; min..max if low < 0.
    """
    if low < 0:
        return low, high
    usual = (1.0, 255.0, 65535.0) if floats else (255.0, 65535.0)
    return 0.0, next((top for top in usual if high <= top), high)


def to_levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale values from `low` (black) to `high` (white) to 0..255, rounded."""
    scale = 255.0 / ((high - low) or 1.0)
    return np.rint((values.astype(np.float64) - low) * scale).astype(np.uint8)


def check_finite(values: NDArray[Any]) -> None:
    """Raise DataError if a value is infinite or not a number."""
    if not np.isfinite(values).all():
        raise DataError("holds values that are not finite numbers")
