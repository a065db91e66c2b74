"""The training examples whose features are nearest to those of a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    source: Path


def nearest(
    seen: FeatureTable, sources: Mapping[str, Path], x: Floats, count: int = COUNT
) -> list[tuple[Neighbour, ...]]:
    """Return for each row of x (N, D) at most `count` rows of `seen`, the nearest first.

    sources: path of the picture of each row of `seen`, by id.
    """
    near = unit(seen.x)
    return [tuple(_neighbours(seen, sources, near, row, count)) for row in unit(x)]


def _neighbours(
    seen: FeatureTable, sources: Mapping[str, Path], near: Floats, own: Floats, count: int
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
