"""A head that is a user's own module, trained by epochs and saved as an ONNX graph."""

import copy
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.graph_check import check_graph
from headstart.backbones.session import open_session
from headstart.base.errors import Mismatch, SpecError
from headstart.base.runtime import cores
from headstart.base.store import digest
from headstart.base.values import as_key
from headstart.heads.head import (
    Floats,
    blocks,
    check_finite,
    check_types,
    check_width,
    probabilities,
)
from headstart.heads.specs import TrainedSpec

if TYPE_CHECKING:
    from torch import nn

    from headstart.base.onnx_nodes import Nodes

OPSET = 17
SIZES = ("features", "outputs", "parameters")


@dataclass(frozen=True)
class ModuleSpec(TrainedSpec):
    """A torch.nn.Module, (N, D) features -> (N, K) outputs, trained from its own weights.

    A run whose head is a module cannot be repeated from its recipe; the recipe records this.

    >>> from torch import nn
    >>> ModuleSpec(module=nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 3)), epochs=5).name
    'Sequential'
    """

    family: ClassVar[str] = "module"
    module: Any = field(default=None, metadata=as_key("", written=False))
    name: str = ""
    weights: str = ""  # the digest of its layers and their first weights
    repeatable: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(getattr(self.module, "state_dict", None)):
            raise SpecError(
                f"This head was a module of a script, {self.name or 'unnamed'}: give the "
                f"torch.nn.Module again, as in head=module, or name another head."
            )
        object.__setattr__(self, "name", type(self.module).__name__)
        tensors = [t.detach().cpu().numpy().tobytes() for t in self.module.state_dict().values()]
        object.__setattr__(self, "weights", digest(str(self.module).encode(), *tensors).hex())

    def start(self, features: int, outputs: int) -> "nn.Module":
        """Return a copy of the module.

        Raises Mismatch unless it turns (N, features) into (N, outputs).
        """
        import torch

        module = copy.deepcopy(self.module).cpu().float()
        try:
            with torch.inference_mode():
                shape = tuple(module.eval()(torch.zeros(2, features)).shape)
        except Exception as error:  # a user's module raises any error
            raise Mismatch(
                f"A head is given (N, {features}) features, which {self.name} can't take: {error}"
            ) from error
        if shape != (2, outputs):
            raise Mismatch(
                f"A head turns (N, {features}) features into (N, {outputs}) outputs; {self.name} "
                f"gives {('N', *shape[1:])}."
            )
        return module.requires_grad_(True)


@dataclass(frozen=True, eq=False)
class ModuleHead:
    """A trained module and its ONNX graph, which predicts; a loaded bundle has only the graph."""

    kind: ClassVar[str] = "module"
    graph: bytes
    features: int
    outputs: int
    parameters: int
    module: Any = None

    @classmethod
    def of(cls, module: "nn.Module", features: int) -> "ModuleHead":
        """Export a module; raises SpecError if PyTorch can't."""
        module = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
        graph, outputs = _exported(module, features)
        parameters = sum(p.numel() for p in module.parameters())
        return cls(graph, features, outputs, parameters, module)

    @property
    def classes(self) -> int:
        return max(2, self.outputs)

    def raw(self, x: Floats) -> NDArray[np.float64]:
        """Return (N, D) -> (N, K) outputs. Raises Mismatch for a wrong width, NaN or infinity."""
        check_width(x, self.features)
        check_finite(x, "Features")
        raw = np.empty((len(x), self.outputs))
        for rows in blocks(len(x)):
            (raw[rows],) = self._session.run(None, {"x": x[rows].astype(np.float32)})
        return raw

    def in_graph(self, nodes: "Nodes", x: str) -> str:
        """Add the head to an exported graph: (N, D) float32 -> (N, K) float64."""
        return nodes.cast(nodes.merged(self.graph, {"x": x}, "head/"), np.float64)

    def scores(self, x: Floats) -> NDArray[np.float32]:
        return probabilities(self.raw(x))

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"graph": np.frombuffer(self.graph, np.uint8)}

    def settings(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in SIZES}

    def as_module(self) -> "nn.Module":
        """Return a copy of the module; raises SpecError for a head of a loaded bundle."""
        if self.module is None:
            raise SpecError(
                "The head of this bundle was a module of a script, of which it holds the graph "
                "alone: it predicts, and can't be trained or explained."
            )
        return copy.deepcopy(self.module).requires_grad_(True)

    def from_module(self, module: "nn.Module") -> "ModuleHead":
        return ModuleHead.of(module, self.features)

    def check(self) -> None:
        """Raise Mismatch unless the graph may be run, and turns (N, D) into (N, K)."""
        (shape,) = check_graph(self.graph, {}, self._blank).values()
        if shape != (1, self.outputs):
            raise Mismatch(f"This head gives (N, {self.outputs}); its graph gives {shape}.")

    @property
    def _blank(self) -> dict[str, NDArray[np.float32]]:
        return {"x": np.zeros((1, self.features), np.float32)}

    @cached_property
    def _session(self) -> Any:
        return open_session(self.graph, {}, cores(), "the head", self._blank)


def load_module(tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> ModuleHead:
    """Rebuild the head of a bundle from its graph; raises Mismatch for anything else."""
    sizes = [settings.get(name) for name in SIZES]
    whole = all(type(n) is int and n >= 0 for n in sizes) and settings.keys() == set(SIZES)
    if tensors.keys() != {"graph"} or not whole or 0 in sizes[:2]:
        raise Mismatch(f"A module is saved as its graph and {', '.join(SIZES)}; got {settings}.")
    check_types(tensors, graph=np.uint8)
    features, outputs, parameters = map(int, sizes)  # type: ignore[arg-type]
    head = ModuleHead(tensors["graph"].tobytes(), features, outputs, parameters)
    head.check()
    return head


def _exported(module: "nn.Module", features: int) -> tuple[bytes, int]:
    """Return the ONNX graph of a module, with its weights inside, and its number of outputs."""
    import torch

    blank, file = torch.zeros(2, features), io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # deprecation of the exporter, tracing
            outputs = int(module(blank).shape[1])
            torch.onnx.export(
                module,
                (blank,),
                file,  # type: ignore[arg-type]  # a buffer is accepted when dynamo is False
                dynamo=False,
                opset_version=OPSET,
                input_names=["x"],
                output_names=["outputs"],
                dynamic_axes={"x": {0: "n"}, "outputs": {0: "n"}},
            )
    except Exception as error:  # the exporter raises many kinds
        raise SpecError(
            f"A head is saved as an ONNX graph, but PyTorch can't export "
            f"{type(module).__name__}: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    return file.getvalue(), outputs
