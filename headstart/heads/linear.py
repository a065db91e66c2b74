"""The linear head, and how one is made of a solution in the rotated columns of a `Basis`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.heads.basis import Axes, Doubles
from headstart.heads.head import Head, check_no_settings, check_tensors, check_types
from headstart.heads.mlp import DenseHead

SHAPES = {"weight": ("D", "C"), "bias": ("C",)}
NEVER = -1000.0  # bias of a class without training rows: its probability rounds to 0


@dataclass(frozen=True, eq=False)
class LinearHead(DenseHead):
    """Softmax of `x @ weight + bias`, computed in double precision."""

    weight: NDArray[np.float32]  # (D, C)
    bias: NDArray[np.float32]  # (C,)
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        check_tensors(self.tensors(), SHAPES)
        object.__setattr__(self, "weights", (self.weight,))
        object.__setattr__(self, "biases", (self.bias,))

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"weight": self.weight, "bias": self.bias}


def load_linear(tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Head:
    check_no_settings(settings)
    check_types(tensors)
    check_tensors(tensors, SHAPES)
    return LinearHead(tensors["weight"].astype(np.float32), tensors["bias"].astype(np.float32))


def linear_head(axes: Axes, weight: Doubles, bias: Doubles) -> LinearHead:
    """Return the head with weights (R, K) of the rotated columns and biases (K,)."""
    own = axes.unrotated(weight)
    return LinearHead(own.astype(np.float32), (bias - axes.mean @ own).astype(np.float32))


def softmax_head(
    axes: Axes, weight: Doubles, bias: Doubles, present: NDArray[np.bool_]
) -> LinearHead:
    """Return a head of C classes from the weights and biases of those with rows, `present` (C,)."""
    full, biases = np.zeros((len(axes.mean), len(present))), np.full(len(present), NEVER)
    weight = weight - weight.mean(axis=1, keepdims=True)  # so the best logit is never below 0
    full[:, present] = axes.unrotated(weight)
    biases[present] = bias - bias.mean() - axes.mean @ full[:, present]
    return LinearHead(full.astype(np.float32), biases.astype(np.float32))


def sigmoid_head(
    axes: Axes,
    weight: Doubles,
    bias: Doubles,
    learned: NDArray[np.bool_],
    shares: Doubles,
    rows: int,
) -> LinearHead:
    """Return a head of L labels; a label that is not `learned` (L,) has its share as probability.

    shares: (L,) of `rows` training rows. That of such a label counts half a row more with the label
    and half a row more without it, since the rows all agree.
    """
    share = (shares * rows + 0.5) / (rows + 1)
    weights, biases = np.zeros((len(axes.values), len(learned))), np.log(share / (1 - share))
    weights[:, learned], biases[learned] = weight, bias
    return linear_head(axes, weights, biases)


def cumulative_head(axes: Axes, weight: Doubles, biases: Doubles) -> LinearHead:
    """Return a head of K equal columns from one slope (R,) and K descending biases."""
    own = axes.unrotated(weight[:, None])
    columns = np.repeat(own.astype(np.float32), len(biases), axis=1)
    return LinearHead(columns, (biases - axes.mean @ own).astype(np.float32))
