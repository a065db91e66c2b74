"""Heads of dense layers with relu between them, with one logit or one per class."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch
from headstart.heads.head import (
    Floats,
    Head,
    blocks,
    check_finite,
    check_no_settings,
    check_types,
    check_width,
    probabilities,
)

if TYPE_CHECKING:
    from headstart.base.onnx_nodes import Nodes


class DenseHead:
    """The arithmetic of dense layers with relu between them; weights[i]: (in, out), biases[i]:
    (out,). The last layer gives one logit per class, or the log odds of the second of 2 classes."""

    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]

    @property
    def features(self) -> int:
        return self.weights[0].shape[0]

    @property
    def outputs(self) -> int:
        return self.weights[-1].shape[1]

    @property
    def classes(self) -> int:
        return max(2, self.outputs)  # one logit separates two classes

    @property
    def parameters(self) -> int:
        return sum(values.size for values in (*self.weights, *self.biases))

    def raw(self, x: Floats) -> NDArray[np.float64]:
        """Return (N, D) -> (N, K) outputs. Raises Mismatch for a wrong width, NaN or infinity."""
        check_width(x, self.features)
        check_finite(x, "Features")
        raw = np.empty((len(x), self.outputs))
        for rows in blocks(len(x)):
            values = x[rows].astype(np.float64)
            for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
                values = (np.maximum(values, 0.0) if i else values) @ w.astype(np.float64) + b
            raw[rows] = values
        return raw

    def in_graph(self, nodes: "Nodes", x: str) -> str:
        """Add the head to an exported graph: (N, D) float32 -> (N, K) float64."""
        values = nodes.cast(x, np.float64)
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            own = nodes("Max", values, np.float64(0)) if i else values
            product = nodes("MatMul", own, nodes.cast(w, np.float64))
            values = nodes("Add", product, nodes.cast(b, np.float64))
        return values

    def scores(self, x: Floats) -> NDArray[np.float32]:
        return probabilities(self.raw(x))

    def settings(self) -> dict[str, float]:
        return {}


@dataclass(frozen=True, eq=False)
class MlpHead(DenseHead):
    """Dense layers trained by epochs. A single layer makes a linear head."""

    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    kind: ClassVar[str] = "mlp"

    def __post_init__(self) -> None:
        pairs = list(zip(self.weights, self.biases, strict=True))
        shapes = [w.shape for w in self.weights]
        joined = all(a[1:] == b[:1] for a, b in pairwise(shapes))
        dense = all(w.ndim == 2 and 0 not in w.shape and b.shape == w.shape[1:] for w, b in pairs)
        if not (shapes and joined and dense):
            raise Mismatch(f"Each dense layer reads what the one before it gives; got {shapes}.")
        for w, b in pairs:
            check_finite(w, "The weights of a head")
            check_finite(b, "The biases of a head")

    def tensors(self) -> dict[str, NDArray[Any]]:
        named = {f"weight{i}": w for i, w in enumerate(self.weights)}
        return named | {f"bias{i}": b for i, b in enumerate(self.biases)}


def load_mlp(tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Head:
    check_no_settings(settings)
    check_types(tensors)
    layers = range(len(tensors) // 2)
    wanted = {f"{name}{i}" for name in ("weight", "bias") for i in layers}
    if not wanted or tensors.keys() != wanted:
        raise Mismatch(f"A head of dense layers is saved as weight0, bias0, …; got {set(tensors)}.")
    weights, biases = (
        tuple(tensors[f"{name}{i}"].astype(np.float32) for i in layers)
        for name in ("weight", "bias")
    )
    return MlpHead(weights, biases)
