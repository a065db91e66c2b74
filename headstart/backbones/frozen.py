"""A backbone as shipped: an ONNX graph and its weights, which run without PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Card, weights_fingerprint

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # ends of names, of batch norms


@dataclass(frozen=True, eq=False)
class Frozen:
    """An ONNX graph with its weights stored separately.

    graph: takes the arrays of a batch by name, returns "features" (N, D) float32, and begins with
    the input's first layer. weights: the module's state dict. inputs: names of the weights that are
    initializers of the graph.
    """

    card: Card
    graph: bytes
    weights: Mapping[str, NDArray[np.generic]]
    inputs: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """The number of trainable values: all but buffers (batch-norm statistics)."""
        return sum(a.size for name, a in self.weights.items() if not name.endswith(BUFFERS))

    def fingerprint(self) -> str:
        """Return the fingerprint of the backbone that the graph was exported from."""
        entries = (
            (name, str(a.dtype), a.shape, np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
            for name, a in self.weights.items()
        )
        return weights_fingerprint(self.card, entries)
