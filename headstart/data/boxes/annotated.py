"""Annotated pictures as their files describe them, before any check against the pictures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError
from headstart.data.dataset import LeftOut, Remark

Doubles = NDArray[np.float64]
Layout = Literal["xyxy", "xywh", "centre"]
UNITS = {"pixels": None, "shares": 1.0, "percent": 100.0}  # what the whole side is, in that unit
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Frame:
    """The size of a picture when it is upright, and its EXIF orientation, 1 for none."""

    width: int
    height: int
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height as the file stores them, before it is turned upright."""
        return self.size[::-1] if self.orientation in TURNED else self.size


FrameOf = Callable[[Path], Frame]  # raises DataError or OSError for an unreadable picture


@dataclass(frozen=True)
class BoxForm:
    """What the four numbers of a box mean, and their unit.

    layout: "xyxy" corners; "xywh" the upper left corner, width and height; "centre" the centre,
    width and height. unit: "pixels", "shares" or "percent" of the picture's width and height.

    >>> form = BoxForm("xywh")
    >>> form.corners(np.array([[1, 2, 3, 4]]), np.array([[9, 9]])).tolist()
    [[1.0, 2.0, 4.0, 6.0]]
    """

    layout: Layout = "xyxy"
    unit: str = "pixels"

    def corners(self, numbers: NDArray[np.floating], sizes: Doubles) -> Doubles:
        """Return xmin, ymin, xmax, ymax in pixels, (M, 4), of boxes in pictures of sizes (M, 2)."""
        a, b = np.asarray(numbers[:, :2], np.float64), np.asarray(numbers[:, 2:], np.float64)
        whole = UNITS[self.unit]
        with np.errstate(all="ignore"):  # numbers that are not finite are named later
            if whole is not None:
                a, b = a / whole * sizes, b / whole * sizes
            if self.layout == "centre":
                a, b = a - b / 2, a + b / 2
            elif self.layout == "xywh":
                b = a + b
        return np.hstack([a, b])

    @property
    def code(self) -> str:
        """The layout and the unit by name, for a report's words: "xywh pixels"."""
        return f"{self.layout} {self.unit}"

    def __str__(self) -> str:
        meaning = {
            "xyxy": "two corners (xmin, ymin, xmax, ymax)",
            "xywh": "a corner and the sides (xmin, ymin, width, height)",
            "centre": "the centre and the sides (x, y, width, height)",
        }
        return f"{meaning[self.layout]} in {self.unit}"


@dataclass(frozen=True)
class RawBox:
    """One box as its file has it. where: its place in the file, for messages: "object 3". area: of
    the object's outline in square pixels, NaN if the box alone is known."""

    label: str
    numbers: tuple[float, float, float, float]
    where: str
    crowd: bool = False
    difficult: bool = False
    area: float = math.nan


@dataclass(frozen=True)
class AnnotatedPicture:
    """One picture and its boxes. file: of the picture. size: what the annotations say, or None."""

    file: Path
    id: str
    boxes: tuple[RawBox, ...]
    size: tuple[int, int] | None = None
    part: str = ""
    group: str = ""


@dataclass(frozen=True)
class Annotations:
    """All that a data set's annotations say.

    format: its name in messages. form: of all boxes. names: classes that the files declare.
    left_out: what could not be used, each by its place. remarks: what else is remarkable.
    """

    format: str
    form: BoxForm
    pictures: tuple[AnnotatedPicture, ...]
    names: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    remarks: tuple[Remark, ...] = ()


def four(values: object) -> tuple[float, float, float, float]:
    """Return four numbers; DataError, with the reason as a phrase, for anything else."""
    if not isinstance(values, list | tuple) or len(values) != 4:
        n = len(values) if isinstance(values, list | tuple) else 0
        if n == 5:
            raise DataError("a box with an angle (5 numbers); rotated boxes are not read")
        raise DataError(f"a box is four numbers; there are {n}")
    a, b, c, d = map(number, values)
    return a, b, c, d


def number(value: object) -> float:
    """Return a number or a text of one as float, infinite and NaN too; DataError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DataError(f"a number is missing: {str(value)[:40]!r}")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise DataError(f"no number: {str(value)[:40]!r}") from None


def size_of(width: object, height: object) -> tuple[int, int] | None:
    """Return a declared size, None if it is missing, zero or no number."""
    try:
        size = number(width), number(height)
    except DataError:
        return None
    if not all(0 < side < 1e9 for side in size):
        return None
    return round(size[0]), round(size[1])
