"""Write an ONNX graph node by node, without PyTorch. `onnx` is imported when a graph is begun."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import MissingPackage, SpecError

OPSET, IR = 17, 8
MOST_BYTES = 2**31 - 2**20  # protobuf's limit of a file, with room for the nodes
Value = str | NDArray[Any] | np.generic  # a value of the graph by its name, or a constant


def import_onnx(purpose: str = "An export", extra: str = "export") -> Any:
    """Import the package `onnx`; raises MissingPackage."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingPackage("onnx", purpose=purpose, extra=extra) from error
    return onnx


def whole(value: int | Sequence[int]) -> NDArray[np.int64]:
    """Return integers as ONNX counts: a constant of at least one axis."""
    return np.atleast_1d(np.array(value, np.int64))


class Nodes:
    """A graph that grows. Called with the type of an operator, its inputs and its attributes, it
    adds a node and returns the name of its result.

    >>> nodes = Nodes()
    >>> x = nodes.input("x", np.float32, ["n", 2])
    >>> nodes.output("y", nodes("Add", x, np.float32(1)), np.float32, ["n", 2])
    >>> [node.op_type for node in nodes.model({}).graph.node]
    ['Add']
    """

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self._graph = self._onnx.GraphProto(name="headstart")
        self._constants = dict[Any, str]()
        self._domains = {"": OPSET}

    def __call__(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        (result,) = self.several(1, kind, *inputs, **attributes)
        return result

    def several(self, results: int, kind: str, *inputs: Value, **attributes: Any) -> list[str]:
        """Add a node with several results; returns their names."""
        number = len(self._graph.node)
        outputs = [f"{kind.lower()}_{number}_{i}" for i in range(results)]
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self._graph.node.append(self._onnx.helper.make_node(kind, names, outputs, **attributes))
        return outputs

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """Return the name of a constant, the same one for equal values."""
        array = np.asarray(value, order="C")
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._graph.initializer.append(self._onnx.numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def cast(self, value: Value, dtype: Any) -> str:
        return self("Cast", value, to=self._kind(dtype))

    def sides(self, value: str) -> list[str]:
        """Return the lengths of the first three axes of a value, (1,) int64 each."""
        return [self("Shape", value, start=axis, end=axis + 1) for axis in range(3)]

    def input(
        self,
        name: str,
        dtype: Any,
        sides: Sequence[int | str],
        default: NDArray[Any] | None = None,
    ) -> str:
        """Add an input of the graph; one with a default may be left out by who runs it."""
        info = self._onnx.helper.make_tensor_value_info(name, self._kind(dtype), sides)
        self._graph.input.append(info)
        if default is not None:
            self._graph.initializer.append(self._onnx.numpy_helper.from_array(default, name))
        return name

    def output(self, name: str, value: str, dtype: Any, sides: Sequence[int | str]) -> None:
        """Make a value of a node an output of the graph, under this name."""
        for node in self._graph.node:
            node.input[:] = [name if own == value else own for own in node.input]
            node.output[:] = [name if own == value else own for own in node.output]
        info = self._onnx.helper.make_tensor_value_info(name, self._kind(dtype), sides)
        self._graph.output.append(info)

    def merged(self, graph: bytes, inputs: Mapping[str, str], prefix: str) -> str:
        """Add the nodes of another model, which holds its weights; returns its first output.

        inputs: the values that its inputs stand for. prefix: of the names of all that is added.
        """
        model = self._onnx.load_from_string(graph)
        for opset in model.opset_import:
            own = self._domains.setdefault(opset.domain, opset.version)
            if own != opset.version:
                raise SpecError(
                    f"A network is exported as ONNX opset {own}; this one was made in opset "
                    f"{opset.version}. Save it again with this version."
                )
        first = model.graph.output[0].name
        _renamed(model.graph, {**inputs}, prefix)
        nodes = _needed(model.graph.node, inputs.get(first, prefix + first))
        read = {name for node in nodes for name in _read(node)}
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
        return inputs.get(first, prefix + first)

    def model(self, metadata: Mapping[str, str]) -> Any:
        """Return the whole as an ONNX model with these words as metadata.

        Raises SpecError for one that no file can hold.
        """
        size = sum(tensor.ByteSize() for tensor in self._graph.initializer)
        if size > MOST_BYTES:
            raise SpecError(
                f"An ONNX file holds up to {MOST_BYTES / 1e9:.1f} GB; this model has "
                f"{size / 1e9:.1f} GB of weights. Export it with --precision fp16, or use its "
                f"bundle."
            )
        opsets = [self._onnx.helper.make_opsetid(*pair) for pair in self._domains.items()]
        model = self._onnx.helper.make_model(self._graph, opset_imports=opsets, ir_version=IR)
        model.producer_name = "headstart"
        self._onnx.helper.set_model_props(model, dict(metadata))
        return model

    def _kind(self, dtype: Any) -> int:
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _renamed(graph: Any, names: dict[str, str], prefix: str) -> None:
    """Rename all values of a graph, of graphs inside it too; names: those that others replace."""

    def name(old: str) -> str:
        return names.get(old, f"{prefix}{old}") if old else old

    for tensor in graph.initializer:
        tensor.name = name(tensor.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [name(old) for old in node.input]
        node.output[:] = [name(old) for old in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _renamed(inner, names, prefix)
    for value in (*graph.input, *graph.output):
        value.name = name(value.name)


def _needed(nodes: Sequence[Any], output: str) -> list[Any]:
    """Return the nodes that an output needs, in order."""
    wanted, kept = {output}, list[Any]()
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(_read(node))
            kept.append(node)
    return kept[::-1]


def _read(node: Any) -> set[str]:
    """Return the names that a node reads, those of graphs inside it too."""
    inner = (graph for a in node.attribute for graph in (a.g, *a.graphs))
    within = {name for graph in inner for one in graph.node for name in _read(one)}
    within |= {v.name for a in node.attribute for g in (a.g, *a.graphs) for v in g.output}
    return {*node.input, *within}
