"""Metrics of boxes: average precision by class and by size, and recall, for resampled examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart.targets.box_errors import JudgedBoxes
from headstart.targets.box_matching import ClassMatches, Detections, match
from headstart.targets.box_values import BoxLabels

Rows = NDArray[np.int64]  # numbers of examples, with repetitions
Statistic = Callable[[Rows], float]
SMALL, LARGE = 32.0**2, 96.0**2  # COCO's limits of sizes, square pixels
COCO_SIZES = {
    "COCO small": (0.0, SMALL),
    "COCO medium": (SMALL, LARGE),
    "COCO large": (LARGE, 1e10),
}
AT_50, AT_75 = slice(0, 1), slice(5, 6)  # of the thresholds of overlap
EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class ScoredBoxes:
    """Detections of N examples, matched to their true boxes; C is the number of classes."""

    truth: BoxLabels
    found: Sequence[Detections]
    classes: int

    @cached_property
    def matches(self) -> tuple[ClassMatches, ...]:
        """The matches of each class, of boxes of all sizes."""
        return match(self.truth, self.found, self.classes)

    @cached_property
    def judged(self) -> JudgedBoxes:
        """What each detection is: right, or an error of a kind."""
        return JudgedBoxes.of(self.truth, self.found, self.classes)

    def precision(self, at: slice) -> Statistic:
        """Return the mean average precision of the classes that have boxes; NaN without any."""
        return _mean(self.matches, at, ClassMatches.average_precision)

    def recall(self, at: slice) -> Statistic:
        """Return the mean share of found boxes of the classes that have boxes; NaN without any."""
        return _mean(self.matches, at, ClassMatches.recall)

    def of_class(self, c: int) -> "OneClass":
        return OneClass(self.matches[c])

    def of_sizes(self, sizes: tuple[float, float]) -> Statistic:
        """Return the mean average precision (AP) for boxes of these areas alone."""
        matches = match(self.truth, self.found, self.classes, sizes)
        return _mean(matches, EVERY, ClassMatches.average_precision)


@dataclass(frozen=True, eq=False)
class OneClass:
    """The statistics of one class."""

    matches: ClassMatches

    def precision(self, at: slice) -> Statistic:
        return _mean((self.matches,), at, ClassMatches.average_precision)

    def recall(self, at: slice) -> Statistic:
        return _mean((self.matches,), at, ClassMatches.recall)


def _mean(
    matches: Sequence[ClassMatches],
    at: slice,
    of: Callable[[ClassMatches, Rows], NDArray[np.float64] | None],
) -> Statistic:
    def statistic(rows: Rows) -> float:
        if not matches:
            return np.nan
        counts = np.bincount(rows, minlength=len(matches[0].totals))
        values = [value[at].mean() for own in matches if (value := of(own, counts)) is not None]
        return float(np.mean(values)) if values else np.nan

    return statistic


def size_ranges(y: BoxLabels) -> Mapping[str, tuple[float, float]]:
    """Return ranges of areas by name: thirds of the boxes of these examples, and COCO's.

    >>> from headstart.targets.box_values import ExampleBoxes
    >>> y = BoxLabels.of([ExampleBoxes([[0, 0, n, n] for n in range(1, 10)], [0] * 9)])
    >>> [name for name in size_ranges(y)][:2]
    ['smallest third, up to 4 px', 'middle third, up to 6 px']
    """
    own = y.boxes.areas[~y.boxes.ignored]
    if not len(own):
        return COCO_SIZES
    low, high = np.quantile(own, [1 / 3, 2 / 3])
    names = (
        f"smallest third, up to {np.sqrt(low):.0f} px",
        f"middle third, up to {np.sqrt(high):.0f} px",
        f"largest third, above {np.sqrt(high):.0f} px",
    )
    above = [0.0, float(np.nextafter(low, np.inf)), float(np.nextafter(high, np.inf))]
    return dict(zip(names, zip(above, (low, high, 1e10), strict=True), strict=True)) | COCO_SIZES
