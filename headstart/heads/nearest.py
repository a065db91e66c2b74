"""The nearest-neighbour head: stored rows vote, weighted by cosine similarity."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch
from headstart.base.onnx_nodes import whole
from headstart.heads.head import (
    FeatureRows,
    Floats,
    Head,
    Trial,
    blocks,
    check_finite,
    check_tensors,
    check_types,
    check_width,
    counted,
    is_count,
    loss_weights,
)
from headstart.heads.specs import NearestSpec

if TYPE_CHECKING:
    from headstart.base.onnx_nodes import Nodes

TEMPERATURE = 0.07  # Wu et al. 2018, section 3.4
SHAPES = {"x": ("M", "D"), "y": ("M",), "class_weight": ("C",)}
CASES = {"weight": ("M",)}  # further, of a head whose stored rows have case weights
MEANS = {"x": ("M", "D"), "values": ("M", "K"), "weight": ("M",)}
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
    weight: NDArray[np.float32] | None = None  # (M,) case weights; None for 1 each
    kind: ClassVar[str] = "nearest"

    def __post_init__(self) -> None:
        check_tensors(self.tensors(), SHAPES if self.weight is None else SHAPES | CASES)
        known = 0 <= self.y.min() and self.y.max() < self.classes
        weights = (self.class_weight,) if self.weight is None else (self.class_weight, self.weight)
        if not (known and all(each.min() > 0 for each in weights)):
            raise Mismatch(
                f"Every stored row votes for one of {self.classes} classes, by a weight."
            )
        _check_neighbours(self.neighbours, len(self.y))

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
        for rows, alike, top in _most_alike(x, self.x, max(ks)):
            labels, own = self.y[top], None if self.weight is None else self.weight[top]
            for out, k in zip(scores, ks, strict=True):
                out[rows] = self._votes(alike[:, :k], labels[:, :k], own)
        return scores

    def in_graph(self, nodes: "Nodes", x: str) -> str:
        """Add the head to an exported graph: (N, D) float32 -> log probabilities (N, C) float64."""
        own = self.class_weight[self.y].astype(np.float64)
        own = own if self.weight is None else own * self.weight
        votes, top = _votes_in_graph(nodes, x, self.x, own, self.neighbours)
        labels = nodes("Unsqueeze", nodes("Gather", self.y, top), whole(2))
        hot = nodes.cast(nodes("Equal", labels, np.arange(self.classes)), np.float64)
        each = nodes("ReduceSum", nodes("Mul", hot, votes), whole(1), keepdims=0)
        share = nodes("Div", each, nodes("ReduceSum", votes, whole(1), keepdims=0))
        seen = (np.bincount(self.y, minlength=self.classes) > 0).astype(np.float64)
        k = float(self.neighbours)
        total = nodes("Add", nodes("Mul", share, np.float64(k)), seen / seen.sum())
        return nodes("Log", nodes("Div", total, np.float64(k + 1)))

    def tensors(self) -> dict[str, NDArray[Any]]:
        case = {} if self.weight is None else {"weight": self.weight}
        return {"x": self.x, "y": self.y, "class_weight": self.class_weight, **case}

    def settings(self) -> dict[str, float]:
        return {"neighbours": self.neighbours}

    def _votes(
        self, alike: Floats, labels: NDArray[np.int64], own: NDArray[np.float32] | None
    ) -> Floats:
        """Return probabilities (N, C) from descending similarities (N, k) and their labels.

        own: (N, k) or more columns, the case weights of these rows.
        """
        weights = np.exp((alike - alike[:, :1]) / TEMPERATURE) * self.class_weight[labels]
        if own is not None:
            weights = weights * own[:, : labels.shape[1]]
        cells = np.arange(len(labels))[:, None] * self.classes + labels
        votes = np.bincount(cells.ravel(), weights.ravel(), len(labels) * self.classes)
        votes = votes.reshape(len(labels), self.classes)
        seen = np.bincount(self.y, minlength=self.classes) > 0
        k = labels.shape[1]
        return (k * votes / votes.sum(axis=1, keepdims=True) + seen / seen.sum()) / (k + 1)


@dataclass(frozen=True, eq=False)
class NeighbourMeanHead:
    """The mean of the values of the `neighbours` most similar stored rows, weighted as above.

    odds: whether the values are 0 and 1, of which `raw` returns log odds: a vote of the share of
    all stored rows is added, so that no probability is 0 or 1.
    """

    x: NDArray[np.float32]  # (M, D), each of length 1 or 0
    values: NDArray[np.float32]  # (M, K), what a solved head regresses on
    weight: NDArray[np.float32]  # (M,)
    neighbours: int
    odds: bool
    kind: ClassVar[str] = "nearest"

    def __post_init__(self) -> None:
        check_tensors(self.tensors(), MEANS)
        if not self.weight.min() > 0:
            raise Mismatch("Every stored row has a weight above 0.")
        if self.odds and not 0 <= self.values.min() <= self.values.max() <= 1:
            raise Mismatch("Every stored row of such a head has shares from 0 to 1.")
        _check_neighbours(self.neighbours, len(self.x))

    @property
    def features(self) -> int:
        return self.x.shape[1]

    @property
    def outputs(self) -> int:
        return self.values.shape[1]

    @property
    def classes(self) -> int:
        return self.outputs

    @property
    def parameters(self) -> int:
        return self.x.size

    def raw(self, x: Floats) -> NDArray[np.float64]:
        return self.raw_of((self.neighbours,), x)[0]

    def scores(self, x: Floats) -> NDArray[np.float32]:
        return self.raw(x).astype(np.float32)

    def raw_of(self, ks: tuple[int, ...], x: Floats) -> list[NDArray[np.float64]]:
        """Return raw outputs for each number of neighbours from one similarity matrix."""
        check_width(x, self.features)
        check_finite(x, "Features")
        raw = [np.empty((len(x), self.outputs)) for _ in ks]
        for rows, alike, top in _most_alike(x, self.x, max(ks)):
            votes = np.exp((alike - alike[:, :1]) / TEMPERATURE) * self.weight[top]
            for out, k in zip(raw, ks, strict=True):
                values = self.values[top[:, :k]].astype(np.float64)
                out[rows] = np.einsum("nk,nko->no", votes[:, :k], values)
                out[rows] /= votes[:, :k].sum(axis=1, keepdims=True)
        return [self._log_odds(mean, k) for mean, k in zip(raw, ks, strict=True)]

    def in_graph(self, nodes: "Nodes", x: str) -> str:
        """Add the head to an exported graph: (N, D) float32 -> (N, K) float64."""
        votes, top = _votes_in_graph(
            nodes, x, self.x, self.weight.astype(np.float64), self.neighbours
        )
        values = nodes.cast(nodes("Gather", self.values, top), np.float64)
        sums = nodes("ReduceSum", nodes("Mul", values, votes), whole(1), keepdims=0)
        mean = nodes("Div", sums, nodes("ReduceSum", votes, whole(1), keepdims=0))
        if not self.odds:
            return mean
        k = float(self.neighbours)
        chance = nodes("Add", nodes("Mul", mean, np.float64(k)), self._share)
        chance = nodes("Div", chance, np.float64(k + 1))
        return nodes("Log", nodes("Div", chance, nodes("Sub", np.float64(1), chance)))

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"x": self.x, "values": self.values, "weight": self.weight}

    def settings(self) -> dict[str, float]:
        return {"neighbours": self.neighbours, "odds": self.odds}

    def _log_odds(self, mean: NDArray[np.float64], k: int) -> NDArray[np.float64]:
        if not self.odds:
            return mean
        chance = (k * mean + self._share) / (k + 1)
        return np.log(chance / (1 - chance))

    @property
    def _share(self) -> NDArray[np.float64]:
        weight = self.weight.astype(np.float64)
        return (weight @ self.values + 0.5 * weight.mean()) / (weight.sum() + weight.mean())


def load_nearest(tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Head:
    means, weight = "values" in tensors, tensors.get("weight")
    votes = SHAPES if weight is None else SHAPES | CASES
    check_types(tensors, y=np.int64)
    check_tensors(tensors, MEANS if means else votes)
    _check_settings(settings, means)
    if not float(np.abs(tensors["x"]).max()) <= 1.001:
        raise Mismatch("The stored rows of such a head are of length 1 or 0; got longer ones.")
    if means:
        x, values, weight = (tensors[name].astype(np.float32) for name in MEANS)
        return NeighbourMeanHead(x, values, weight, settings["neighbours"], settings["odds"])
    return NearestHead(
        tensors["x"].astype(np.float32),
        tensors["y"].astype(np.int64),
        tensors["class_weight"].astype(np.float32),
        settings["neighbours"],
        None if weight is None else weight.astype(np.float32),
    )


def _check_settings(settings: Mapping[str, Any], means: bool) -> None:
    known = {"neighbours", "odds"} if means else {"neighbours"}
    whole = is_count(settings.get("neighbours")) and type(settings.get("odds", True)) is bool
    if settings.keys() != known or not whole:
        raise Mismatch(
            f"A nearest head is saved with its {' and '.join(sorted(known))}, a number"
            f"{' and true or false' * means}; got {dict(settings)!r:.80}."
        )


def nearest_trials(spec: NearestSpec, train: FeatureRows, x: Floats) -> Iterator[Trial]:
    """Yield a head for each number of neighbours, from many to few, at most the number of rows.

    Case weights multiply the votes of the stored rows. Rows vote for their labels, also where the
    data has probabilities of classes.
    """
    train = counted(train)
    ks = tuple(sorted({min(k, len(train.y)) for k in spec.neighbours}, reverse=True))
    trials = _votes if train.target.link == "softmax" else _means
    for head, raw in trials(spec, train, ks, x):
        yield Trial({"neighbours": head.neighbours}, head, train.target.activate(raw))


Tried = Iterable[tuple["NearestHead | NeighbourMeanHead", NDArray[np.float64]]]


def _votes(spec: NearestSpec, train: FeatureRows, ks: tuple[int, ...], x: Floats) -> Tried:
    """Return heads of classes and their raw outputs."""
    rows, y = unit(train.x), np.asarray(train.y)
    balance = train.target.balance(spec.class_weights, y, **train.supervision.case)
    weight, own = balance.astype(np.float32), train.supervision.relative
    votes = None if own is None else _positive(own)
    heads = [NearestHead(rows, y, weight, k, votes) for k in ks]
    return zip(heads, map(_logs, heads[0].votes_for(ks, x)), strict=True)


def _means(spec: NearestSpec, train: FeatureRows, ks: tuple[int, ...], x: Floats) -> Tried:
    """Return heads of labels, grades or numbers and their raw outputs."""
    values = train.target.regression(train.y).astype(np.float32)
    weight = _positive(loss_weights(train, spec.class_weights))
    rows, odds = unit(train.x), train.target.link != "identity"
    heads = [NeighbourMeanHead(rows, values, weight, k, odds) for k in ks]
    return zip(heads, heads[0].raw_of(ks, x), strict=True)


def _positive(weights: Floats) -> NDArray[np.float32]:
    """Return weights above 0 as float32, in which small ones must not become 0."""
    return np.maximum(weights, np.finfo(np.float32).tiny).astype(np.float32)


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
    x: Floats, stored: NDArray[np.float32], k: int
) -> Iterator[tuple[slice, Floats, NDArray[np.int64]]]:
    """Yield, for blocks of rows of `x`, the k stored rows most alike.

    As (rows, similarities descending (n, k), numbers of the stored rows (n, k)).
    """
    m = len(stored)
    for rows in blocks(len(x), max(1, BLOCK_CELLS // m)):
        alike = unit(x[rows]) @ stored.T
        top = np.argpartition(alike, m - k, axis=1)[:, m - k :]
        order = np.argsort(-np.take_along_axis(alike, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        yield rows, np.take_along_axis(alike, top, axis=1).astype(np.float64), top


def unit_in_graph(nodes: "Nodes", x: str) -> str:
    """Return rows (N, D) float32 scaled to length 1, as `unit` does."""
    values = nodes.cast(x, np.float64)
    squares = nodes("ReduceSum", nodes("Mul", values, values), whole(1), keepdims=1)
    length = nodes("Sqrt", squares)
    some = nodes("Greater", length, np.float64(0))
    scaled = nodes("Div", values, nodes("Where", some, length, np.float64(1)))
    return nodes.cast(scaled, np.float32)


def most_alike_in_graph(nodes: "Nodes", x: str, stored: Any, k: int) -> list[str]:
    """Return the similarities (N, k), descending, of the k stored rows most alike, and their
    numbers. stored: (M, D) float32, a constant or a value."""
    columns = nodes("Transpose", stored, perm=[1, 0])
    alike = nodes("MatMul", unit_in_graph(nodes, x), columns)
    return nodes.several(2, "TopK", alike, whole(k), axis=1)


def _votes_in_graph(
    nodes: "Nodes", x: str, stored: NDArray[np.float32], weight: NDArray[np.float64], k: int
) -> tuple[str, str]:
    """Return the votes (N, k, 1) of the k stored rows most alike, and their numbers (N, k)."""
    alike, top = most_alike_in_graph(nodes, x, stored, k)
    alike = nodes.cast(alike, np.float64)
    best = nodes("Slice", alike, whole(0), whole(1), whole(1))
    votes = nodes("Exp", nodes("Div", nodes("Sub", alike, best), np.float64(TEMPERATURE)))
    votes = nodes("Mul", votes, nodes("Gather", weight, top))
    return nodes("Unsqueeze", votes, whole(2)), top


def _check_neighbours(neighbours: int, rows: int) -> None:
    if not 1 <= neighbours <= rows:
        raise Mismatch(f"This head can ask 1 to {rows} neighbours; got neighbours={neighbours}.")
