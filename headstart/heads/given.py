"""The head of a network that answers by itself: its features are the raw outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch
from headstart.heads.head import Floats, Unclassed, check_width, is_count

if TYPE_CHECKING:
    from headstart.base.onnx_nodes import Nodes


@dataclass(frozen=True, eq=False)
class GivenHead(Unclassed):
    """Raw outputs are the features (N, D) as they are; parameters: of the network's own head.

    >>> GivenHead(2).raw(np.array([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    features: int
    kind: ClassVar[str] = "given"
    parameters: ClassVar[int] = 0

    @property
    def outputs(self) -> int:
        return self.features

    def raw(self, x: Floats) -> NDArray[np.float64]:
        check_width(x, self.features)
        return np.asarray(x, np.float64)

    def in_graph(self, nodes: "Nodes", x: str) -> str:
        """Add the head to an exported graph: (N, D) float32 -> the same, float64."""
        return nodes.cast(x, np.float64)

    def scores(self, x: Floats) -> NDArray[np.float32]:
        return np.asarray(self.raw(x), np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {}

    def settings(self) -> dict[str, float]:
        return {"features": self.features}


def load_given(tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> GivenHead:
    """Return the head of `settings()`; raises Mismatch for other ones."""
    if tensors or settings.keys() != {"features"} or not is_count(settings["features"]):
        raise Mismatch(f"A given head has a number of features alone; got {dict(settings)!r:.80}.")
    return GivenHead(settings["features"])
