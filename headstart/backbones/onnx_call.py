"""A node of a graph with the known facts of its inputs, from which those of its outputs follow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.onnx_wire import Node, Refused

KEPT = 4096  # elements up to which values are computed
T = TypeVar("T")
Shape = tuple[int, ...]
BOOL, INT64, FLOAT = np.dtype("?"), np.dtype("<i8"), np.dtype("<f4")


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """What is known of a tensor. values: None if unknown or large."""

    shape: Shape
    dtype: np.dtype[Any]
    values: NDArray[Any] | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Known":
        return cls(values.shape, values.dtype, values if values.size <= KEPT else None)


@dataclass(frozen=True, eq=False, slots=True)
class NodeCall:
    """A node with what is known of its inputs; None for one that is left out."""

    node: Node
    inputs: Sequence[Known | None]

    def at(self, place: int) -> Known:
        known = self.inputs[place] if place < len(self.inputs) else None
        if known is None:
            raise ValueError(place)
        return known

    def has(self, place: int) -> bool:
        return place < len(self.inputs) and self.inputs[place] is not None

    def of(self, name: str, default: T) -> T:
        value: Any = self.node.attributes.get(name, default)
        return value

    def numbers(self, place: int) -> list[Any]:
        """Return the values of an input from which sizes are made."""
        values = self.at(place).values
        if values is None:
            raise Refused("makes tensors whose size depends on an example's content")
        return list(values.reshape(-1).tolist())

    def axis(self, rank: int, default: int = 0, name: str = "axis") -> int:
        return placed(self.of(name, default), rank)


def placed(axis: int, rank: int) -> int:
    """Return an axis counted from the first; ValueError if there is none."""
    if not -rank <= axis < rank:
        raise ValueError(axis)
    return axis % rank
