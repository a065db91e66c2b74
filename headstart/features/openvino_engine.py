"""OpenVINO on the CPU: the engine for processors that compute bfloat16 in hardware.

It is the extra `openvino` and no part of `train`: with 178 MB it would make the installation of
everybody larger, and gains nothing on most processors (AVX2, Zen), where ONNX Runtime is as fast.
"""

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.frozen import Frozen
from headstart.backbones.graph_check import check_graph
from headstart.backbones.inputs import Batch, example_of, given, has_parts, length, rows_of
from headstart.backbones.weights_inside import with_weights_inside
from headstart.base.errors import Mismatch, MissingPackage
from headstart.base.onnx_nodes import import_onnx

MOST_BYTES = 2 * 10**9  # protobuf's limit, which ONNX files share, is 2**31
HINTS = {"float32": "f32", "bfloat16": "bf16"}


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry; no other code imports it. Raises MissingPackage.

    Its import alone would write a client id to ~/intel and send an event to Google Analytics,
    without asking first. It does neither where the package openvino-telemetry is missing, so that
    package is hidden meanwhile. No setting turns it off.
    """
    try:
        with _hidden("openvino_telemetry"):
            import openvino
    except ImportError as error:
        raise MissingPackage("openvino", purpose="The engine openvino", extra="openvino") from error
    return openvino


@functools.cache
def _core() -> Any:
    """Return the process's one `openvino.Core`, which is never released.

    It gives the thread a stack of its own for signals, and frees that stack on its end. The second
    of two such objects, released in the wrong order, puts back a stack that was freed: the next
    Ctrl-C then ends the process with SIGSEGV.
    """
    return import_openvino().Core()


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make a package that is not imported yet appear to be missing."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's own mark of a missing one
    try:
        yield
    finally:
        del sys.modules[package]


class OpenVinoEngine:
    """A graph compiled for this processor, float32 or bfloat16; its outputs are float32.

    cache: a folder that keeps what was compiled, since compiling takes 1 to 15 s; None for none.
    Graphs of examples of one size are compiled for one batch size, which is faster: the last batch
    is filled up.
    """

    batch = 8

    def __init__(self, frozen: Frozen, precision: str, threads: int, cache: Path | None) -> None:
        core = _core()
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # threads that decode need the same cores
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        input = frozen.card.input
        self._fixed = not has_parts(input)
        try:
            model = core.read_model(complete_graph(frozen))
            if self._fixed:
                model.reshape({k: list(v.shape) for k, v in input.blank(self.batch).items()})
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise Mismatch(
                f"OpenVINO can't open the graph of {frozen.card.name}: {error}"
            ) from error
        self._request = self._compiled.create_infer_request()

    def __call__(self, batch: Batch) -> tuple[NDArray[np.float32], ...]:
        if not self._fixed:
            return self._run(batch)
        starts = range(0, length(batch), self.batch)
        runs = [self._run_filled(rows_of(batch, slice(i, i + self.batch))) for i in starts]
        return tuple(np.concatenate(outputs) for outputs in zip(*runs, strict=True))

    def _run_filled(self, batch: Batch) -> tuple[NDArray[np.float32], ...]:
        """Run at most `batch` examples, filled up with copies of the last one."""
        count = length(batch)
        full = np.minimum(np.arange(self.batch), count - 1)
        return tuple(output[:count] for output in self._run(rows_of(batch, full)))

    def _run(self, batch: Batch) -> tuple[NDArray[np.float32], ...]:
        try:
            self._request.infer({n: np.ascontiguousarray(a) for n, a in given(batch).items()})
        except (RuntimeError, ValueError) as error:
            shapes = ", ".join(f"{name} of {values.shape}" for name, values in batch.items())
            raise Mismatch(f"The graph can't read {shapes}: {error}") from error
        outputs = range(len(self._compiled.outputs))
        return tuple(self._request.get_output_tensor(i).data.astype(np.float32) for i in outputs)


def complete_graph(frozen: Frozen) -> bytes:
    """Return a graph that holds its weights, which OpenVINO would otherwise read from a file.

    Raises Mismatch for a graph that names a file, or that would be larger than MOST_BYTES.
    """
    weights: Mapping[str, NDArray[Any]] = {name: frozen.weights[name] for name in frozen.inputs}
    if weights:
        check_graph(frozen.graph, weights, example_of(frozen.card.input))
    if (size := sum(array.nbytes for array in weights.values())) > MOST_BYTES:
        raise Mismatch(
            f"OpenVINO is given graphs of up to {MOST_BYTES / 1e9:.0f} GB; {frozen.card.name} has "
            f"{size / 1e9:.1f} GB of weights. Leave --engine out."
        )
    import_onnx("The engine openvino", "openvino")
    return with_weights_inside(frozen.graph, weights)
