"""A graph from elsewhere reads no file of this machine, and is refused before it is opened."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import headstart as hs
from headstart.backbones import external_data
from headstart.backbones.external_data import HOLDS, check_external_data
from headstart.backbones.frozen import Frozen
from headstart.backbones.graph import freeze
from headstart.backbones.session import import_onnxruntime
from headstart.base.errors import Mismatch
from headstart.features.engines import OnnxEngine

SECRET = np.arange(16, dtype=np.float32) + 7
VECTOR = helper.make_tensor_type_proto(TensorProto.FLOAT, [16])


def outside(name: str, location: str) -> Any:
    """A tensor whose numbers lie in a file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[16])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse(location: str) -> Any:
    indices = helper.make_tensor("", TensorProto.INT64, [16], range(16))
    return onnx.SparseTensorProto(values=outside("w", location), indices=indices, dims=[16])


def constant(**value: Any) -> Any:
    """The node that gives a tensor "w" as one of its attributes."""
    node = helper.make_node("Constant", [], ["w"])
    ((name, tensor),) = value.items()
    kind = "SPARSE_TENSOR" if name == "sparse_tensor" else "TENSOR"
    named = {"t": "value", "sparse_tensor": "sparse_value"}[name]
    node.attribute.add(name=named, type=getattr(onnx.AttributeProto, kind), **value)
    return node


def add(result: str = "y") -> Any:
    return helper.make_node("Add", ["x", "w"], [result])


def model(*nodes: Any, functions: Any = (), **parts: Any) -> Any:
    x, y = (helper.make_value_info(name, VECTOR) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], **parts)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=versions, functions=functions, ir_version=9)


