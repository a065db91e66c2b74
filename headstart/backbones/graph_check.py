"""Check that a graph can only compute features, in bounded memory and time, before it is opened.

A runtime does all that ONNX allows: a loop of 10^12 steps, a constant of 4 GB, a division by zero
that ends the process. Here every node is one of the operators of `table`, whose settings are in
range, and the shapes of all tensors are computed for one example. The same check refuses a network
that cannot pass when it is exported, and a stranger's graph when it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.external_data import check_external_data
from headstart.backbones.onnx_call import Known, NodeCall
from headstart.backbones.onnx_table import OPS, OPSET, Op, results
from headstart.backbones.onnx_wire import (
    MOST_DIMENSIONS,
    Node,
    OnnxGraph,
    Refused,
    Slot,
    read_onnx,
    refusal,
    shown,
)

MIB = 2**20
# Limits for one example: a constant, and what each element of the input, and each of the weights,
# adds. VGG16, DenseNet201 and a ViT at 448 pixels need a third of them at most.
LIVE = 48 * MIB, 512, 0  # bytes of the tensors that are needed at once
STEPS = 64 * 10**6, 512, 32  # elements that are written
WORK = 4 * 10**9, 0, 4000  # multiply-adds
SLOWER = 32  # times that products of other numbers than float32 take

Layout = tuple[tuple[str, tuple[int, ...], str], ...]  # name, shape and dtype of each array


def check_graph(
    graph: bytes,
    weights: Mapping[str, NDArray[np.generic]],
    example: Mapping[str, NDArray[np.generic]],
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the outputs for an example; Mismatch for a graph that must not be run.

    weights: initializers that are passed in memory, by name. example: the arrays of one example,
    as the graph is given them.
    """
    return dict(_checked(graph, _layout(weights), _layout(example)))


def _layout(arrays: Mapping[str, NDArray[np.generic]]) -> Layout:
    return tuple((name, array.shape, array.dtype.str) for name, array in arrays.items())


@lru_cache(maxsize=4)  # a graph is opened for the golden example, and again to predict
def _checked(graph: bytes, weights: Layout, example: Layout) -> dict[str, tuple[int, ...]]:
    check_external_data(graph, [name for name, *_ in weights])
    model = read_onnx(graph)
    try:
        return _Audit(model, _known(weights), _known(example)).outputs()
    except Refused as error:
        raise refusal(str(error)) from error


def _known(layout: Layout) -> dict[str, Known]:
    return {name: Known(shape, np.dtype(kind)) for name, shape, kind in layout}


@dataclass(eq=False)
class _Audit:
    """What is known of each tensor of a graph, and what has been counted so far."""

    graph: OnnxGraph
    weights: Mapping[str, Known]
    example: Mapping[str, Known]
    known: dict[str, Known] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)  # bytes of each tensor that is needed yet
    given: int = 0  # elements of the example
    held: int = 0  # elements of the weights
    live: int = 0  # bytes
    written: int = 0
    work: int = 0

    def outputs(self) -> dict[str, tuple[int, ...]]:
        if self.graph.opset != OPSET:
            raise Refused(f"is of opset {self.graph.opset}; it must be of {OPSET}")
        self._take_inputs()
        self._take_tensors()
        last = {name: i for i, node in enumerate(self.graph.nodes) for name in node.inputs}
        last |= {slot.name: len(self.graph.nodes) for slot in self.graph.outputs}
        for i, node in enumerate(self.graph.nodes):
            self._run(node)
            for name in {*node.inputs, *node.outputs}:
                if last.get(name, i) == i and name in self.made:
                    self.live -= self.made.pop(name)
        return {slot.name: self._output(slot) for slot in self.graph.outputs}

    def _take_inputs(self) -> None:
        slots = {slot.name: slot for slot in self.graph.inputs}
        if slots.keys() != self.example.keys() or len(slots) < len(self.graph.inputs):
            names = ", ".join(map(shown, list(slots)[:MOST_DIMENSIONS]))
            raise Refused(f"takes {names or 'nothing'}; it must take {', '.join(self.example)}")
        for name, own in self.example.items():
            slot = slots[name]
            if slot.dtype != own.dtype or not _alike(slot.shape, own.shape):
                raise Refused(
                    f"takes {name} of shape {slot.shape}, {slot.dtype}; its card's examples are "
                    f"of {own.shape}, {own.dtype}"
                )
            self.known[name] = own
            self.given += own.size

    def _take_tensors(self) -> None:
        outside = {t.name for t in self.graph.tensors if t.values is None}
        if outside != self.weights.keys():
            raise Refused("does not take the weights that are listed for it")
        for tensor in self.graph.tensors:
            own = self.weights[tensor.name] if tensor.values is None else Known.of(tensor.values)
            if own.shape != tensor.shape or own.dtype != tensor.dtype:
                raise Refused(
                    f"takes {shown(tensor.name)} of shape {tensor.shape}, {tensor.dtype}; the "
                    f"weights are of {own.shape}, {own.dtype}"
                )
            self._name(tensor.name, own)
            self.held += own.size

    def _name(self, name: str, known: Known) -> None:
        if name in self.known:
            raise Refused(f"makes the tensor {shown(name)} twice")
        if len(known.shape) > MOST_DIMENSIONS:
            raise Refused(f"makes {shown(name)} of {len(known.shape)} dimensions")
        self.known[name] = known

    def _run(self, node: Node) -> None:
        op = OPS.get(node.op)
        if op is None:
            raise Refused(f"has the operator {shown(node.op)}, which is not among those it may")
        call = self._call(node, op)
        try:
            found = results(op, call)
            slower = 1 if found[0].dtype == np.float32 else SLOWER
            self.work += slower * op.work(call, found) if op.work else 0
        except Refused:
            raise
        except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
            raise Refused(f"has a {node.op} that does not fit what it is given") from error
        if len(node.outputs) > len(found):
            raise Refused(f"has a {node.op} of {len(node.outputs)} outputs")
        for name, known in zip(node.outputs, found, strict=False):
            self._count(name, known)

    def _call(self, node: Node, op: Op) -> NodeCall:
        least, most = op.inputs
        if not least <= len(node.inputs) <= most or not node.outputs:
            raise Refused(f"has a {node.op} of {len(node.inputs)} inputs")
        for name, value in node.attributes.items():
            if name not in op.attributes or not op.attributes[name](value):
                raise Refused(f"has a {node.op} whose {shown(name)} is unknown or out of range")
        for name in node.inputs:
            if name and name not in self.known:
                raise Refused(f"has a {node.op} that reads {shown(name)}, which nothing made yet")
        return NodeCall(node, [self.known[name] if name else None for name in node.inputs])

    def _count(self, name: str, known: Known) -> None:
        self.written += known.size
        if name:
            self._name(name, known)
            self.made[name] = known.size * known.dtype.itemsize
            self.live += self.made[name]
        for count, (base, by_input, by_weight), what in (
            (self.live, LIVE, "bytes at once"),
            (self.written, STEPS, "numbers"),
            (self.work, WORK, "multiplications"),
        ):
            if count > base + by_input * self.given + by_weight * self.held:
                raise Refused(f"needs {count:,} {what} for one example, which is too much")

    def _output(self, slot: Slot) -> tuple[int, ...]:
        if slot.name not in self.known:
            raise Refused(f"gives {shown(slot.name)}, which nothing made")
        return self.known[slot.name].shape


def _alike(declared: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    pairs = zip(declared, shape, strict=False)
    return len(declared) == len(shape) and all(a is None or a == b for a, b in pairs)
