"""Two-dimensional maps of features: rows with similar features lie close to each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import MissingPackage
from headstart.base.values import Record
from headstart.evaluation.effort import FULL, InsightEffort
from headstart.features.extract import FeatureTable

WIDE = 50  # principal components given to t-SNE, as its authors advise
ROUNDING = 1e-6  # of the largest feature: a smaller spread is float32 rounding error
# Standard deviations whose squares float32 can hold: t-SNE divides by the variance, and if that
# underflows to 0, its compiled loop crashes the process on the NaN (scikit-learn 1.9.1).
LEAST, MOST = 1e-12, 1e15


@dataclass(frozen=True)
class EmbeddingMap(Record):
    """Points (x, y) of N rows for each method (PCA, t-SNE, UMAP), scaled to the unit square.

    paths, labels, parts: one per row. groups: the order of the labels, () for that of the classes.
    """

    maps: dict[str, tuple[tuple[float, float], ...]]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[str, ...]
    groups: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return the plain dict, without groups if there are none."""
        plain = super().to_plain()
        return plain if self.groups else {k: v for k, v in plain.items() if k != "groups"}


def embedding_map(
    table: FeatureTable, part: Mapping[str, str], seed: int = 0, effort: InsightEffort = FULL
) -> EmbeddingMap | None:
    """Map rows of features by PCA, and by UMAP if it is installed or else t-SNE.

    part: row id to part. effort: its `map_rows` and `map_steps` are the limits. Returns None for
    too few rows, and for features that do not vary (a dead backbone). Raises MissingPackage
    without scikit-learn.
    """
    if len(table.y) < 4 or table.x.shape[1] < 2:
        return None
    picked = np.sort(np.random.default_rng(seed).permutation(len(table.y))[: effort.map_rows])
    if not _varies(table.x[picked]):
        return None
    try:
        from sklearn.decomposition import PCA
    except ImportError:
        purpose = "The map of the features"
        raise MissingPackage("scikit-learn", purpose=purpose, extra="train") from None
    wide = min(WIDE, len(picked) - 1, table.x.shape[1])
    x = PCA(wide, svd_solver="randomized", random_state=seed).fit_transform(table.x[picked])
    maps = {"PCA": x[:, :2]} | _bent(x, seed, effort.map_steps)
    paths = tuple(table.ids[row] for row in picked)
    names, labels = _groups(table, picked)
    points = {name: _points(xy) for name, xy in maps.items()}
    return EmbeddingMap(points, paths, labels, tuple(part.get(p, "") for p in paths), names)


def _groups(table: FeatureTable, rows: NDArray[np.intp]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the groups of the target's census, and the first one of each row; without a census,
    () and the labels."""
    names, inside = table.target.census(table.y)
    if not names:
        return (), tuple(table.target.decode(table.y[rows]))
    own = (np.flatnonzero(inside[row])[:1].tolist() for row in rows)
    return names, tuple(names[first[0]] if first else "" for first in own)


def _varies(x: NDArray[Any]) -> bool:
    """Whether the features are finite and their spread exceeds rounding and fits float32."""
    largest = float(np.abs(x).max())
    if not largest < np.inf:  # nor NaN
        return False
    spread = float(x.std(axis=0, dtype=np.float64).max())
    return max(LEAST, ROUNDING * largest) < spread < MOST


def _bent(x: NDArray[Any], seed: int, steps: int) -> dict[str, NDArray[Any]]:
    """Return a non-linear map: UMAP if installed, else t-SNE; none for fewer than 20 rows."""
    if find_spec("umap") is not None:
        from umap import UMAP

        return {"UMAP": UMAP(random_state=seed).fit_transform(x)}
    if len(x) < 20:
        return {}
    from sklearn.manifold import TSNE

    perplexity = min(30.0, len(x) / 4)
    how = TSNE(perplexity=perplexity, random_state=seed, init="pca", max_iter=steps)
    return {"t-SNE": how.fit_transform(x)}


def _points(xy: NDArray[Any]) -> tuple[tuple[float, float], ...]:
    """Scale (N, 2) coordinates to the unit square, rounded to 4 digits."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    scaled = np.round((xy - low) / np.maximum(high - low, 1e-9), 4)
    return tuple((x, y) for x, y in scaled.tolist())
