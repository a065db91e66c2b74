"""Confusion matrices of very many classes, of which only the cells that are not 0 are held.

With C classes a whole matrix has C² cells: 5,000 classes need 200 MB, and metrics several copies.
The rows of a data set fill at most one cell each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.targets.class_metrics import (
    balanced_accuracy_metric,
    cells_of,
    effective_size,
    macro_f1_metric,
)
from headstart.targets.metrics import Floats, Ints
from headstart.targets.target import Share

MANY = 200  # classes; of more, no whole confusion matrix is made


@dataclass(frozen=True, eq=False)
class Tallies:
    """n[k] rows of class label[k] are predicted as predicted[k]; in the order of these two.

    >>> table = Tallies.of(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    >>> table.label.tolist(), table.predicted.tolist(), table.n.tolist()
    ([0, 0, 1], [0, 1, 1], [1, 1, 1])
    """

    classes: int
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    n: NDArray[np.int64]

    @classmethod
    def of(cls, predicted: Ints, labels: Ints, classes: int) -> "Tallies":
        """Count the pairs of known labels and predictions, each (N,)."""
        key = labels.astype(np.int64) * classes + predicted
        cells, n = np.unique(key, return_counts=True)
        label, answer = np.divmod(cells, max(classes, 1))
        return cls(classes, label, answer, n.astype(np.int64))

    @property
    def many(self) -> bool:
        return self.classes > MANY

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows of each class, (C,)."""
        return self._summed(self.label)

    @property
    def called(self) -> NDArray[np.int64]:
        """The rows predicted as each class, (C,)."""
        return self._summed(self.predicted)

    @property
    def right(self) -> NDArray[np.int64]:
        """The rows of each class that are predicted right, (C,)."""
        own = self.label == self.predicted
        right = np.zeros(self.classes, np.int64)
        right[self.label[own]] = self.n[own]
        return right

    @property
    def matrix(self) -> NDArray[np.int64]:
        """The whole confusion matrix, (C, C)."""
        cells = np.zeros((self.classes, self.classes), np.int64)
        cells[self.label, self.predicted] = self.n
        return cells

    @property
    def mistakes(self) -> NDArray[np.intp]:
        """The numbers of the cells that hold mistakes, the largest first."""
        order = np.argsort(-self.n, kind="stable")
        return order[self.label[order] != self.predicted[order]]

    def class_cells(self) -> list[tuple[int, Share | None, Share | None, Share | None]]:
        """Return rows, precision, recall and F1 of each class; None where undefined."""
        counts = zip(self.rows.tolist(), self.called.tolist(), self.right.tolist(), strict=True)
        return [cells_of(*own) for own in counts]

    def balanced_accuracy(self) -> Share | None:
        """Return what `balanced_accuracy_metric` does of the whole matrix, up to rounding."""
        if not self.many:
            return balanced_accuracy_metric(self.matrix)
        n = self.rows
        if not (there := n > 0).any():
            return None
        likely = np.where(there, (self.right + 2) / (n + 4), 0.0)
        worth = 1.0 / (np.maximum(n, 1) * there.sum())
        variance = float((n * (likely * worth**2 - (likely * worth) ** 2)).sum())
        value = float((self.right[there] / n[there]).mean())
        return Share(value, int(n.sum()), effective_size(float(likely[there].mean()), variance))

    def macro_f1(self) -> Share | None:
        """Return what `macro_f1_metric` does of the whole matrix, up to rounding.

        The smoothed matrix is written as the sparse one plus a constant and a diagonal, so that
        the sums over each of its rows take a few vectors (C,).
        """
        if not self.many:
            return macro_f1_metric(self.matrix)
        n = self.rows
        if not (there := n > 0).any():
            return None
        kept, off = n / (n + 4), 2 / (self.classes - 1)  # of a row's weight; added off the diagonal
        columns = np.bincount(self.predicted, self.n * kept[self.label], minlength=self.classes)
        columns = columns + off * (kept.sum() - kept) + 2 * kept
        called = np.maximum(n + columns, 1e-9)
        f1 = 2 * (self.right + 2) * kept / called
        others, own = (np.where(there, v / called / there.sum(), 0.0) for v in (-f1, 2 - f1))
        mean, square = (
            self._row_sums(a, b, off) / (n + 4) for a, b in ((others, own), (others**2, own**2))
        )
        variance = float((n * (square - mean**2)).sum())
        value = float((2 * self.right / np.maximum(n + self.called, 1))[there].mean())
        return Share(value, int(n.sum()), effective_size(float(f1[there].mean()), variance))

    def _row_sums(self, others: Floats, own: Floats, off: float) -> NDArray[np.float64]:
        """Return the sums of the cells with 2 on the diagonal and `off` elsewhere added, times
        `own` on the diagonal and `others` elsewhere, by row: (C,)."""
        cells = self.n * others[self.predicted]
        sums = np.bincount(self.label, cells, minlength=self.classes) + self.right * (own - others)
        return np.asarray(sums + off * (others.sum() - others) + 2 * own)

    def _summed(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        sums = np.zeros(self.classes, np.int64)
        np.add.at(sums, place, self.n)
        return sums
