"""The table of engines: which of them this machine can use, and how each is opened.

`candidates` are the engines that a run may use, the usual one first; `features.choosing` times
them; `open_engine` opens one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.base.engine_choice import EngineChoice
from headstart.base.errors import MissingPackage, SpecError
from headstart.base.processor import has_matrix_unit, processor_name
from headstart.base.runtime import Runtime, bfloat16_processor
from headstart.features.engines import Checked, Engine, OnnxEngine, TorchEngine
from headstart.features.openvino_engine import OpenVinoEngine

if TYPE_CHECKING:
    from torch import nn

ON_ACCELERATOR = EngineChoice("torch", "autocast-float16")


@dataclass(eq=False)
class FrozenPart:
    """What an engine is to run, and where.

    both: the backbone with a second output (`cutting.Cut.both`), to be returned too. given: the
    backbone's exported graph, if it exists. cache: a folder for what an engine compiles, or None.
    """

    backbone: Backbone | Frozen
    runtime: Runtime  # resolved
    both: "nn.Module | None" = None
    given: Frozen | None = None
    cache: Path | None = None

    @cached_property
    def graph(self) -> Frozen:
        """The graph, exported on first use: this takes seconds."""
        if isinstance(self.backbone, Frozen):
            return self.backbone
        if self.given is not None:
            return self.given
        from headstart.backbones.graph import exported

        return exported(self.backbone, self.both)


@dataclass(frozen=True)
class EngineKind:
    """One entry of ENGINES.

    title: for messages. package: that must be installed. extra: of Headstart, with that package.
    precisions: on a CPU, the usual one first. takes_graphs: whether it runs a graph, as saved
    models are, or else needs PyTorch's module. open: opens it on a network, in a precision.
    """

    title: str
    package: str
    extra: str
    precisions: tuple[str, ...]
    takes_graphs: bool
    open: Callable[[FrozenPart, str], Engine]

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None

    def can_run(self, backbone: Backbone | Frozen, precision: str) -> bool:
        """Return whether this machine can run a backbone with this engine in a precision."""
        fits = self.takes_graphs or isinstance(backbone, Backbone)
        fast = precision != "bfloat16" or bfloat16_processor()
        return fits and fast and precision in self.precisions and self.installed


def _open_onnxruntime(network: FrozenPart, precision: str) -> Engine:
    return OnnxEngine(network.graph, network.runtime.threads)


def _open_openvino(network: FrozenPart, precision: str) -> Engine:
    return OpenVinoEngine(network.graph, precision, network.runtime.threads, network.cache)


def _open_torch(network: FrozenPart, precision: str) -> Engine:
    assert isinstance(network.backbone, Backbone)  # `can_run`
    narrow = precision.removeprefix("autocast-")
    runtime = network.runtime
    threads = runtime.threads if runtime.device == "cpu" else 0
    return TorchEngine(
        network.backbone, runtime.device, network.both, precision=narrow, threads=threads
    )


# A new engine is one entry here, one line in the conformance test (tests/test_engines.py) and a
# word of `EngineName`. The first entry is the usual one on a CPU.
ENGINES = {
    "onnxruntime": EngineKind(
        "ONNX Runtime", "onnxruntime", "train", ("float32",), True, _open_onnxruntime
    ),
    "openvino": EngineKind(
        "OpenVINO", "openvino", "openvino", ("float32", "bfloat16"), True, _open_openvino
    ),
    "torch": EngineKind("PyTorch", "torch", "train", ("float32", "bfloat16"), False, _open_torch),
}
# The order in which engines are tried on a CPU: the usual one, then those that can gain most.
TRIED: tuple[EngineChoice, ...] = (
    EngineChoice("onnxruntime", "float32"),
    EngineChoice("openvino", "bfloat16"),
    EngineChoice("torch", "bfloat16"),
    EngineChoice("openvino", "float32"),
)


def candidates(backbone: Backbone | Frozen, runtime: Runtime) -> tuple[EngineChoice, ...]:
    """Return the engines among which a resolved `runtime` leaves the choice, the usual one first.

    Raises SpecError or MissingPackage if it names an engine or a precision that can't be used here.
    """
    check_engine(runtime)
    if not _on_cpu(backbone, runtime):
        precision = runtime.compute_precision
        return (ON_ACCELERATOR if precision == "auto" else EngineChoice("torch", precision),)
    if runtime.engine == "torch" and isinstance(backbone, Frozen):
        raise SpecError(
            "A saved model is a graph, which PyTorch does not run: leave --engine out, or name "
            "onnxruntime or openvino."
        )
    tried = TRIED
    if runtime.engine == "torch":  # never tried by itself: ONNX Runtime is faster
        tried = (EngineChoice("torch", "float32"), *TRIED)
    elif (runtime.engine, runtime.compute_precision) == ("auto", "float32"):
        tried = TRIED[:1]  # the only engine of early versions: the same bytes as theirs
    elif runtime.engine == "auto" and not has_matrix_unit():  # without AMX it is slower, measured
        tried = tuple(choice for choice in TRIED if choice.engine != "torch")
    found = tuple(
        choice
        for choice in tried
        if runtime.engine in ("auto", choice.engine)
        and runtime.compute_precision in ("auto", choice.precision)
        and ENGINES[choice.engine].can_run(backbone, choice.precision)
    )
    if not found:
        raise MissingPackage("openvino", purpose="bfloat16 on this CPU", extra="openvino")
    return found


def usual_engine(backbone: Backbone | Frozen, runtime: Runtime) -> EngineChoice:
    """Return the engine of a resolved `runtime` if nothing is measured."""
    return candidates(backbone, runtime)[0]


def _on_cpu(backbone: Backbone | Frozen, runtime: Runtime) -> bool:
    graphs_only = runtime.engine in ENGINES and ENGINES[runtime.engine].takes_graphs
    return runtime.device == "cpu" or isinstance(backbone, Frozen) or graphs_only


def check_device(runtime: Runtime) -> None:
    """Raise SpecError or MissingPackage if the requested device or engine is not available."""
    check_engine(runtime)
    if runtime.device in ("auto", "cpu"):
        return
    import torch

    cuda = runtime.device == "cuda"
    if not (torch.cuda.is_available() if cuda else torch.backends.mps.is_available()):
        raise SpecError(
            f"PyTorch finds no {runtime.device} device on this machine: use --device auto."
        )


def check_engine(runtime: Runtime) -> None:
    """Raise SpecError or MissingPackage if the requested engine or precision is not available."""
    kind = ENGINES.get(runtime.engine)
    if kind is not None and not kind.installed:
        raise MissingPackage(kind.package, purpose=f"The engine {runtime.engine}", extra=kind.extra)
    on_cpu = runtime.device == "cpu" or (kind is not None and kind.takes_graphs)
    if runtime.compute_precision == "bfloat16" and on_cpu and not bfloat16_processor():
        raise SpecError(
            f"bfloat16 is for processors with AMX or AVX512-BF16; this one is {processor_name()}. "
            f"Leave --compute-precision out."
        )


def open_engine(network: FrozenPart, choice: EngineChoice | None = None) -> Engine:
    """Return an engine, the usual one without a `choice`; on a CPU it is checked against PyTorch.

    The first call raises Mismatch if engine and PyTorch differ by more than rounding.
    """
    backbone = network.backbone
    choice = choice or usual_engine(backbone, network.runtime)
    if choice == ON_ACCELERATOR:
        check_device(network.runtime)
    engine = ENGINES[choice.engine].open(network, choice.precision)
    if isinstance(backbone, Frozen) or choice.name == "torch-float32" or choice == ON_ACCELERATOR:
        return engine
    reference = TorchEngine(backbone, "cpu", network.both)
    title = ENGINES[choice.engine].title
    return Checked(engine, reference, title, reduced=choice.precision != "float32")
