"""The nearest-neighbour head: stored rows vote, weighted by cosine similarity."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch
from headstart.heads.head import (
    FeatureRows,
    Floats,
    Head,
    Trial,
    blocks,
    check_finite,
    check_tensors,
    check_width,
)
from headstart.heads.specs import NearestSpec

TEMPERATURE = 0.07  # Wu et al. 2018, section 3.4
SHAPES = {"x": ("M", "D"), "y": ("M",), "class_weight": ("C",)}
BLOCK_CELLS = 2**23  # similarities held at once: 32 MiB


@dataclass(frozen=True, eq=False)
class NearestHead:
    """The `neighbours` most similar stored rows vote, each with exp(cosine / 0.07).

    Wu et al. 2018, Unsupervised feature learning via non-parametric instance discrimination,
    section 3.4; DINO (Caron et al. 2021) uses it too. One additional vote is shared equally by all
    classes with rows, so that no class of the training rows gets probability 0.
    """

    x: NDArray[np.float32]  # (M, D), each of length 1 or 0
    y: NDArray[np.int64]  # (M,)
    class_weight: NDArray[np.float32]  # (C,)
    neighbours: int
    kind: ClassVar[str] = "nearest"

    def __post_init__(self) -> None:
        check_tensors(self.tensors(), SHAPES)
        if not (0 <= self.y.min() and self.y.max() < self.classes and self.class_weight.min() > 0):
            raise Mismatch(
                f"Every stored row votes for one of {self.classes} classes, by a weight."
            )
        if not 1 <= self.neighbours <= len(self.y):
            raise Mismatch(
                f"This head holds {len(self.y)} rows and was told to ask {self.neighbours} of them."
            )

    @property
    def features(self) -> int:
        return self.x.shape[1]

    @property
    def classes(self) -> int:
        return len(self.class_weight)

    @property
    def parameters(self) -> int:
        return self.x.size  # the stored rows are what was learned

    def scores(self, x: Floats) -> NDArray[np.float32]:
        """Return probabilities (N, C). Raises Mismatch for a wrong width, NaN or infinity."""
        return self.votes_for((self.neighbours,), x)[0].astype(np.float32)

    @property
    def outputs(self) -> int:
        return self.classes

    def raw(self, x: Floats) -> NDArray[np.float64]:
        """Return log probabilities, (N, D) -> (N, C)."""
        return _logs(self.votes_for((self.neighbours,), x)[0])

    def votes_for(self, ks: tuple[int, ...], x: Floats) -> list[NDArray[np.float64]]:
        """Return probabilities for each number of neighbours from one similarity matrix."""
        check_width(x, self.features)
        check_finite(x, "Features")
        scores = [np.empty((len(x), self.classes)) for _ in ks]
        for rows in blocks(len(x), max(1, BLOCK_CELLS // len(self.y))):
            alike, labels = _most_alike(unit(x[rows]) @ self.x.T, self.y, max(ks))
            for out, k in zip(scores, ks, strict=True):
                out[rows] = self._votes(alike[:, :k], labels[:, :k])
        return scores

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"x": self.x, "y": self.y, "class_weight": self.class_weight}

    def settings(self) -> dict[str, float]:
        return {"neighbours": self.neighbours}

    def _votes(self, alike: Floats, labels: NDArray[np.int64]) -> Floats:
        """Return probabilities (N, C) from descending similarities (N, k) and their labels."""
        weights = np.exp((alike - alike[:, :1]) / TEMPERATURE) * self.class_weight[labels]
        cells = np.arange(len(labels))[:, None] * self.classes + labels
        votes = np.bincount(cells.ravel(), weights.ravel(), len(labels) * self.classes)
        votes = votes.reshape(len(labels), self.classes)
        seen = np.bincount(self.y, minlength=self.classes) > 0
        k = labels.shape[1]
        return (k * votes / votes.sum(axis=1, keepdims=True) + seen / seen.sum()) / (k + 1)


def load_nearest(tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Head:
    check_tensors(tensors, SHAPES)
    if not isinstance(settings.get("neighbours"), int):
        raise Mismatch(f"A nearest head is saved with its neighbours, a number; got {settings}.")
    return NearestHead(
        tensors["x"].astype(np.float32),
        tensors["y"].astype(np.int64),
        tensors["class_weight"].astype(np.float32),
        settings["neighbours"],
    )


def nearest_trials(spec: NearestSpec, train: FeatureRows, x: Floats) -> Iterator[Trial]:
    """Yield a head for each number of neighbours, from many to few, at most the number of rows."""
    ks = tuple(sorted({min(k, len(train.y)) for k in spec.neighbours}, reverse=True))
    rows = unit(train.x)
    weight = train.target.balance(spec.class_weights, train.y).astype(np.float32)
    heads = [NearestHead(rows, np.asarray(train.y), weight, k) for k in ks]
    for head, votes in zip(heads, heads[0].votes_for(ks, x), strict=True):
        answers = train.target.activate(_logs(votes))
        yield Trial({"neighbours": head.neighbours}, head, answers)


def _logs(votes: Floats) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(votes)


def unit(x: Floats) -> NDArray[np.float32]:
    """Return the rows of (N, D) scaled to length 1; a row of zeros stays zero.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = np.sqrt(np.square(x, dtype=np.float64).sum(axis=1, keepdims=True))
    return (x / np.where(length > 0, length, 1.0)).astype(np.float32)


def _most_alike(
    alike: NDArray[np.float32], y: NDArray[np.int64], k: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the k greatest similarities of each row, descending, (N, k), and their labels."""
    m = alike.shape[1]
    top = np.argpartition(alike, m - k, axis=1)[:, m - k :]
    order = np.argsort(-np.take_along_axis(alike, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    return np.take_along_axis(alike, top, axis=1).astype(np.float64), y[top]
