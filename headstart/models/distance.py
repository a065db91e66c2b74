"""The distance of an input's features from the training rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch
from headstart.heads.head import Floats, blocks, check_finite, check_width
from headstart.heads.nearest import most_alike_in_graph, unit

if TYPE_CHECKING:
    from headstart.base.onnx_nodes import Nodes

NEIGHBOUR = 5  # the neighbour whose distance counts; the nearest may be a fluke
CELLS = 2**22  # similarities computed at once


@dataclass(frozen=True, eq=False)
class Seen:
    """Features of training rows, (M, D), each scaled to length 1, in half precision."""

    rows: NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or 0 in self.rows.shape:
            raise Mismatch(
                f"Features that were seen are rows of numbers, at least one; got an array of shape "
                f"{self.rows.shape}."
            )
        check_finite(self.rows, "Features that were seen")

    @classmethod
    def of(cls, x: Floats) -> "Seen":
        return cls(unit(x).astype(np.float16))

    def distance(self, x: Floats, own: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Return the distance, 0 to 2, to the fifth nearest training row on the unit sphere.

        x: (N, D); returns (N,). own: (N, M), which training rows are a row of `x` itself or of its
        group, and are passed over. Sun, Ming, Zhu, Li 2022, Out-of-distribution detection with deep
        nearest neighbors, eq. 4.
        """
        check_width(x, self.rows.shape[1])
        rows, k = self.rows.astype(np.float32), min(NEIGHBOUR, len(self.rows))
        if own is not None:
            k = max(1, min(k, len(rows) - int(own.sum(axis=1).max(initial=0))))
        found = np.empty(len(x))
        for part in blocks(len(x), max(1, CELLS // len(rows))):
            alike = unit(x[part]) @ rows.T
            if own is not None:
                alike[own[part]] = -1.0
            found[part] = distance_of_kth(alike, k)
        return found

    def in_graph(self, nodes: "Nodes", x: str) -> str:
        """Add the distance to an exported graph: (N, D) float32 -> (N,) float32."""
        k = min(NEIGHBOUR, len(self.rows))
        alike, _ = most_alike_in_graph(nodes, x, nodes.cast(self.rows, np.float32), k)
        kth = nodes.cast(nodes("Gather", alike, np.int64(k - 1), axis=1), np.float64)
        away = nodes("Sub", np.float64(2), nodes("Mul", np.float64(2), kth))
        return nodes.cast(nodes("Sqrt", nodes("Max", away, np.float64(0))), np.float32)


def distance_of_kth(alike: Floats, k: int) -> NDArray[np.float64]:  # (N, M) -> (N,)
    """Return the distance to the k-th nearest row on the unit sphere, from cosines."""
    kth = -np.partition(-alike, k - 1, axis=1)[:, k - 1].astype(np.float64)
    distance: NDArray[np.float64] = np.sqrt(np.maximum(2 - 2 * kth, 0))
    return distance
