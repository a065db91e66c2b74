"""Find pictures that are blurred, dark, overexposed or nearly empty, by their thumbnails.

A measure alone says little: solar cells are dark and scanned digits are not sharp. So a picture is
named only if its measure is beyond a fixed limit and also far from those of the other pictures, and
of the other pictures of its class. Of 1,312 solar cells these limits name 4 (mean levels of 14, 16
and 29 where 157 is usual, and one that is half white), of 1,797 digits none. Of 8 solar cells
spoilt in each way (8 % of the light; four times the light; 2 % of the contrast; a blur of 4 % of
the width) all are named. A small blur does not show in a thumbnail.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST = 20  # pictures to compare with
MOSTLY = 0.1  # a larger share of pictures like this is usual, and none is named
WHITE = 250  # level from which a pixel counts as white
FAR = 4.0  # robust standard deviations from the median (1.4826 x median absolute deviation)
LEAST_SPREAD = 0.05  # added to them, so that alike pictures don't make small differences look large
BLOCK = 256  # thumbnails measured at a time

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """One measure. limit: what a value must be below, or above with `high`. Values with `high` are
    compared as they are, others as logarithms, for they are all positive."""

    kind: str
    limit: float
    high: bool = False


QUALITIES = (
    Quality("dark", 30.0),  # mean level
    Quality("overexposed", 0.4, high=True),  # share of white pixels
    Quality("nearly empty", 6.0),  # standard deviation of levels
    Quality("blurred", 0.12),  # sharpness
)


@dataclass(frozen=True)
class Spoilt:
    """A picture by its row, what is wrong, its measure, and the median of all."""

    row: int
    kind: str
    value: float
    usual: float

    @property
    def facts(self) -> tuple[tuple[str, int], ...]:
        """The measure in whole numbers: levels, or percents."""
        if self.kind == "blurred":
            return (("level", round(100 * self.value / self.usual)),)
        scale = 100 if self.kind == "overexposed" else 1
        return ("level", round(scale * self.value)), ("usual", round(scale * self.usual))

    def __str__(self) -> str:
        numbers = dict(self.facts)
        return {
            "dark": "mean level {level} of 255; usual here is {usual}",
            "overexposed": "{level} % of it is white; usual here is {usual} %",
            "nearly empty": "its levels vary by {level}; usual here is {usual}",
            "blurred": "its sharpness is {level} % of what is usual here",
        }[self.kind].format(**numbers)


def measures(thumbs: NDArray[np.uint8]) -> dict[str, Values]:
    """Return the measures of thumbnails (N, S, S), (N,) each, by kind.

    Sharpness is the mean size of the Laplacian over the standard deviation of the levels, of the
    thumbnail (J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000,
    uses its variance, which depends on the contrast).
    """
    found = {quality.kind: np.empty(len(thumbs)) for quality in QUALITIES}
    for start in range(0, len(thumbs), BLOCK):
        block = thumbs[start : start + BLOCK].astype(np.float32)
        rows = slice(start, start + len(block))
        spread = block.std(axis=(1, 2))
        inner = block[:, 1:-1, 1:-1]
        around = block[:, :-2, 1:-1] + block[:, 2:, 1:-1] + block[:, 1:-1, :-2] + block[:, 1:-1, 2:]
        edges = np.abs(4 * inner - around).mean(axis=(1, 2))
        found["dark"][rows] = block.mean(axis=(1, 2))
        found["overexposed"][rows] = (block >= WHITE).mean(axis=(1, 2))
        found["nearly empty"][rows] = spread
        found["blurred"][rows] = np.where(spread < 1, np.inf, edges / np.maximum(spread, 1))
    return found


def spoilt(thumbs: NDArray[np.uint8], strata: NDArray[np.intp]) -> Iterator[Spoilt]:
    """Yield the pictures whose quality is far from usual, each once, by QUALITIES' order.

    thumbs: (N, S, S). strata: (N,), numbers of their classes, all equal without classes.
    """
    if len(thumbs) < LEAST:
        return
    found, named = measures(thumbs), set[int]()
    for quality in QUALITIES:
        values = found[quality.kind]
        beyond = values > quality.limit if quality.high else values < quality.limit
        low = -values if quality.high else np.log(values + 0.001)
        rows = np.flatnonzero(beyond & _far(low, np.zeros_like(strata)))
        rows = rows[_far(low, strata)[rows]] if len(rows) else rows
        if not len(rows) or len(rows) > MOSTLY * len(values):
            continue
        usual = float(np.median(values[np.isfinite(values)]))
        for row in rows.tolist():
            if row not in named:
                named.add(row)
                yield Spoilt(row, quality.kind, float(values[row]), usual)


def _far(low: Values, strata: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which values are far below the others of their stratum; of few, none is."""
    far = np.zeros(len(low), bool)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        own = low[rows][np.isfinite(low[rows])]
        if not len(own):
            continue
        middle = float(np.median(own))
        spread = 1.4826 * float(np.median(np.abs(own - middle))) + LEAST_SPREAD
        far[rows] = low[rows] < middle - FAR * spread
    return far
