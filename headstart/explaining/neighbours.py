"""The training examples that a model finds most alike."""

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
    """distance: of the features, on the unit sphere, from 0 (the same) to 2."""

    id: str
    label: str
    distance: float
    source: Path


def nearest(
    seen: FeatureTable, sources: Mapping[str, Path], x: Floats, count: int = COUNT
) -> list[tuple[Neighbour, ...]]:
    """Of each row of features (N, D), the nearest of those seen first; at most `count`.

    sources: where the pictures of the rows seen are, by id.
    """
    near = unit(seen.x)
    return [tuple(_neighbours(seen, sources, near, row, count)) for row in unit(x)]


def _neighbours(
    seen: FeatureTable, sources: Mapping[str, Path], near: Floats, own: Floats, count: int
) -> list[Neighbour]:
    first = np.argsort(-(near @ own), kind="stable")[:count]
    return [
        Neighbour(
            seen.ids[row],
            seen.classes[seen.y[row]],
            float(np.linalg.norm(near[row] - own)),  # 2 - 2 cos loses half of its digits at 0
            sources[seen.ids[row]],
        )
        for row in first
    ]
