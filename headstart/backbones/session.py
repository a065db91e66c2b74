"""Open ONNX graphs with ONNX Runtime, without its telemetry and without files that they name."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.external_data import check_external_data
from headstart.backbones.graph_check import check_graph
from headstart.base.display import display
from headstart.base.errors import Mismatch, MissingPackage

LONGEST_ERROR = 300  # characters shown of an error of ONNX Runtime


def import_onnxruntime() -> Any:
    """Import ONNX Runtime without its telemetry; no other code imports it.

    Its Linux builds since 1.29 open an event database and start uploading during import, which only
    ORT_DISABLE_TELEMETRY prevents: `headstart/__init__.py` sets it. Older and Windows builds only
    have the call. A user who set the variable to another value keeps telemetry.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(
            "onnxruntime", purpose="Running on a CPU", command="pip install onnxruntime"
        ) from error
    if os.environ.get("ORT_DISABLE_TELEMETRY", "").lower() in ("1", "true", "yes"):
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def open_session(
    graph: bytes,
    weights: Mapping[str, NDArray[Any]],
    threads: int,
    name: str,
    example: Mapping[str, NDArray[Any]] | None = None,
) -> Any:
    """Return a session on the CPU, float32.

    weights: the initializers that are passed in memory, by name. name: of the graph, for messages.
    example: the arrays of one example, for which the sizes of all tensors are checked; None for a
    graph with other operators than a backbone's, of which only the files that it names are. Raises
    Mismatch if the graph is refused (`graph_check`) or can't be opened.
    """
    if example is None:
        check_external_data(graph, weights)
    else:
        check_graph(graph, weights, example)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: keep stderr for the user
    # Waiting threads sleep instead of spinning, because decoding needs the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without this, ONNX Runtime also opens its own format, which check_graph can't read.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    arrays = [np.ascontiguousarray(array) for array in weights.values()]
    options.add_external_initializers(
        list(weights), [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in arrays]
    )
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no narrower base
        reason = error_line(error)
        raise Mismatch(f"ONNX Runtime can't open the graph of {name}: {reason}") from error


def error_line(error: Exception) -> str:
    """Return the first line of a native library's error, printable and not too long."""
    return display((str(error).splitlines() or [type(error).__name__])[0][:LONGEST_ERROR])
