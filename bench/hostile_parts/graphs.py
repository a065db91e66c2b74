"""Hostile graphs: made by hand, and fuzzed from a seed."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from headstart.backbones.session import import_onnxruntime
from hostile_parts.folders import Change, reseal

Model = Any  # an onnx.ModelProto
OPS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
NUMBERS = (-(2**63), -(2**31), -65536, -7, -1, 0, 1, 2, 3, 7, 255, 4096, 65536, 2**31, 2**40, 2**62)


def graph_change(alter: Callable[[Model], bytes | None]) -> Change:
    def change(folder: Path) -> None:
        model = onnx.load(folder / "graph.onnx", load_external_data=False)
        data = alter(model)
        (folder / "graph.onnx").write_bytes(data or model.SerializeToString())
        reseal(folder)

    return change


def _node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def _constant(name: str, values: Any) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values)))


def _ending(*nodes: Any) -> Callable[[Model], None]:
    """Let nodes make "more" of "x" (1, D), which is added to the features 0 times."""

    def alter(model: Model) -> None:
        for node in model.graph.node:
            node.output[:] = ["x" if name == "features" else name for name in node.output]
            node.input[:] = ["x" if name == "features" else name for name in node.input]
        zero = _constant("zero", np.float32(0))
        total = helper.make_node("ReduceSum", ["more"], ["total"], keepdims=0)
        none, end = _node("Mul", "total zero", "none"), _node("Add", "x none", "features")
        model.graph.node.extend([*nodes, zero, total, none, end])

    return alter


def _of_sizes(op: str, *inputs: Any, **attributes: Any) -> Callable[[Model], None]:
    """One operator of "x" and constants."""
    made = [_constant(f"c{i}", values) for i, values in enumerate(inputs)]
    names = " ".join(f"c{i}" for i in range(len(made)))
    return _ending(*made, _node(op, f"x {names}", "more", **attributes))


def _body(step: Any) -> Any:
    return helper.make_graph(
        [step],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )


def _loop(model: Model) -> None:
    nodes = [_constant("times", np.int64(10**12)), _constant("yes", np.bool_(True))]
    body = _body(_node("Identity", "state", "next"))
    _ending(*nodes, _node("Loop", "times yes x", "more", body=body))(model)


def _branch(model: Model) -> None:
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([_node("Identity", "x", "b")], "b", [], [out])
    own = _node("If", "yes", "more", then_branch=branch, else_branch=branch)
    _ending(_constant("yes", np.bool_(True)), own)(model)


def _function(model: Model) -> None:
    opset = [helper.make_opsetid("", 17)]
    own = helper.make_function("own", "F", ["a"], ["b"], [_node("Neg", "a", "b")], opset)
    model.functions.append(own)
    model.opset_import.append(helper.make_opsetid("own", 1))
    _ending(_node("F", "x", "more", domain="own"))(model)


def _chain(length: int, op: str = "Neg") -> Callable[[Model], None]:
    nodes = [_node(op, "x" if not i else f"n{i}", f"n{i + 1}") for i in range(length)]
    return _ending(*nodes, _node("Identity", f"n{length}", "more"))


def _doubled(times: int) -> Callable[[Model], None]:
    nodes = [
        _node("Concat", " ".join(["x" if not i else f"n{i}"] * 2), f"n{i + 1}", axis=1)
        for i in range(times)
    ]
    return _ending(*nodes, _node("Identity", f"n{times}", "more"))


def _computed(model: Model) -> None:
    many = [_constant("a", np.array([30_000])), _node("Mul", "a a", "b")]
    _ending(*many, _node("ConstantOfShape", "b", "more"))(model)


def _by_content(model: Model) -> None:
    far = _constant("far", np.float32(1e9))
    sized = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        _node("Abs", "sum", "size"),
        _node("Add", "size far", "larger"),
        _node("Cast", "larger", "whole", to=TensorProto.INT64),
        _constant("one", np.array([1])),
        _node("Reshape", "whole one", "shape"),
    ]
    _ending(far, *sized, _node("ConstantOfShape", "shape", "more"))(model)


def _products(model: Model) -> None:
    size = _constant("size", np.array([4096, 4096]))
    nodes = [size, _node("ConstantOfShape", "size", "p0")]
    nodes += [_node("MatMul", f"p{i} p{i}", f"p{i + 1}") for i in range(40)]
    _ending(*nodes, _node("Identity", "p40", "more"))(model)


def _outside(place: str) -> Callable[[Model], None]:
    def alter(model: Model) -> None:
        model.graph.initializer[0].external_data[0].value = place

    return alter


def _outside_constant(model: Model) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    node = helper.make_node("Constant", [], ["more"])
    node.attribute.add(name="value", type=AttributeProto.TENSOR, t=tensor)
    _ending(node)(model)


def _sparse(model: Model) -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("", TensorProto.INT64, [1], [0])
    sparse = onnx.SparseTensorProto(values=values, indices=places, dims=[2**30])
    model.graph.sparse_initializer.append(sparse)
    _ending(_node("Identity", "s", "more"))(model)


def _flatbuffer(model: Model) -> bytes:
    onnxruntime = import_onnxruntime()
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [_node("Neg", "x", "y")],
        "g",
        [one],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = f"{folder}/graph.ort"
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(plain.SerializeToString(), options)
        return Path(f"{folder}/graph.ort").read_bytes()


def _set(path: str, value: Any) -> Callable[[Model], None]:
    def alter(model: Model) -> None:
        owner = model
        *inner, last = path.split(".")
        for step in inner:
            owner = owner[int(step)] if step.isdigit() else getattr(owner, step)
        setattr(owner, last, value)

    return alter


def _attribute(op: str, name: str, value: Any) -> Callable[[Model], None]:
    def alter(model: Model) -> None:
        for node in model.graph.node:
            if node.op_type == op:
                kept = [a for a in node.attribute if a.name != name]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return alter


def _divided(op: str) -> Callable[[Model], None]:
    whole = _node("Cast", "x", "whole", to=TensorProto.INT64)
    made = _node("Cast", "bad", "more", to=TensorProto.FLOAT)
    return _ending(whole, _constant("none", np.int64(0)), _node(op, "whole none", "bad"), made)


def _twice(model: Model) -> bytes:
    other = onnx.ModelProto(graph=onnx.GraphProto(node=[_node("Neg", "x", "y")]))
    return bytes(model.SerializeToString() + other.SerializeToString())


def _nested(model: Model) -> bytes:
    inside = b""
    for _ in range(5_000):
        for field in (6, 5, 1):
            size, length = len(inside), b""
            while size > 127:
                length += bytes([size & 127 | 128])
                size >>= 7
            inside = bytes([field << 3 | 2]) + length + bytes([size]) + inside
    return bytes(model.SerializeToString() + b"\x3a" + inside[1:])


def _of_integers(model: Model) -> None:
    for tensor in model.graph.initializer:
        tensor.data_type = TensorProto.INT64


def _huge(model: Model) -> None:
    for tensor in model.graph.initializer:
        tensor.dims.append(2**40)


MADE: dict[str, Callable[[Model], bytes | None]] = {
    "a loop of 10^12": _loop,
    "branches": _branch,
    "a function": _function,
    "30,000 nodes": _chain(30_000),
    "7,900 nodes": _chain(7_900),
    "7,900 layers that are slow": _chain(7_900, "Erf"),
    "a constant of 3.9 GB": _of_sizes("ConstantOfShape", np.array([975_000_000])),
    "a constant of a computed size": _computed,
    "a size by content": _by_content,
    "an expansion to 4 GB": _of_sizes("Expand", np.array([2**26, 16])),
    "tiles of 4 GB": _of_sizes("Tile", np.array([2**26, 1])),
    "a margin of 4 GB": _of_sizes("Pad", np.array([0, 0, 2**26, 0])),
    "a depth of 10^9": _ending(
        _node("Cast", "x", "w", to=TensorProto.INT64),
        _constant("depth", np.int64(10**9)),
        _constant("both", np.array([0, 1], np.float32)),
        _node("OneHot", "w depth both", "more"),
    ),
    "a range of 10^9": _ending(
        *(_constant(f"r{i}", np.float32(v)) for i, v in enumerate((0, 1e9, 1))),
        _node("Range", "r0 r1 r2", "more"),
    ),
    "doubled 40 times": _doubled(40),
    "doubled 24 times": _doubled(24),
    "40 large products": _products,
    "random numbers": _ending(_node("RandomNormalLike", "x", "more")),
    "texts": _ending(_node("StringNormalizer", "x", "more")),
    "a division by 0": _divided("Div"),
    "a remainder of 0": _divided("Mod"),
    "a stride of 0": _attribute("Conv", "strides", [0, 0]),
    "a stride below 0": _attribute("Conv", "strides", [-1, -1]),
    "a stride alone": _attribute("Conv", "strides", [1]),
    "no groups": _attribute("Conv", "group", 0),
    "a huge dilation": _attribute("Conv", "dilations", [2**40, 2**40]),
    "a huge margin": _attribute("Conv", "pads", [2**30] * 4),
    "a margin below 0": _attribute("Conv", "pads", [-(2**40)] * 4),
    "a kernel of another size": _attribute("Conv", "kernel_shape", [9, 9]),
    "an unknown setting": _attribute("Conv", "hook", b"os.system"),
    "weights in /etc/passwd": _outside("/etc/passwd"),
    "weights above the folder": _outside("../secret.bin"),
    "a constant in a file": _outside_constant,
    "a sparse tensor": _sparse,
    "ONNX Runtime's own format": _flatbuffer,
    "operators of another domain": _set("opset_import.0.domain", "com.microsoft"),
    "opset 99": _set("opset_import.0.version", 99),
    "opset 1": _set("opset_import.0.version", 1),
    "format 99": _set("ir_version", 99),
    "another input": _set("graph.input.0.name", "other"),
    "another output": _set("graph.output.0.name", "other"),
    "a graph twice": _twice,
    "deep nesting": _nested,
    "another message after it": lambda m: bytes(m.SerializeToString() + b"\xfa\x01\x04hook"),
    "nothing": lambda m: b"\x08\x08",
    "integers as weights": _of_integers,
    "huge weights": _huge,
}


def graph_changes() -> Iterator[tuple[str, Change]]:
    for what, alter in MADE.items():
        yield f"a graph with {what}", graph_change(alter)


# ------------------------------------------------------------ fuzz
def fuzzed(graph: bytes, rng: np.random.Generator) -> bytes:
    """Return the graph after one to three random changes of its bytes or of its content."""
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.4:
            graph = _bytes(bytearray(graph), rng)
        else:
            graph = _content(graph, rng)
    return graph


def _bytes(data: bytearray, rng: np.random.Generator) -> bytes:
    if len(data) < 64:
        return bytes(data)
    at, size = int(rng.integers(len(data))), int(2 ** rng.uniform(0, 9))
    how = rng.integers(6)
    if how == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif how == 1:
        data[at] = int(rng.choice([0, 1, 127, 128, 255]))
    elif how == 2:
        del data[at : at + size]
    elif how == 3:
        data[at:at] = data[at : at + size]
    elif how == 4:
        data[at : at + size] = rng.bytes(size)
    else:
        other = int(rng.integers(len(data)))
        data[at : at + size] = data[other : other + size]
    return bytes(data)


def _content(graph: bytes, rng: np.random.Generator) -> bytes:
    """Change a node, an attribute, a constant or a shape to another one that can be written."""
    try:
        model = onnx.load_from_string(graph)
    except Exception:  # bytes were changed before
        return _bytes(bytearray(graph), rng)
    nodes = model.graph.node
    if not len(nodes):
        return _bytes(bytearray(graph), rng)
    change = CHANGES[int(rng.integers(len(CHANGES)))]
    try:
        change(model.graph, nodes[int(rng.integers(len(nodes)))], rng)
    except (IndexError, ValueError, TypeError):  # nothing there to be changed
        nodes[0].name = "changed"
    return bytes(model.SerializeToString())


def _pick(values: Any, rng: np.random.Generator) -> Any:
    return values[int(rng.integers(len(values)))]


def _some_number(graph: Any, node: Any, rng: np.random.Generator) -> None:
    attributes = [a for n in graph.node for a in n.attribute if a.type in (2, 7)]
    own, value = _pick(attributes, rng), int(_pick(NUMBERS, rng))
    if own.type == AttributeProto.INT:
        own.i = value
    else:
        own.ints[int(rng.integers(len(own.ints)))] = value


def _some_float(graph: Any, node: Any, rng: np.random.Generator) -> None:
    own = _pick([a for n in graph.node for a in n.attribute if a.type == 1], rng)
    own.f = float(_pick([0.0, -1.0, 1e30, float("nan"), float("inf"), -1e-30], rng))


def _some_constant(graph: Any, node: Any, rng: np.random.Generator) -> None:
    own = _pick([a for n in graph.node for a in n.attribute if a.type == 4], rng)
    values = numpy_helper.to_array(own.t).copy()
    flat = values.reshape(-1)
    number = _pick(NUMBERS, rng)
    flat[int(rng.integers(flat.size))] = number if values.dtype == np.int64 else number % 128
    own.t.CopyFrom(numpy_helper.from_array(values, own.t.name))


def _some_op(graph: Any, node: Any, rng: np.random.Generator) -> None:
    node.op_type = str(_pick(OPS, rng))


def _known_op(graph: Any, node: Any, rng: np.random.Generator) -> None:
    node.op_type = _pick(graph.node, rng).op_type


def _input(graph: Any, node: Any, rng: np.random.Generator) -> None:
    names = [name for n in graph.node for name in (*n.input, *n.output)]
    node.input[int(rng.integers(len(node.input)))] = _pick(names, rng)


def _more_inputs(graph: Any, node: Any, rng: np.random.Generator) -> None:
    node.input.extend([_pick(node.input, rng)] * int(rng.integers(1, 4)))


def _fewer_inputs(graph: Any, node: Any, rng: np.random.Generator) -> None:
    del node.input[int(rng.integers(len(node.input))) :]


def _removed(graph: Any, node: Any, rng: np.random.Generator) -> None:
    del graph.node[int(rng.integers(len(graph.node)))]


def _repeated(graph: Any, node: Any, rng: np.random.Generator) -> None:
    other = graph.node.add()
    other.CopyFrom(node)
    other.output[:] = [f"{name}-{rng.integers(100)}" for name in node.output]
    graph.output[0].name = other.output[0]


def _shape(graph: Any, node: Any, rng: np.random.Generator) -> None:
    own = _pick([*graph.initializer], rng)
    own.dims[int(rng.integers(len(own.dims)))] = int(_pick([v for v in NUMBERS if v >= 0], rng))


def _type(graph: Any, node: Any, rng: np.random.Generator) -> None:
    _pick([*graph.initializer], rng).data_type = int(rng.integers(0, 24))


def _slot(graph: Any, node: Any, rng: np.random.Generator) -> None:
    own = _pick([*graph.input, *graph.output], rng).type.tensor_type
    if rng.random() < 0.3:
        own.elem_type = int(rng.integers(0, 24))
    else:
        _pick(own.shape.dim, rng).dim_value = int(_pick(NUMBERS, rng))


def _new(graph: Any, node: Any, rng: np.random.Generator) -> None:
    """Put an operator with random inputs behind the features."""
    names = [name for n in graph.node for name in n.output]
    some = [str(_pick(names, rng)) for _ in range(int(rng.integers(0, 4)))]
    added = helper.make_node(str(_pick(OPS, rng)), [*some], ["features-new"])
    added.attribute.extend(_pick(graph.node, rng).attribute)
    graph.node.append(added)
    if rng.random() < 0.5:
        graph.output[0].name = "features-new"


CHANGES = (
    *(_some_number, _some_number, _some_float, _some_constant, _some_constant, _some_op),
    *(_known_op, _input, _more_inputs, _fewer_inputs, _removed, _repeated, _shape, _type),
    *(_slot, _new),
)
