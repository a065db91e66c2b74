"""Read an ONNX model from its bytes, strictly, before a runtime opens it.

The core installation lacks the package `onnx`, so the messages are parsed here, as
https://protobuf.dev/programming-guides/encoding describes; field numbers are those of onnx.proto.
Only the fields that Headstart's own graphs have are known: subgraphs, functions, sparse tensors and
all others are refused, and so is a field that is there twice, of which programs would read either.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.external_data import raw_fields, varint
from headstart.base.errors import Mismatch

MOST_PARTS = 12_000  # nodes and tensors
MOST_DIMENSIONS = 8
MOST_SIDE = 2**31  # of a dimension
SHOWN = 60  # characters of a foreign name in a message
DTYPES: dict[int, np.dtype[Any]] = {  # by ONNX' numbers
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}
Decoded = dict[str, list[Any]]  # the values of a message's fields, by their names
Scalar = int | float | str
AttributeValue: TypeAlias = "Scalar | tuple[Scalar, ...] | Tensor"


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor as a graph holds it. values: None for one that is passed in memory."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    values: NDArray[Any] | None


@dataclass(frozen=True, eq=False)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class Slot:
    """An input or output of a graph. shape: None for a length that varies."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """A model's only graph. opset: the version of its operators."""

    opset: int
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]


class Refused(ValueError):
    """Why a graph is refused, as the end of a sentence."""


def read_onnx(data: bytes) -> OnnxGraph:
    """Return the graph of an ONNX model; raises Mismatch for a kind that Headstart never writes.

    Tensors that name a file have no values: `check_external_data` checks which may name one.
    """
    try:
        return _model(_decoded("Model", memoryview(data)))
    except Refused as error:
        raise refusal(str(error)) from error
    except (IndexError, ValueError, struct.error, OverflowError) as error:
        raise Mismatch("The graph is not an ONNX model: its bytes break off.") from error


def refusal(reason: str) -> Mismatch:
    return Mismatch(
        f"The graph of a network may hold plain layers of limited size alone, and this one "
        f"{reason}. If it came from elsewhere, don't use it; in a network of your own, change that "
        f"part."
    )


def shown(name: str) -> str:
    """Return a foreign name for a message."""
    return repr(name if len(name) <= SHOWN else f"{name[:SHOWN]}…")


# ------------------------------------------------------------ messages
def _text(value: memoryview) -> str:
    return bytes(value).decode()


def _float(value: Any) -> float:
    return float(struct.unpack("<f", value)[0])


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


