"""Sequences whose elements are made when they are asked for, from columns of less memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", covariant=True)
Rows = Sequence[int] | NDArray[np.integer[Any]]


class LazySequence(Sequence[T], ABC):
    """The base of such sequences: a class gives `__len__`, `row` and `take`.

    A slice is a sequence of the same class. Two are equal, and equal to a tuple or a list, if their
    elements are.

    >>> class Squares(LazySequence[int]):
    ...     def __init__(self, roots):
    ...         self.roots = roots
    ...     def __len__(self):
    ...         return len(self.roots)
    ...     def row(self, row):
    ...         return self.roots[row] ** 2
    ...     def take(self, rows):
    ...         return Squares([self.roots[row] for row in rows])
    >>> squares = Squares([1, 2, 3])
    >>> squares[-1], squares[:2] == [1, 4]
    (9, True)
    """

    @abstractmethod
    def row(self, row: int) -> T:
        """Return the element of a row from 0 to `len(self) - 1`."""

    @abstractmethod
    def take(self, rows: Rows) -> Self:
        """Return the elements of these rows, in this order."""

    @overload
    def __getitem__(self, row: int) -> T: ...
    @overload
    def __getitem__(self, row: slice) -> Self: ...
    def __getitem__(self, row: Any) -> "T | Self":
        rows = range(len(self))[row]
        return self.take(rows) if isinstance(rows, range) else self.row(rows)

    def __iter__(self) -> Iterator[T]:
        return map(self.row, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == its for mine, its in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} rows)"
