"""Put a graph's weights into its file, for programs that are given no weights beside it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.external_data import check_external_data
from headstart.base.onnx_nodes import import_onnx


def with_weights_inside(graph: bytes, weights: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a graph that holds the weights that it names.

    Raises Mismatch for a graph that names a file.
    """
    check_external_data(graph, weights)
    onnx = import_onnx()
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = np.ascontiguousarray(weights[tensor.name]).tobytes()
    complete: bytes = model.SerializeToString()
    return complete
