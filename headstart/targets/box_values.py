"""Boxes around the objects in examples: of one example, and of many, as arrays.

A box is (xmin, ymin, xmax, ymax) in pixels of the upright example, half-open: a box around the
first pixel is (0, 0, 1, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch

Corners = NDArray[np.float32]  # (M, 4): xmin, ymin, xmax, ymax
DTYPES: dict[str, Any] = {
    "corners": np.float32,
    "labels": np.int64,
    "crowd": np.bool_,
    "difficult": np.bool_,
    "area": np.float64,
}


@dataclass(frozen=True, eq=False)
class ExampleBoxes:
    """The M boxes of one example, M may be 0.

    corners: (M, 4) float32 pixels. labels: (M,) int64 numbers of the target's names. crowd: (M,)
    bool, whether a box holds many objects; difficult: (M,) bool; both kinds are ignored in scoring.
    size: width and height of the upright example, (0, 0) if unknown. area: (M,) float64 square
    pixels of the outline of each object, by which COCO tells sizes apart; NaN where the box alone
    is known. Values are compared by their contents, and the arrays can't be written to.

    >>> one = ExampleBoxes([[0, 0, 2, 1]], [0], size=(4, 4))
    >>> len(one), one.areas.tolist(), one == ExampleBoxes([[0, 0, 2, 1]], [0], size=(4, 4))
    (1, [2.0], True)
    """

    corners: Any
    labels: Any
    crowd: Any = None
    difficult: Any = None
    size: tuple[int, int] = (0, 0)
    area: Any = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        for name, dtype in DTYPES.items():
            given, usual = getattr(self, name), np.nan if name == "area" else 0
            column: NDArray[Any] = np.array(np.full(n, usual) if given is None else given, dtype)
            column = column.reshape(-1, 4) if name == "corners" else column
            if len(column) != n:
                raise Mismatch(f"Every box has one of {name}; got {len(column)} for {n} boxes.")
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExampleBoxes) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> tuple[Any, ...]:
        return self.size, *(getattr(self, name).tobytes() for name in DTYPES)

    @property
    def areas(self) -> NDArray[np.float64]:
        """The areas in square pixels, (M,): of the outlines, of boxes where these are unknown."""
        return np.where(np.isnan(self.area), areas(self.corners), self.area)

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(M,) whether scoring ignores a box: it is crowd or difficult."""
        return np.asarray(self.crowd | self.difficult)

    def take(self, boxes: Any) -> "ExampleBoxes":
        """Return the example with only these boxes, by their numbers or a mask."""
        columns: dict[str, Any] = {name: getattr(self, name)[boxes] for name in DTYPES}
        return replace(self, **columns)


@dataclass(frozen=True, eq=False)
class BoxLabels:
    """The boxes of N examples in a row: example i has the boxes offsets[i] to offsets[i + 1].

    offsets: (N + 1,) int64. boxes: of all examples, one after the other. sizes: (N, 2) int64 width
    and height of each upright example. known: (N,) bool, whether an example's boxes are known.

    >>> y = BoxLabels.of([ExampleBoxes([[0, 0, 2, 1]], [0]), ExampleBoxes([], [])])
    >>> len(y), [len(y[i]) for i in range(2)], len(y[np.array([1, 0, 0])].boxes)
    (2, [1, 0], 2)
    """

    offsets: NDArray[np.int64]
    boxes: ExampleBoxes
    sizes: NDArray[np.int64]
    known: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if len(self.known) != len(self):
            object.__setattr__(self, "known", np.ones(len(self), bool))

    @classmethod
    def of(cls, examples: Sequence[ExampleBoxes | None]) -> "BoxLabels":
        """Return the boxes of examples, None where they are not known."""
        each = [NO_BOXES if one is None else one for one in examples]
        every = (NO_BOXES, *each)
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(one, name) for one in every]) for name in DTYPES
        }
        joined = replace(NO_BOXES, **columns)
        offsets = np.cumsum([0, *map(len, each)])
        sizes = np.array([one.size for one in each], np.int64).reshape(-1, 2)
        return cls(offsets, joined, sizes, np.array([one is not None for one in examples], bool))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, rows: int) -> ExampleBoxes: ...
    @overload
    def __getitem__(self, rows: Any) -> "BoxLabels": ...
    def __getitem__(self, rows: Any) -> "ExampleBoxes | BoxLabels":
        """Return the boxes of one example, or of some, by their numbers or a mask."""
        if not np.ndim(rows) and not isinstance(rows, slice):
            row = range(len(self))[rows]
            width, height = self.sizes[row].tolist()
            boxes = self.boxes.take(slice(self.offsets[row], self.offsets[row + 1]))
            return replace(boxes, size=(width, height))
        numbers = np.arange(len(self))[rows].tolist()
        return BoxLabels.of([self[i] if self.known[i] else None for i in numbers])

    @property
    def rows(self) -> NDArray[np.int64]:
        """(M,) the number of the example that each box is of."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


NO_BOXES = ExampleBoxes([], [])


def areas(corners: NDArray[Any]) -> NDArray[np.float64]:
    """Return the areas of boxes (M, 4) in square pixels, (M,)."""
    sides = np.asarray(corners, np.float64)
    return np.asarray((sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1]))


def overlaps(
    a: NDArray[Any], b: NDArray[Any], crowd: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return the intersection over union of boxes a (A, 4) and b (B, 4), (A, B) from 0 to 1.

    crowd: (B,) of these boxes the union is the area of `a` alone, as COCO has it.

    >>> overlaps(np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 1], [2, 2, 3, 3]])).tolist()
    [[0.5, 0.0]]
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low, high = (
        np.maximum(a[:, None, :2], b[None, :, :2]),
        np.minimum(a[:, None, 2:], b[None, :, 2:]),
    )
    inter = np.clip(high - low, 0, None).prod(axis=2)
    own = np.broadcast_to(areas(a)[:, None], inter.shape)
    union = own + areas(b)[None] - inter
    if crowd is not None:
        union = np.where(crowd[None], own, union)
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0))