# Of each message the fields by number: name, type, and whether there may be several. A type is a
# wire type and a function, or the name of a message.
INT: tuple[int, Callable[[Any], Any]] = (0, _signed)
TEXT: tuple[int, Callable[[Any], Any]] = (2, _text)
RAW: tuple[int, Callable[[Any], Any]] = (2, lambda value: value)
FLOAT: tuple[int, Callable[[Any], Any]] = (5, _float)
DOUBLE: tuple[int, Callable[[Any], Any]] = (1, lambda value: float(struct.unpack("<d", value)[0]))
PACKED = {0, 1, 5}  # wire types whose repeated values may lie in one field
Known = dict[int, tuple[str, Any, bool]]
MESSAGES: dict[str, Known] = {
    "Model": {
        1: ("ir", INT, False),
        2: ("producer", TEXT, False),
        3: ("producer_version", TEXT, False),
        4: ("domain", TEXT, False),
        5: ("version", INT, False),
        6: ("doc", TEXT, False),
        7: ("graph", "Graph", False),
        8: ("opsets", "Opset", True),
    },
    "Opset": {1: ("domain", TEXT, False), 2: ("version", INT, False)},
    "Graph": {
        1: ("nodes", "Node", True),
        2: ("name", TEXT, False),
        5: ("tensors", "Tensor", True),
        10: ("doc", TEXT, False),
        11: ("inputs", "Slot", True),
        12: ("outputs", "Slot", True),
        13: ("infos", RAW, True),
    },
    "Node": {
        1: ("inputs", TEXT, True),
        2: ("outputs", TEXT, True),
        3: ("name", TEXT, False),
        4: ("op", TEXT, False),
        5: ("attributes", "Attribute", True),
        6: ("doc", TEXT, False),
        7: ("domain", TEXT, False),
    },
    "Attribute": {
        1: ("name", TEXT, False),
        2: ("f", FLOAT, False),
        3: ("i", INT, False),
        4: ("s", TEXT, False),
        5: ("t", "Tensor", False),
        7: ("floats", FLOAT, True),
        8: ("ints", INT, True),
        13: ("doc", TEXT, False),
        20: ("type", INT, False),
    },
    "Tensor": {
        1: ("dims", INT, True),
        2: ("type", INT, False),
        4: ("floats", FLOAT, True),
        5: ("int32s", INT, True),
        7: ("int64s", INT, True),
        8: ("name", TEXT, False),
        9: ("raw", RAW, False),
        10: ("doubles", DOUBLE, True),
        12: ("doc", TEXT, False),
        13: ("external", RAW, True),
        14: ("location", INT, False),
    },
    "Slot": {1: ("name", TEXT, False), 2: ("type", "Type", False), 3: ("doc", TEXT, False)},
    "Type": {1: ("tensor", "TensorType", False)},
    "TensorType": {1: ("type", INT, False), 2: ("shape", "Shape", False)},
    "Shape": {1: ("dims", "Dim", True)},
    "Dim": {1: ("value", INT, False), 2: ("param", TEXT, False)},
}
REFUSED = {  # what other fields hold, for messages
    ("Model", 20): "training steps",
    ("Model", 25): "functions",
    ("Graph", 15): "sparse tensors",
    ("Attribute", 6): "a subgraph",
    ("Attribute", 11): "subgraphs",
    ("Attribute", 22): "a sparse tensor",
    ("Attribute", 23): "sparse tensors",
}


def _decoded(kind: str, message: memoryview) -> Decoded:
    """Return the fields of a message, those of messages in it decoded too."""
    known, found = MESSAGES[kind], Decoded()
    if kind == "Graph":
        _check_count(message)
    for number, wire, value in raw_fields(message):
        if number not in known:
            what = REFUSED.get((kind, number), f"a field of number {number} in its {kind.lower()}")
            raise Refused(f"holds {what}")
        name, type_, several = known[number]
        values = found.setdefault(name, [])
        values.extend(_values(type_, wire, value, several))
        if not several and len(values) > 1:
            raise Refused(f"holds the {name} of its {kind.lower()} twice")
    return found


def _check_count(graph: memoryview) -> None:
    """Raise Refused for too many nodes or tensors, before any is decoded."""
    if sum(1 for _ in raw_fields(graph)) > MOST_PARTS:
        raise Refused(f"has more than {MOST_PARTS:,} nodes and tensors")


def _values(type_: Any, wire: int, value: Any, several: bool) -> list[Any]:
    if isinstance(type_, str):
        if wire != 2:
            raise ValueError(wire)
        return [_decoded(type_, value)]
    own, read = type_
    if wire == own:
        return [read(value)]
    if several and wire == 2 and own in PACKED:
        return [read(each) for each in _unpacked(own, value)]
    raise ValueError(wire)


def _unpacked(wire: int, packed: memoryview) -> Iterator[Any]:
    if wire == 0:
        at = 0
        while at < len(packed):
            value, at = varint(packed, at)
            yield value
        return
    size = {1: 8, 5: 4}[wire]
    for at in range(0, len(packed), size):
        yield packed[at : at + size]


def _one(message: Decoded, name: str, default: Any = None) -> Any:
    (value,) = message.get(name) or [default]
    return value


# ------------------------------------------------------------ values
def _model(model: Decoded) -> OnnxGraph:
    opsets = [(_one(o, "domain", ""), _one(o, "version", 0)) for o in model.get("opsets", [])]
    if len(opsets) != 1 or opsets[0][0] not in ("", "ai.onnx"):
        raise Refused("needs other operators than ONNX' own")
    graph = _one(model, "graph")
    if graph is None:
        raise Refused("has no graph")
    return OnnxGraph(
        opsets[0][1],
        tuple(map(_node, graph.get("nodes", []))),
        tuple(map(_tensor, graph.get("tensors", []))),
        tuple(map(_slot, graph.get("inputs", []))),
        tuple(map(_slot, graph.get("outputs", []))),
    )


