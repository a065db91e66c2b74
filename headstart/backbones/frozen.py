"""A backbone as it is shipped: a graph and its weights, which run without PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Card, weights_fingerprint


@dataclass(frozen=True, eq=False)
class Frozen:
    """An ONNX graph whose weights stay in a table of their own.

    graph: reads the arrays of a batch by their names, gives "features" (N, D) float32; the input's
    first layer is its first step. weights: the module's state dict; those in `inputs` are the
    graph's initializers, by the same names.
    """

    card: Card
    graph: bytes
    weights: Mapping[str, NDArray[np.generic]]
    inputs: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Numbers that training may change: all but buffers, which batch norms call running_…"""
        return sum(a.size for name, a in self.weights.items() if not _is_buffer(name))

    def fingerprint(self) -> str:
        """The same as that of the backbone it was made from."""
        return weights_fingerprint(
            self.card,
            ((name, str(a.dtype), a.shape, _raw(a)) for name, a in self.weights.items()),
        )


def _raw(array: NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))
