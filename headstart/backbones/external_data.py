"""Find the files that an ONNX graph would read, from its bytes, before a runtime opens the graph.

ONNX tensors may refer to files ("external data"), so the author of a graph could name files of the
machine that runs it. ONNX Runtime reads such files from the working directory, and before 1.27 a
graph could make it read any other file and any memory address. Graphs exported by headstart name
one file, which is never opened: the weights are passed in memory.

The core installation lacks the package `onnx`, so the few relevant fields are parsed here, as
https://protobuf.dev/programming-guides/encoding describes; field numbers are those of onnx.proto.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from headstart.base.errors import Mismatch

WEIGHTS = "weights.safetensors"  # the file that our graphs name for external tensors

Kind = Literal["Model", "Training", "Function", "Graph", "Node", "Attribute", "Sparse", "Tensor"]
Field = tuple[int, int | memoryview]  # field number, and the integer or the raw bytes

# Per message kind, the fields that hold tensors or messages that hold tensors.
HOLDS: dict[Kind, dict[int, Kind]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
INITIALIZER = (7, 5)  # field path: the model's graph, its initializers
NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # fields of a tensor
OURS = b"\x0a\x08location\x12\x13" + WEIGHTS.encode()  # key and value, each with its length
VARINT, BYTES, FIXED = 0, 2, {1: 8, 5: 4}  # wire types; FIXED: bytes per fixed-size type
SHOWN = 80  # characters of a foreign name in a message


@dataclass(frozen=True)
class _Tensor:
    """A tensor's name, its external-data fields, the file they name, its field path."""

    name: str
    external: tuple[int | bytes, ...]
    place: str
    path: tuple[int, ...]


def check_external_data(graph: bytes, inputs: Collection[str]) -> None:
    """Raise Mismatch if an ONNX model would read a file, or if its bytes are truncated.

    inputs: initializers passed in memory; the graph may name WEIGHTS once for each, as our export
    does.
    """
    expected = set(inputs)
    try:
        external = [tensor for tensor in _tensors(memoryview(graph)) if tensor.external]
    except (IndexError, ValueError) as error:
        raise Mismatch("The graph is not an ONNX model: its bytes break off.") from error
    for tensor in external:
        if tensor.path != INITIALIZER or tensor.external != (OURS, 1):
            raise _refused(f"{_short(tensor.name)} would be read from {_short(tensor.place)}")
        if tensor.name not in expected:
            raise _refused(f"{_short(tensor.name)} is not listed, or is there twice")
        expected.remove(tensor.name)


def _refused(reason: str) -> Mismatch:
    return Mismatch(
        f"A graph may hold its numbers itself or leave them to weights that its model lists, but "
        f"the tensor {reason}. Headstart made no such graph, and it could read files of this "
        f"machine: don't use it."
    )


def _short(name: str) -> str:
    return repr(name if len(name) <= SHOWN else f"{name[:SHOWN]}…")


def _tensors(model: memoryview) -> Iterator[_Tensor]:
    """Yield every tensor of a model, at any depth."""
    waiting: list[tuple[Kind, memoryview, tuple[int, ...]]] = [("Model", model, ())]
    while waiting:  # no recursion: a hostile graph may be nested deeper than Python's limit
        kind, message, path = waiting.pop()
        fields = list(_fields(message))
        if kind == "Tensor":
            yield _tensor(fields, path)
        for number, value in fields:
            if number in HOLDS[kind] and isinstance(value, memoryview):
                longer = (*path, number)[: len(INITIALIZER) + 1]  # enough to compare
                waiting.append((HOLDS[kind][number], value, longer))


def _tensor(fields: list[Field], path: tuple[int, ...]) -> _Tensor:
    names, entries, locations = (
        [value if isinstance(value, int) else bytes(value) for n, value in fields if n == number]
        for number in (NAME, EXTERNAL_DATA, DATA_LOCATION)
    )
    external = (*entries, *locations) if entries or any(locations) else ()
    pairs = [_fields(memoryview(entry)) for entry in entries if isinstance(entry, bytes)]
    place = " ".join(_text(value) for pair in pairs for number, value in pair if number == 2)
    return _Tensor(_text(names[-1]) if names else "", external, place, path)


def _text(value: int | bytes | memoryview) -> str:
    return "" if isinstance(value, int) else bytes(value).decode(errors="replace")


def _fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a protobuf message, 0 for the value of one of a fixed size."""
    for number, wire, value in raw_fields(message):
        yield number, 0 if wire in FIXED else value


def raw_fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield number, wire type and value, as an integer or raw bytes, of a message's fields.

    Raises ValueError or IndexError if they are malformed.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == VARINT:
            value, at = varint(message, at)
        else:
            # groups, unused by onnx.proto, end here
            size, at = varint(message, at) if wire == BYTES else (FIXED.get(wire, end + 1), at)
            value = message[at : at + size]
            at += size
        # Protobuf truncates larger field numbers and would read a different field.
        if at > end or not 0 < number < 2**29:
            raise ValueError
        yield number, wire, value


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the varint (7 bits per byte, low bits first) at offset `at`, and its end.

    One of more than 64 bits, which protobuf truncates, is a ValueError.
    """
    byte = message[at]
    if byte < 128:
        return byte, at + 1
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 2**64:
                break
            return value, at
    raise ValueError