def _node(node: Decoded) -> Node:
    op = _one(node, "op", "")
    if _one(node, "domain", "") not in ("", "ai.onnx"):
        raise Refused(f"has the operator {shown(op)} of another domain than ONNX' own")
    named = [(_one(a, "name", ""), a) for a in node.get("attributes", [])]
    attributes = {name: _attribute(a) for name, a in named}
    if len(attributes) < len(named):
        raise Refused(f"holds an attribute of {shown(op)} twice")
    return Node(op, tuple(node.get("inputs", ())), tuple(node.get("outputs", ())), attributes)


ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}  # fields by type


def _attribute(attribute: Decoded) -> AttributeValue:
    kind = ATTRIBUTES.get(_one(attribute, "type", 0), "")
    held = set(attribute) - {"name", "type", "doc"}
    if kind in ("floats", "ints") and held <= {kind}:
        return tuple(attribute.get(kind, ()))
    if held != {kind}:
        name = shown(_one(attribute, "name", ""))
        raise Refused(f"holds the attribute {name}, whose value is not of its type")
    value = _one(attribute, kind)
    return _tensor(value) if kind == "t" else value


def _tensor(tensor: Decoded) -> Tensor:
    name, dims = _one(tensor, "name", ""), tuple(tensor.get("dims", ()))
    dtype = DTYPES.get(_one(tensor, "type", 0))
    if dtype is None:
        raise Refused(f"holds the tensor {shown(name)} of a type that is not known")
    _check_shape(dims, shown(name))
    if tensor.get("external") or _one(tensor, "location", 0):
        return Tensor(name, dtype, dims, None)
    return Tensor(name, dtype, dims, _numbers(tensor, dtype, dims))


def _check_shape(dims: tuple[int, ...], name: str) -> None:
    if len(dims) > MOST_DIMENSIONS or not all(0 <= n < MOST_SIDE for n in dims):
        raise Refused(f"holds {name} with dimensions that are too many or too large")


def _numbers(tensor: Decoded, dtype: np.dtype[Any], dims: tuple[int, ...]) -> NDArray[Any]:
    """Return the values of a tensor, of which there must be as many as its dimensions say."""
    held = [n for n in ("raw", "floats", "doubles", "int32s", "int64s") if tensor.get(n)]
    count = math.prod(dims)
    if len(held) > 1:
        raise Refused(f"holds the tensor {shown(_one(tensor, 'name', ''))} in two forms")
    if not held or held == ["raw"]:
        raw = _one(tensor, "raw", b"")
        if len(raw) != count * dtype.itemsize:
            raise ValueError(count)
        values = np.frombuffer(raw, dtype, count)
    else:
        values = _listed(tensor[held[0]], held[0], dtype)
        if len(values) != count:
            raise ValueError(count)
    return values.reshape(dims)


LISTS = {"floats": "f4", "doubles": "f8", "int64s": "i8"}  # the type that each list is for


def _listed(values: list[Any], held: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    if held == "int32s" and dtype.itemsize <= 4 and dtype != np.float32:
        whole = np.array(values, np.int64)
        if dtype == np.float16:
            return whole.astype(np.uint16).view(np.float16)
        if not (whole == whole.astype(dtype)).all():
            raise ValueError(held)
        return whole.astype(dtype)
    if np.dtype(LISTS.get(held, "V1")) != dtype:
        raise ValueError(held)
    return np.array(values, dtype)


def _slot(slot: Decoded) -> Slot:
    tensor = _one(_one(slot, "type", {}), "tensor", {})
    name, dtype = _one(slot, "name", ""), DTYPES.get(_one(tensor, "type", 0))
    if dtype is None:
        raise Refused(f"has the input or output {shown(name)} of a type that is not known")
    dims = _one(tensor, "shape", {}).get("dims", [])
    shape = tuple(_one(d, "value") if "value" in d else None for d in dims)
    _check_shape(tuple(n for n in shape if n is not None), shown(name))
    return Slot(name, dtype, shape)
