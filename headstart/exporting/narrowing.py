"""Narrower copies of a model, for its export: half-precision weights, or 8-bit integers."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Batch, Input, given, length, rows_of
from headstart.backbones.weights_inside import with_weights_inside
from headstart.base.errors import DataError, MissingPackage, SpecError
from headstart.base.onnx_nodes import import_onnx
from headstart.data.content import prepared
from headstart.data.dataset import Dataset

CALIBRATED = (
    96  # prepared examples, views counted, by which the ranges of 8-bit activations are found
)
AT_ONCE = 8
FIRST = ("Cast", "Sub", "Div", "Gather")  # operators of the first layer, which stay as they are


def complete(frozen: Frozen) -> Frozen:
    """Return the same network as a graph that holds its weights."""
    weights = {name: frozen.weights[name] for name in frozen.inputs}
    return _with_graph(frozen, with_weights_inside(frozen.graph, weights))


def in_half(frozen: Frozen) -> Frozen:
    """Return the network with its weights in half precision; it computes in float32.

    CPUs have no half-precision convolutions: engines would compute in float32 between conversions.
    Raises SpecError for a weight that half precision can't hold.
    """
    onnx = import_onnx()
    model = onnx.load_from_string(complete(frozen).graph)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise SpecError(
                f"Half precision holds numbers up to 65,504; {name} of {frozen.card.name} has "
                f"larger ones. Export it with --precision fp32."
            )
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name} (half)"))
        casts.append(onnx.helper.make_node("Cast", [f"{name} (half)"], [name], to=1))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return _with_graph(frozen, model.SerializeToString())


def in_int8(frozen: Frozen, rows: Dataset) -> Frozen:
    """Return the network with 8-bit weights (each output channel its own scale) and activations.

    rows: examples that show the range of the activations. Raises DataError if none can be read.
    """
    onnx = import_onnx()
    examples = _examples(frozen.card.input, rows)
    with _quantization() as (quantization, shape), tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (str(Path(folder) / f"{n}.onnx") for n in ("a", "b", "c"))
        Path(plain).write_bytes(_first_output(complete(frozen).graph))
        shape.quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            small,
            _reader(quantization, examples),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=_first_layer(onnx.load(ready)),
            extra_options={"WeightSymmetric": True},
        )
        return _with_graph(frozen, Path(small).read_bytes())


def _with_graph(frozen: Frozen, graph: bytes) -> Frozen:
    return replace(frozen, graph=graph, weights={}, inputs=())


def _first_output(graph: bytes) -> bytes:
    """Return the graph with its features alone as output."""
    model = import_onnx().load_from_string(graph)
    del model.graph.output[1:]
    serialized: bytes = model.SerializeToString()
    return serialized


def _first_layer(model: Any) -> list[str]:
    """Return the names of the nodes from the input to the first layer with weights."""
    reached, names = {value.name for value in model.graph.input}, list[str]()
    for node in model.graph.node:
        if node.op_type in FIRST and reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


def _examples(input: Input[Any], rows: Dataset) -> list[Batch]:
    """Return prepared examples in batches, evenly spread over the rows: at most CALIBRATED, views
    counted."""
    count = min(len(rows), max(AT_ONCE, CALIBRATED // input.test_views))
    chosen = np.unique(np.linspace(0, len(rows) - 1, count).astype(int))
    found = list[Batch]()
    for file in rows.take(chosen.tolist()).files:
        try:
            batch = given(prepared(input, file))
        except (OSError, DataError):
            continue
        found += [rows_of(batch, slice(i, i + AT_ONCE)) for i in range(0, length(batch), AT_ONCE)]
    if not found:
        raise DataError(f"8-bit ranges are found by {rows.noun}, and none of them can be read.")
    return found


def _reader(quantization: Any, examples: Sequence[Batch]) -> Any:
    class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        left: Iterator[Batch] = iter(examples)

        def get_next(self) -> Mapping[str, NDArray[Any]] | None:
            batch = next(self.left, None)
            return None if batch is None else dict(batch)

    return _Reader()


@contextmanager
def _quantization() -> Iterator[tuple[Any, Any]]:
    """Import ONNX Runtime's tools, and silence what they log."""
    import logging
    from importlib import import_module

    from headstart.backbones.session import import_onnxruntime

    import_onnxruntime()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        tools = [import_module(f"onnxruntime.quantization{n}") for n in ("", ".shape_inference")]
    except ImportError as error:
        raise MissingPackage(
            str(error.name), purpose="An export in int8", extra="export"
        ) from error
    try:
        yield tools[0], tools[1]
    finally:
        logging.disable(before)