def by_branch(location: str) -> Any:
    made = helper.make_value_info("z", VECTOR)
    branch = helper.make_graph([add("z")], "b", [], [made], [outside("w", location)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return model(node, initializer=[helper.make_tensor("c", TensorProto.BOOL, [], [True])])


def by_function(location: str) -> Any:
    nodes = [constant(t=outside("", location)), add()]
    own = helper.make_function("own", "F", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])
    return model(helper.make_node("F", ["x"], ["y"], domain="own"), functions=[own])


FORGERIES: dict[str, Callable[[str], Any]] = {
    "an initializer": lambda file: model(add(), initializer=[outside("w", file)]),
    "a sparse initializer": lambda file: model(add(), sparse_initializer=[sparse(file)]),
    "a constant": lambda file: model(constant(t=outside("", file)), add()),
    "a sparse constant": lambda file: model(constant(sparse_tensor=sparse(file)), add()),
    "a branch": by_branch,
    "a function": by_function,
}


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "secret.bin"


@pytest.fixture
def frozen() -> Frozen:
    return freeze(hs.load_backbone("tiny:8"))


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_graph_that_reads_a_file_is_refused(secret: Path, forgery: str) -> None:
    graph = FORGERIES[forgery]("secret.bin").SerializeToString()
    session = import_onnxruntime().InferenceSession(graph)
    (read,) = session.run(None, {"x": np.zeros(16, np.float32)})
    np.testing.assert_array_equal(read, SECRET, "the control: ONNX Runtime itself does read it")
    with pytest.raises(Mismatch, match=r"would be read from 'secret\.bin'.*don't use it"):
        check_external_data(graph, ["w"])


@pytest.mark.parametrize("place", ["weights.safetensors", "../x", "/etc/passwd", "", "\x1b[2J"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_nowhere_but_at_its_inputs_may_a_graph_name_a_file(forgery: str, place: str) -> None:
    graph = FORGERIES[forgery](place).SerializeToString()
    with pytest.raises(Mismatch, match="the tensor '") as refused:
        check_external_data(graph, [])
    assert str(refused.value).isprintable()


def test_the_graphs_that_we_write_are_accepted_wherever_they_are_opened(
    frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their weights are not read from a file of that name in the working directory either."""
    pictures = np.arange(2 * 32 * 32 * 3, dtype=np.uint8).reshape(2, 32, 32, 3)
    before = OnnxEngine(frozen, 1)({"pixels": pictures})[0]
    (tmp_path / "weights.safetensors").write_bytes(bytes(10_000))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(OnnxEngine(frozen, 1)({"pixels": pictures})[0], before)


def change_location(tensor: Any) -> None:
    tensor.external_data[0].value = "secret.bin"


def change_key(tensor: Any) -> None:
    tensor.external_data.add(key="location", value="secret.bin")


def change_name(tensor: Any) -> None:
    tensor.name = "another"


@pytest.mark.parametrize("change", [change_location, change_key, change_name])
def test_a_changed_input_is_refused_before_the_graph_is_opened(
    frozen: Frozen, change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx.load_from_string(frozen.graph)
    change(graph.graph.initializer[0])
    opened = "headstart.backbones.session.import_onnxruntime"
    monkeypatch.setattr(opened, lambda: pytest.fail("opened"))
    with pytest.raises(Mismatch, match="Headstart made no such graph"):
        OnnxEngine(dataclasses.replace(frozen, graph=graph.SerializeToString()), 1)


def test_an_input_may_be_there_once(frozen: Frozen) -> None:
    graph = onnx.load_from_string(frozen.graph)
    graph.graph.initializer.append(graph.graph.initializer[0])
    with pytest.raises(Mismatch, match="is there twice"):
        check_external_data(graph.SerializeToString(), frozen.inputs)


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_graph_that_breaks_off_is_refused(frozen: Frozen, cut: int) -> None:
    with pytest.raises(Mismatch, match="bytes break off"):
        check_external_data(frozen.graph[:-cut], frozen.inputs)


def message(field: int, content: bytes) -> bytes:
    """A message of three bytes of length in a field of another, as protobuf writes it."""
    size = len(content)
    return bytes([field << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content


def test_a_deeply_nested_graph_is_read_to_its_end() -> None:
    graph = message(5, outside("w", "secret.bin").SerializeToString())
    for _ in range(3_000):  # in an attribute of a node of the next graph
        graph = message(1, message(5, message(6, graph)))
    with pytest.raises(Mismatch, match=r"read from 'secret\.bin'"):
        check_external_data(message(7, graph), ["w"])


def test_a_graph_in_onnx_runtimes_own_format_is_refused(
    frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "graph.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    w = helper.make_tensor("w", TensorProto.FLOAT, [16], SECRET)
    onnxruntime.InferenceSession(model(add(), initializer=[w]).SerializeToString(), options)
    forged = dataclasses.replace(frozen, graph=(tmp_path / "graph.ort").read_bytes(), inputs=())
    onnxruntime.InferenceSession(forged.graph)  # the control: it is opened if nothing forbids it
    with pytest.raises(Mismatch, match="not an ONNX model"):
        OnnxEngine(forged, 1)
    monkeypatch.setattr("headstart.backbones.session.check_graph", lambda *_: None)
    with pytest.raises(Mismatch, match="its bytes break off"):  # by the check of its layers
        OnnxEngine(forged, 1)


def ways(message: Any, seen: frozenset[str] = frozenset()) -> bool:
    """Whether a message holds tensors, by whatever other messages."""
    parts = {f.message_type for f in message.fields if f.message_type} if message else set()
    if message.name == "TensorProto":
        return True
    return any(ways(part, seen | {message.name}) for part in parts if part.name not in seen)


def test_every_way_to_a_tensor_is_known() -> None:
    """The table of fields is what the package onnx says of all messages that hold tensors."""
    known = {kind: f"{kind}Proto" for kind in HOLDS}
    known |= {"Training": "TrainingInfoProto", "Sparse": "SparseTensorProto"}
    for kind, fields in HOLDS.items():
        message = getattr(onnx, known[kind]).DESCRIPTOR
        parts = {f.number: f.message_type for f in message.fields if f.message_type}
        holding = {number: part.name for number, part in parts.items() if ways(part)}
        assert holding == {number: known[held] for number, held in fields.items()}
    numbers = {n: f.number for n, f in TensorProto.DESCRIPTOR.fields_by_name.items()}
    assert numbers["name"] == external_data.NAME
    assert numbers["external_data"] == external_data.EXTERNAL_DATA
    assert numbers["data_location"] == external_data.DATA_LOCATION
