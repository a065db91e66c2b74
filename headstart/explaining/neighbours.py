"""The training examples that a model finds most alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.features import FeatureTable
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
    alike = unit(x) @ unit(seen.x).T
    return [tuple(_neighbours(seen, sources, row, count)) for row in alike]


def _neighbours(
    seen: FeatureTable, sources: Mapping[str, Path], alike: Floats, count: int
) -> list[Neighbour]:
    first = np.argsort(-alike, kind="stable")[:count]
    return [
        Neighbour(
            seen.ids[row],
            seen.classes[seen.y[row]],
            float(np.sqrt(max(0.0, 2 - 2 * float(alike[row])))),
            sources[seen.ids[row]],
        )
        for row in first
    ]
