"""The training examples whose features are nearest to those of an example."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.features.extract import FeatureTable
from headstart.heads.head import Floats
from headstart.heads.nearest import unit

COUNT = 5


@dataclass(frozen=True)
class Neighbour:
    """A training example. distance: between the unit-length features, 0 (the same) to 2."""

    id: str
    label: str
    distance: float
    source: Any


def nearest(
    seen: FeatureTable, sources: Mapping[str, Any], x: Floats, count: int = COUNT
) -> list[tuple[Neighbour, ...]]:
    """Return for each row of x (N, D) at most `count` rows of `seen`, the nearest first.

    sources: path or content of each row of `seen`, by id.
    """
    near = unit(seen.x)
    return [tuple(_neighbours(seen, sources, near, row, count)) for row in unit(x)]


def _neighbours(
    seen: FeatureTable, sources: Mapping[str, Any], near: Floats, own: Floats, count: int
) -> list[Neighbour]:
    first = np.argsort(-(near @ own), kind="stable")[:count]
    labels = seen.target.decode(seen.y[first])
    return [
        Neighbour(
            seen.ids[row],
            label,
            float(np.linalg.norm(near[row] - own)),  # 2 - 2 cos loses half of its digits at 0
            sources[seen.ids[row]],
        )
        for row, label in zip(first, labels, strict=True)
    ]
