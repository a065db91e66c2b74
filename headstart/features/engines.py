"""The engines that run the frozen backbone: ONNX Runtime on a CPU, PyTorch on an accelerator."""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Batch, Input, length, pooled, rows_of
from headstart.backbones.session import open_session
from headstart.base.errors import Mismatch, SpecError
from headstart.base.runtime import Runtime

if TYPE_CHECKING:
    from torch import nn

Features = NDArray[np.float32]  # (N, D)
Outputs = tuple[NDArray[np.float32], ...]  # features (N, D), and activations if there is a cut

TOLERANCE = 1e-4  # relative to the largest feature; measured between engines: 2e-5
COMPARED = 4  # examples of the first batch checked against PyTorch


class Engine(Protocol):
    """Runs a frozen backbone on prepared examples; `batch`: its preferred batch size."""

    batch: int

    def __call__(self, batch: Batch) -> Outputs: ...


def precision(backbone: Backbone | Frozen, runtime: Runtime) -> str:
    """Return runtime and dtype of `open_engine`, as a part of the cache key of features."""
    on_cpu = runtime.device == "cpu" or isinstance(backbone, Frozen)
    return "onnxruntime-float32" if on_cpu else "torch-autocast-float16"


def features_of(engine: Engine, input: Input[Any], example: Batch) -> Features:
    """Return the features (1, D) of one example, whose parts run in chunks of the engine's batch.

    See `inputs.pooled`.
    """
    size, parts = engine.batch, length(example)
    runs = [engine(rows_of(example, slice(i, i + size)))[0] for i in range(0, parts, size)]
    return pooled(np.concatenate(runs), input.part_weights(example))[None]


def check_device(runtime: Runtime) -> None:
    """Raise SpecError if the requested accelerator is not available."""
    if runtime.device in ("auto", "cpu"):
        return
    import torch

    cuda = runtime.device == "cuda"
    if not (torch.cuda.is_available() if cuda else torch.backends.mps.is_available()):
        raise SpecError(
            f"PyTorch finds no {runtime.device} device on this machine: use --device auto."
        )


def open_engine(
    backbone: Backbone | Frozen,
    runtime: Runtime,
    both: "nn.Module | None" = None,
    *,
    graph: Frozen | None = None,
) -> Engine:
    """Return the fastest engine for a resolved `runtime`; on a CPU it is checked against PyTorch.

    both: the backbone with a second output (`cutting.Cut.both`), to be returned too. graph: the
    backbone's exported graph if it exists, since exporting takes seconds. The first call raises
    Mismatch if the two differ by more than TOLERANCE.
    """
    if isinstance(backbone, Frozen):
        return OnnxEngine(backbone, runtime.threads)
    if runtime.device != "cpu":
        check_device(runtime)
        return TorchEngine(backbone, runtime.device, both)
    if graph is None:
        from headstart.backbones.graph import exported

        graph = exported(backbone, both)
    return Checked(OnnxEngine(graph, runtime.threads), TorchEngine(backbone, "cpu", both))


class OnnxEngine:
    """ONNX Runtime on the CPU, float32."""

    batch = 8  # larger batches gain nothing on a CPU and take more memory

    def __init__(self, frozen: Frozen, threads: int) -> None:
        weights = {name: frozen.weights[name] for name in frozen.inputs}
        self._session = open_session(frozen.graph, weights, threads, frozen.card.name)

    def __call__(self, batch: Batch) -> Outputs:
        try:
            return tuple(self._session.run(None, dict(batch)))
        except Exception as error:  # its exceptions share no narrower base
            shapes = ", ".join(f"{name} of {values.shape}" for name, values in batch.items())
            raise Mismatch(f"The graph can't read {shapes}: {error}") from error


class TorchEngine:
    """PyTorch: channels-last and autocast to float16 on an accelerator, plain float32 on a CPU.

    Rows that overflow float16 are computed again in float32.
    """

    def __init__(self, backbone: Backbone, device: str, both: "nn.Module | None" = None) -> None:
        import copy

        import torch

        from headstart.backbones.entry import WholeNetwork

        module = both or backbone.module
        if device != "cpu":  # a copy may move; on the CPU it runs in place
            module = copy.deepcopy(module).to(device).to(memory_format=torch.channels_last)
        self._network = WholeNetwork(module, backbone.card.input).to(device).eval()
        self._device = torch.device(device)
        self.batch = 16 if device == "cpu" else 256
        self.half = device != "cpu"

    def __call__(self, batch: Batch) -> Outputs:
        outputs = self._run(batch, half=self.half)
        if self.half:
            fits = [np.isfinite(output).reshape(len(output), -1).all(axis=1) for output in outputs]
            beyond = ~np.logical_and.reduce(fits)
            if beyond.any():
                for output, exact in zip(
                    outputs, self._run(rows_of(batch, beyond), half=False), strict=True
                ):
                    output[beyond] = exact
        return outputs

    def _run(self, batch: Batch, *, half: bool) -> Outputs:
        import torch

        from headstart.backbones.entry import tensors

        narrow = torch.autocast(self._device.type, torch.float16, enabled=half)
        with torch.inference_mode(), narrow:
            given = self._network(*(array.to(self._device) for array in tensors(batch)))
        outputs = given if isinstance(given, tuple) else (given,)
        return tuple(np.ascontiguousarray(output.float().cpu().numpy()) for output in outputs)


class Checked:
    """An engine whose first batch is compared with a reference engine."""

    def __init__(self, engine: Engine, reference: Engine) -> None:
        self.batch = engine.batch
        self._engine, self._reference = engine, reference
        self._checked = False

    def __call__(self, batch: Batch) -> Outputs:
        outputs = self._engine(batch)
        if not self._checked:
            few = slice(COMPARED)
            ours = _without_padding(tuple(output[few] for output in outputs))
            theirs = _without_padding(self._reference(rows_of(batch, few)))
            for one, other in zip(ours, theirs, strict=True):
                compare(one, other)
            self._checked = True
        return outputs


def _without_padding(outputs: Outputs) -> Outputs:
    """Return outputs with zeros where activations of sequences are padded: those are never used."""
    *others, last = outputs
    if not others or last.shape != others[-1].shape[:2] or others[-1].ndim != 3:
        return outputs
    return *others[:-1], np.where(last[..., None] > 0, others[-1], 0), last


def compare(features: Features, reference: Features) -> None:
    """Raise Mismatch unless features are within TOLERANCE of a finite reference."""
    if not np.isfinite(reference).all():
        raise Mismatch(
            "The features of the backbone must be finite numbers, and PyTorch too computes others: "
            "its weights hold NaN or numbers far too large. Get them again, or name other weights."
        )
    off = float(np.abs(features - reference).max(initial=0))
    allowed = TOLERANCE * max(1.0, float(np.abs(reference).max(initial=0)))
    if not off <= allowed:  # also when either holds NaN
        raise Mismatch(
            f"ONNX Runtime must give PyTorch's features to within {allowed:.1e}; they differ by "
            f"{off:.1e}. This network or this build of ONNX Runtime can't be trusted: please "
            f"report it, and use --device cuda or another backbone meanwhile."
        )
