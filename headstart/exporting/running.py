"""Run an exported graph: in ONNX Runtime or in OpenVINO."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.session import open_session
from headstart.base.errors import Mismatch
from headstart.features.openvino_engine import import_openvino
from headstart.models.golden import Arrays, Run

ONNX_FILE, OPENVINO_FILE = "model.onnx", "model.xml"


def onnx_run(graph: bytes, threads: int, name: str) -> Run:
    """Return what runs an exported ONNX graph; raises Mismatch if it can't be opened."""
    session = open_session(graph, {}, threads, name)
    names = [output.name for output in session.get_outputs()]
    return _guarded(lambda given: dict(zip(names, session.run(None, given), strict=True)), name)


def openvino_run(file: Path, threads: int) -> Run:
    """Return what runs OpenVINO's files in float32; raises MissingPackage without OpenVINO."""
    openvino = import_openvino()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    try:
        compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    except RuntimeError as error:
        raise Mismatch(f"OpenVINO can't open {file}: {error}") from error

    def run(given: Arrays) -> Arrays:
        found = compiled(dict(given))
        return {port.get_any_name(): np.array(found[port]) for port in compiled.outputs}

    return _guarded(run, str(file))


def _guarded(run: Callable[[dict[str, Any]], Arrays], name: str) -> Run:
    """Return what runs a graph and raises Mismatch for inputs that it can't take."""

    def guarded(given: Arrays) -> Arrays:
        try:
            return run(dict(given))
        except Exception as error:  # the engines' exceptions share no narrower base
            raise Mismatch(f"{name} can't answer what it is given: {error}") from error

    return guarded
