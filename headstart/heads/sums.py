"""Weighted sums of feature rows, from which ridge regression is solved in one pass over them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch
from headstart.heads.basis import Axes, Doubles, scale_of
from headstart.heads.head import BLOCK, Floats, blocks

CELLS = 2**22  # targets made at once, 32 MiB: fewer rows are read at a time where these are many
SPARSE_FROM = 32  # columns of targets, from which on products leave their zeros out


@dataclass(frozen=True, eq=False)
class RidgeSums:
    """The sums of rows x (N, D), their weights w (N,) and targets y (N, K) that ridge needs.

    `merge` adds the sums of other rows, in any order, also those that another process or machine
    made (`tensors`, `of_tensors`). Sums are kept around the means, as Chan, Golub and LeVeque 1983
    (Algorithms for computing the sample variance, eq. 2.1) merge them: no digits are lost where
    means are large.

    >>> x, y = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [4.0], [6.0]])
    >>> sums = RidgeSums.of(x[:1], y[:1]).merge(RidgeSums.of(x[1:], y[1:]))
    >>> weight, bias = sums.solved(1e-9)
    >>> round(float(weight[0, 0]), 6), round(abs(float(bias[0])), 6)
    (2.0, 0.0)
    """

    rows: int  # N
    weight: float  # the sum of w
    mean: Doubles  # (D,)
    target_mean: Doubles  # (K,)
    xx: Doubles  # (D, D), the sum of w (x - mean) (x - mean)ᵀ
    xy: Doubles  # (D, K), the sum of w (x - mean) (y - target_mean)ᵀ
    yy: Doubles  # (K,), the sum of w (y - target_mean)²
    low: Doubles  # (K,), the least target of each column; infinity without rows
    high: Doubles  # (K,), the largest

    @classmethod
    def of(
        cls,
        x: Floats,
        targets: Doubles | Callable[[slice], Doubles],
        weights: Doubles | None = None,
    ) -> "RidgeSums":
        """Return the sums of rows, which are read once, in slices; `x` may be memory-mapped.

        targets: (N, K), or a function that makes those of a slice of rows. weights: (N,), 0 or
        more; None for 1 each.
        """
        make = targets if callable(targets) else targets.__getitem__
        columns = make(slice(0, 0)).shape[1]
        size = max(1, min(BLOCK, CELLS // max(1, columns)))
        parts = (
            cls._of_slice(x[rows], make(rows), None if weights is None else weights[rows])
            for rows in blocks(len(x), size)
        )
        return merged(parts, cls.none(x.shape[1], columns))

    @classmethod
    def none(cls, features: int, columns: int) -> "RidgeSums":
        """Return the sums of no rows."""
        d, k = np.zeros(features), np.zeros(columns)
        low, high = np.full(columns, np.inf), np.full(columns, -np.inf)
        return cls(0, 0.0, d, k, np.zeros((features, features)), np.outer(d, k), k, low, high)

    @classmethod
    def _of_slice(cls, x: Floats, y: Doubles, weights: Doubles | None) -> "RidgeSums":
        w = np.ones(len(x)) if weights is None else weights
        total = float(w.sum())
        if not total > 0:
            return cls.none(x.shape[1], y.shape[1])
        whole = x.astype(np.float64)
        mean, target_mean = w @ whole / total, w @ y / total
        whole -= mean
        roots = np.sqrt(w)[:, None]
        half = whole * roots
        xx, xy = half.T @ half, _products(half * roots, y, target_mean)
        yy = w @ (y - target_mean) ** 2
        kept = y[w > 0]
        low, high = kept.min(axis=0), kept.max(axis=0)
        return cls(len(kept), total, mean, target_mean, xx, xy, yy, low, high)

    def merge(self, other: "RidgeSums") -> "RidgeSums":
        """Return the sums of the rows of both. Raises Mismatch for other columns."""
        if self.xy.shape != other.xy.shape:
            raise Mismatch(
                f"Sums are merged that have the same columns of features and of targets; got "
                f"{self.xy.shape} and {other.xy.shape}. Were they made of the same data?"
            )
        if not other.weight:
            return self
        if not self.weight:
            return other
        a, b = self.weight, other.weight
        apart, y_apart = other.mean - self.mean, other.target_mean - self.target_mean
        share = a * b / (a + b)
        return RidgeSums(
            self.rows + other.rows,
            a + b,
            (a * self.mean + b * other.mean) / (a + b),
            (a * self.target_mean + b * other.target_mean) / (a + b),
            self.xx + other.xx + share * np.outer(apart, apart),
            self.xy + other.xy + share * np.outer(apart, y_apart),
            self.yy + other.yy + share * y_apart**2,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def axes(self, *, scaled: bool = True) -> Axes:
        """Return the eigenvectors of the covariance of the standardised columns.

        scaled: False for columns that are divided by nothing.
        """
        square = np.diag(self.xx) / self.weight
        std = scale_of(self.mean, square) if scaled else np.ones_like(self.mean)
        values, vectors = np.linalg.eigh(self.xx / self.weight / std[:, None] / std)
        return Axes(self.mean, std, vectors, np.maximum(values, 0.0))

    def slopes(self, axes: Axes) -> Doubles:
        """Return the covariances (R, K) of the columns along the axes with the targets."""
        return np.asarray(axes.vectors.T @ (self.xy / axes.std[:, None] / self.weight))

    def solved(self, l2: float) -> tuple[Doubles, Doubles]:
        """Return weights (D, K) and biases (K,) of ridge regression on the targets.

        It minimises the weighted mean of |y - x · weight - bias|² / 2 + l2 / 2 · |weight|², the
        penalty being that of standardised columns.
        """
        axes = self.axes()
        weight = axes.unrotated(self.slopes(axes) / (axes.values + l2)[:, None])
        return weight, self.target_mean - self.mean @ weight

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the sums as arrays by name, such as for a file of safetensors."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "RidgeSums":
        """Return the sums of `tensors()`; raises Mismatch for other arrays."""
        names = [f.name for f in fields(cls)]
        if tensors.keys() != set(names):
            raise Mismatch(f"Sums are saved as {', '.join(names)}; got {', '.join(tensors)}.")
        arrays = [np.asarray(tensors[name], np.float64) for name in names[2:]]
        made = cls(int(tensors["rows"]), float(tensors["weight"]), *arrays)
        like = cls.none(*made.xy.shape) if made.xy.ndim == 2 else None
        if like is None or any(
            getattr(made, name).shape != getattr(like, name).shape for name in names[2:]
        ):
            shapes = {name: array.shape for name, array in zip(names[2:], arrays, strict=True)}
            raise Mismatch(f"The saved sums of ridge regression fit one another; got {shapes}.")
        return made


def merged(parts: Iterable[RidgeSums], none: RidgeSums) -> RidgeSums:
    """Return the sums of the rows of all parts. none: those of no rows."""
    return reduce(RidgeSums.merge, parts, none)


def _products(x: Doubles, y: Doubles, centre: Doubles) -> Doubles:
    """Return xᵀ (y - centre), (D, K), of columns x (N, D) whose sums are 0.

    Where y is mostly zeros these are left out, and the centre with them: its product is 0.
    """
    if y.shape[1] < SPARSE_FROM or np.count_nonzero(y) * 4 > y.size:
        return np.asarray(x.T @ (y - centre))
    from scipy.sparse import csr_array

    return np.ascontiguousarray((csr_array(y.T) @ x).T)
