"""A backbone as shipped: an ONNX graph and its weights, which run without PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Card, SourceHead, head_of_source, weights_fingerprint
from headstart.base.errors import MissingPackage

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # ends of names, of batch norms


@dataclass(frozen=True, eq=False, repr=False)
class Frozen:
    """An ONNX graph with its weights stored separately.

    graph: takes the arrays of a batch by name, returns "features" (N, D) float32, and begins with
    the input's first layer. weights: the module's state dict. inputs: names of the weights that are
    initializers of the graph. source_head: as in `Backbone`; bundles have none. golden: PyTorch's
    features (1, D) of the input's golden example; bundles keep their scores instead.
    """

    card: Card
    graph: bytes
    weights: Mapping[str, NDArray[np.generic]]
    inputs: tuple[str, ...]
    source_head: SourceHead | None = None
    golden: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        return f"Frozen({self.card.name}, {self.card.input.describe()}, {self.card.dim} features)"

    @property
    def parameters(self) -> int:
        """The number of trainable values: no batch-norm statistics and no tables of integers."""
        kept = (a for name, a in self.weights.items() if not name.endswith(BUFFERS))
        return sum(a.size for a in kept if a.dtype.kind == "f")

    def changed(self, **settings: Any) -> "Frozen":
        """Return the backbone with changed input settings that its graph takes.

        Raises MissingPackage for others, such as another size: a graph for them is made by PyTorch.
        """
        input, own = self.card.input.changed(**settings), self.card.input
        shapes, ours = (
            [(name, a.shape, a.dtype) for name, a in of.blank(1).items()] for of in (input, own)
        )
        if shapes != ours or input.constants() != own.constants():
            purpose = f"{self.card.name} with another input than {own.describe()}"
            raise MissingPackage("torch", purpose=purpose, extra="train")
        return replace(self, card=replace(self.card, input=input))

    def source(self) -> SourceHead:
        """Return the source head; raises SpecError if the backbone has none."""
        return head_of_source(self.card, self.source_head)

    def fingerprint(self) -> str:
        """Return the fingerprint of the backbone that the graph was exported from."""
        entries = (
            (name, str(a.dtype), a.shape, np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
            for name, a in self.weights.items()
        )
        return weights_fingerprint(self.card, entries)
