"""A head as a bundle keeps it, and back."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from headstart.base.errors import UnknownName
from headstart.heads.head import Head
from headstart.heads.linear import load_linear
from headstart.heads.mlp import load_mlp
from headstart.heads.nearest import load_nearest


def load_head(kind: str, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Head:
    """Rebuild a head from its `kind`, `tensors()` and `settings()`.

    Raises UnknownName for another kind, Mismatch for tensors that can't be such a head.
    """
    loaders = {"linear": load_linear, "mlp": load_mlp, "nearest": load_nearest}
    if kind not in loaders:
        raise UnknownName("kind of head", kind, loaders)
    return loaders[kind](tensors, settings)
