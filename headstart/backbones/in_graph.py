"""What an input adds to an exported graph: nodes from a program's arrays to the network's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from headstart.base.onnx_nodes import Nodes, whole


@dataclass(frozen=True)
class InGraph:
    """Names of values of a graph.

    arrays: of the batch (P parts) that the network is given, by its own names. pooled: from its
    features (P, D) to those of the examples (N, D), float32.
    """

    arrays: Mapping[str, str]
    pooled: Callable[[str], str]


def mean_of_views(nodes: Nodes, x: str, count: int) -> str:
    """Return the mean (N, D) of the features (N * count, D) of each example's views."""
    if count == 1:
        return x
    shape = nodes("Concat", whole((-1, count)), nodes("Shape", x, start=1), axis=0)
    parts = nodes("Reshape", nodes.cast(x, np.float64), shape)
    return nodes.cast(nodes("ReduceMean", parts, axes=[1], keepdims=0), np.float32)


def mean_of_parts(nodes: Nodes, x: str, weights: str, example: str) -> str:
    """Return the weighted means (N, D), float32, of the features (P, D) of each example's parts.

    weights: (P,), any type. example: (P,) int64, whose part each is, from 0 to N - 1.
    """
    last = nodes("ReduceMax", example, axes=[0], keepdims=0)
    numbers = nodes("Range", np.int64(0), nodes("Add", last, np.int64(1)), np.int64(1))
    own = nodes(
        "Equal", nodes("Unsqueeze", numbers, whole(1)), nodes("Unsqueeze", example, whole(0))
    )
    share = nodes("Mul", nodes.cast(own, np.float64), nodes.cast(weights, np.float64))
    total = nodes("ReduceSum", share, whole(1), keepdims=1)
    sums = nodes("MatMul", share, nodes.cast(x, np.float64))
    return nodes.cast(nodes("Div", sums, total), np.float32)
