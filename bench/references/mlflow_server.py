"""MLflow's model server on an ONNX file: `python mlflow_server.py GRAPH.onnx FOLDER PORT`.

Saves the file as a model of MLflow's onnx flavour in FOLDER and serves it (`mlflow models serve`),
as its documentation does. It takes JSON at /invocations; the inputs' types come from its signature.
"""

import os
import sys
from pathlib import Path
from typing import Any

import mlflow.onnx
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec


def main() -> None:
    graph, folder, port = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    network = onnx.load(str(graph))
    specs: list[Any] = [TensorSpec(*described(value)) for value in network.graph.input]
    mlflow.onnx.save_model(network, str(folder), signature=ModelSignature(Schema(specs)))
    words = ["-m", "mlflow", "models", "serve", "-m", str(folder), "-p", port]
    own = Path(sys.executable).parent  # it starts uvicorn by its name alone
    os.environ["PATH"] = f"{own}{os.pathsep}{os.environ['PATH']}"
    os.execv(sys.executable, [sys.executable, *words, "--env-manager", "local"])


def described(value: onnx.ValueInfoProto) -> tuple[Any, tuple[int, ...], str]:
    """Type, shape (-1 where any size is taken) and name of an input."""
    tensor = value.type.tensor_type
    shape = tuple(side.dim_value or -1 for side in tensor.shape.dim)
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name


if __name__ == "__main__":
    main()
