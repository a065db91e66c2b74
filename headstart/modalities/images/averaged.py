"""Test-time views of a picture: the flips, quarter turns and crops of an augmentation, in a fixed
order. The mean of their features stands for the picture (test-time augmentation).

They move pixels or resize them by Pillow, so that a served bundle needs no PyTorch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.base.errors import SpecError
from headstart.base.values import Record
from headstart.modalities.images.augment import Augment, Flip

USUAL = 8  # views, at most, where no number is given
TURNED = {  # quarter turns, and whether the result is mirrored left to right; by turns and flips
    (False, "none"): ((0, False),),
    (False, "horizontal"): ((0, False), (0, True)),
    (False, "vertical"): ((0, False), (2, True)),
    (False, "both"): ((0, False), (0, True), (2, True), (2, False)),
    (True, "none"): ((0, False), (2, False), (1, False), (3, False)),
}
ALL_TURNED = tuple((turns, mirrored) for turns in (0, 2, 1, 3) for mirrored in (False, True))


@dataclass(frozen=True)
class Change:
    """A view: a crop of the square, then quarter turns to the left, then mirrored or not.

    top, left, side: of the crop, in pixels.
    """

    top: int
    left: int
    side: int
    turns: int
    mirrored: bool


@dataclass(frozen=True)
class AveragedViews(Record):
    """The first `count` views that these changes allow; a `count` of 1 is the picture alone.

    flip, quarter_turns: as in `Augment`. crop: its `resized_crop`; the crops have the mean share
    that training draws, in the centre and at the corners. They follow the whole picture.

    >>> AveragedViews("horizontal", quarter_turns=True).most, AveragedViews("both", crop=0.5).most
    (8, 24)
    """

    flip: Flip = "none"
    quarter_turns: bool = False
    crop: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        Augment(self.flip, self.quarter_turns, resized_crop=self.crop)  # checks these settings
        if not 1 <= self.count <= self.most:
            raise SpecError(
                f"Test-time views are from 1 to {self.most}, as many as the flips, quarter turns "
                f"and crops of the augmentation give; got {self.count}."
            )

    @classmethod
    def of(cls, views: Any, count: int = 0) -> "AveragedViews":
        """Return `count` views of an augmentation's; 0 for up to 8. Raises SpecError if it has
        none, as if made by a user's function."""
        own = views if isinstance(views, Augment) else Augment()
        every = cls(own.flip, own.quarter_turns, own.resized_crop)
        if every.most == 1:
            raise SpecError(
                "Test-time views are the flips, quarter turns and crops that training draws from, "
                "and there are none: name --flip, --quarter-turns or --resized-crop, or leave tta "
                "out."
            )
        return replace(every, count=count or min(USUAL, every.most))

    @property
    def most(self) -> int:
        """How many views the changes allow."""
        return len(self._turned) * (1 if self.crop == 1 else 6)

    def __call__(self, square: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the views (count, S, S, 3) of a square (S, S, 3), the square itself first."""
        if self.count == 1:
            return square[None]
        return np.stack([_changed(square, change) for change in self.changes(len(square))])

    def changes(self, size: int) -> Iterator[Change]:
        """Yield the views of a square of this size."""
        every = (Change(*box, *turn) for box in self._boxes(size) for turn in self._turned)
        for change, _ in zip(every, range(self.count), strict=False):
            yield change

    @property
    def _turned(self) -> tuple[tuple[int, bool], ...]:
        return TURNED.get((self.quarter_turns, self.flip), ALL_TURNED)

    def _boxes(self, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield top, left and side of the whole and of the crops: centre, then opposite corners."""
        yield 0, 0, size
        side = max(1, round(size * math.sqrt((1 + self.crop) / 2)))
        end, middle = size - side, (size - side) // 2
        for top, left in ((middle, middle), (0, 0), (end, end), (0, end), (end, 0)):
            yield top, left, side


def _changed(square: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    size = len(square)
    if change.side < size:
        box = change.left, change.top, change.left + change.side, change.top + change.side
        cut = Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR, box=box)
        square = np.asarray(cut)
    turned = np.rot90(square, change.turns)
    return turned[:, ::-1] if change.mirrored else turned
