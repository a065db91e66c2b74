"""What the loss of training uses beside the labels: case weights, and probabilities of classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError

Doubles = NDArray[np.float64]
HEAVIEST = 1e30  # largest case weight: the sum of many is finite
ROUNDING = 1e-9  # of the sum of a row's probabilities that were divided by their sum
NEAR = 0.0101  # by which the probabilities of a row may miss a sum of 1: three of .33 sum to .99


@dataclass(frozen=True, eq=False)
class Supervision:
    """How the N rows count in the loss; metrics use neither.

    weights: (N,) case weights: a row of weight 2 counts as if it were there twice, one of weight 0
    as if it were not; None for 1 each. soft: (N, C) probabilities of the classes, which the loss
    learns in place of the labels; None for the labels.

    >>> Supervision(np.array([1.0, 3.0])).relative
    array([0.5, 1.5])
    """

    weights: Doubles | None = None
    soft: Doubles | None = None

    @property
    def plain(self) -> bool:
        """Whether the rows count alike and the loss learns their labels."""
        return self.weights is None and self.soft is None

    @property
    def relative(self) -> Doubles | None:
        """The case weights divided by their mean, (N,); None for 1 each."""
        if self.weights is None:
            return None
        return self.weights / (self.weights.mean() or 1.0)

    @property
    def case(self) -> dict[str, Doubles]:
        """The keyword arguments of `Target.balance` and `Target.row_weights`: the case weights."""
        return {} if self.weights is None else {"case": self.weights}

    @property
    def learned(self) -> NDArray[np.bool_] | None:
        """(N,) whether each row is learned from, with a weight above 0; None if all are."""
        if self.weights is None or (self.weights > 0).all():
            return None
        return np.asarray(self.weights > 0)

    def __getitem__(self, rows: Any) -> "Supervision":
        """Return the supervision of some rows, by their numbers or a mask."""
        weights, soft = (None if a is None else a[rows] for a in (self.weights, self.soft))
        return Supervision(weights, soft)

    def repeated(self, times: int) -> "Supervision":
        """Return the supervision of all rows in their order, `times` times in a row."""
        weights = None if self.weights is None else np.tile(self.weights, times)
        soft = None if self.soft is None else np.tile(self.soft, (times, 1))
        return Supervision(weights, soft)


PLAIN = Supervision()


def check_weights(weights: Sequence[float], ids: Sequence[str]) -> None:
    """Raise DataError, which names the row, for a case weight below 0 or not finite."""
    own = np.array(weights, np.float64)
    wrong = np.flatnonzero(~((own >= 0) & (own <= HEAVIEST)))
    if len(wrong):
        raise DataError(
            f"A weight is a number from 0 to {HEAVIEST:g}; got {own[wrong[0]]} for "
            f"{ids[wrong[0]]}. Change it or take the row out."
        )


def of_sum_one(soft: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """Return the probabilities of each row divided by their sum, unless that is 1 up to rounding.

    soft: N rows of as many numbers, whose sums may miss 1 by NEAR.

    >>> of_sum_one(((0.25, 0.75), (0.495, 0.495)))
    ((0.25, 0.75), (0.5, 0.5))
    """
    if not len(soft):
        return soft
    sums = np.array(soft, np.float64).sum(axis=1)
    off = np.abs(sums - 1) > ROUNDING
    if not off.any():
        return soft
    return tuple(
        tuple(share / total for share in shares) if wrong else tuple(shares)
        for shares, total, wrong in zip(soft, sums.tolist(), off.tolist(), strict=True)
    )


def check_soft(soft: Sequence[Sequence[float]], ids: Sequence[str], classes: int) -> None:
    """Raise DataError, which names the row, unless each row has `classes` numbers that sum to 1."""
    odd = [row for row, shares in enumerate(soft) if len(shares) != classes]
    if not odd:
        own = np.array(soft, np.float64).reshape(len(soft), classes)
        good = (own >= 0).all(axis=1) & (np.abs(own.sum(axis=1) - 1) <= NEAR)
        odd = np.flatnonzero(~good).tolist()
    if odd:
        raise DataError(
            f"A row has a probability of 0 or more for each of {classes} classes, which sum to 1; "
            f"got {tuple(soft[odd[0]])} for {ids[odd[0]]}."
        )
