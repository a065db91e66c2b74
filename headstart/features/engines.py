"""The engines that run the frozen backbone in ONNX Runtime and in PyTorch, and their checks."""

import copy
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Batch, Input, example_of, given, length, pooled, rows_of
from headstart.backbones.session import error_line, open_session
from headstart.base.errors import Mismatch
from headstart.base.runtime import torch_threads

if TYPE_CHECKING:
    from torch import nn

Features = NDArray[np.float32]  # (N, D)
Outputs = tuple[NDArray[np.float32], ...]  # features (N, D), and activations if there is a cut

TOLERANCE = 1e-4  # relative to the largest feature; measured between engines: 2e-5
LEAST_COSINE = 0.95  # of a reduced precision's features to PyTorch's; EfficientNet-Lite0 has 0.98
COMPARED = 4  # examples of the first batch checked against PyTorch


class Engine(Protocol):
    """Runs a frozen backbone on prepared examples; `batch`: its preferred batch size."""

    batch: int

    def __call__(self, batch: Batch) -> Outputs: ...


def features_of(engine: Engine, input: Input[Any], example: Batch) -> Features:
    """Return the features (1, D) of one example, whose parts run in chunks of the engine's batch.

    See `inputs.pooled`.
    """
    size, parts = engine.batch, length(example)
    runs = [engine(rows_of(example, slice(i, i + size)))[0] for i in range(0, parts, size)]
    return pooled(np.concatenate(runs), input.part_weights(example))[None]


class OnnxEngine:
    """ONNX Runtime on the CPU, float32."""

    batch = 8  # larger batches gain nothing on a CPU and take more memory

    def __init__(self, frozen: Frozen, threads: int) -> None:
        weights = {name: frozen.weights[name] for name in frozen.inputs}
        # A graph that holds its weights is one that the export has narrowed, and was checked before
        example = example_of(frozen.card.input) if frozen.inputs else None
        name = frozen.card.name
        self._session = open_session(frozen.graph, weights, threads, name, example)

    def __call__(self, batch: Batch) -> Outputs:
        try:
            return tuple(self._session.run(None, dict(given(batch))))
        except Exception as error:  # its exceptions share no narrower base
            shapes = ", ".join(f"{name} of {values.shape}" for name, values in batch.items())
            raise Mismatch(f"The graph can't read {shapes}: {error_line(error)}") from error


class TorchEngine:
    """PyTorch: channels-last and autocast to a narrower type, or plain float32.

    precision: float32, float16 or bfloat16; "" for float16 on an accelerator and float32 on a CPU.
    threads: on a CPU; 0 leaves PyTorch's own number. Rows that overflow the narrower type are
    computed again in float32.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: str,
        both: "nn.Module | None" = None,
        *,
        precision: str = "",
        threads: int = 0,
    ) -> None:
        import torch

        from headstart.backbones.entry import WholeNetwork

        precision = precision or ("float32" if device == "cpu" else "float16")
        self.half = precision != "float32"
        module = both or backbone.module
        if self.half or device != "cpu":  # a copy may change; on the CPU float32 runs in place
            module = copy.deepcopy(module).to(device).to(memory_format=torch.channels_last)
        self._network = WholeNetwork(module, backbone.card.input).to(device).eval()
        self._device, self._threads = torch.device(device), threads
        self._narrow = torch.bfloat16 if precision == "bfloat16" else torch.float16
        self.batch = 16 if device == "cpu" else 256

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

        narrow = torch.autocast(self._device.type, self._narrow, enabled=half)
        threads = torch_threads(self._threads) if self._threads else nullcontext()
        with threads, torch.inference_mode(), narrow:
            made = self._network(*(array.to(self._device) for array in tensors(batch)))
        outputs = made if isinstance(made, tuple) else (made,)
        return tuple(np.ascontiguousarray(output.float().cpu().numpy()) for output in outputs)


class Checked:
    """An engine whose first batch is compared with a reference engine, PyTorch in float32.

    title: of the engine, for messages. reduced: whether it computes in a reduced precision, which
    is compared by the angle between features instead of by their difference.
    """

    def __init__(
        self,
        engine: Engine,
        reference: Engine,
        title: str = "ONNX Runtime",
        *,
        reduced: bool = False,
    ) -> None:
        self.batch = engine.batch
        self._engine, self._reference = engine, reference
        self._title, self._reduced, self._checked = title, reduced, False

    def __call__(self, batch: Batch) -> Outputs:
        outputs = self._engine(batch)
        if not self._checked:
            few = slice(COMPARED)
            ours = _without_padding(tuple(output[few] for output in outputs))
            theirs = _without_padding(self._reference(rows_of(batch, few)))
            for one, other in zip(ours, theirs, strict=True):
                if self._reduced:
                    compare_angles(one, other, self._title)
                else:
                    compare(one, other, self._title)
            self._checked = True
        return outputs


def _without_padding(outputs: Outputs) -> Outputs:
    """Return outputs with zeros where activations of sequences are padded: those are never used."""
    *others, last = outputs
    if not others or last.shape != others[-1].shape[:2] or others[-1].ndim != 3:
        return outputs
    return *others[:-1], np.where(last[..., None] > 0, others[-1], 0), last


def compare(features: Features, reference: Features, title: str = "ONNX Runtime") -> None:
    """Raise Mismatch unless features are within TOLERANCE of a finite reference."""
    _check_finite(reference)
    off = float(np.abs(features - reference).max(initial=0))
    allowed = TOLERANCE * max(1.0, float(np.abs(reference).max(initial=0)))
    if not off <= allowed:  # also when either holds NaN
        raise Mismatch(
            f"{title} must give PyTorch's features to within {allowed:.1e}; they differ by "
            f"{off:.1e}. This network or this build of {title} can't be trusted: please "
            f"report it, and use --device cuda or another backbone meanwhile."
        )


def compare_angles(features: Features, reference: Features, title: str) -> None:
    """Raise Mismatch unless each row's cosine to a finite reference is LEAST_COSINE or more."""
    _check_finite(reference)
    least = float(cosines(features, reference).min(initial=1))
    if not least >= LEAST_COSINE:  # also if it is NaN
        raise Mismatch(
            f"{title} in a reduced precision must give PyTorch's features to a cosine of "
            f"{LEAST_COSINE}; got {least:.3f}. Add --compute-precision float32."
        )


def cosines(features: Features, reference: Features) -> NDArray[np.float64]:
    """Return the cosine of each row to that of the reference, (N,); 1 where both are zero."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (features, reference))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (a == b).all(axis=1)
    return np.where(same, 1.0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, np.inf))


def _check_finite(reference: Features) -> None:
    if not np.isfinite(reference).all():
        raise Mismatch(
            "The features of the backbone must be finite numbers, and PyTorch too computes others: "
            "its weights hold NaN or numbers far too large. Get them again, or name other weights."
        )
