"""Activations of several strides of a network, which a head that finds places in pictures reads."""

import math
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import Cut
from headstart.backbones.entry import blank_for_network
from headstart.backbones.tracing import as_module, crossings, traced
from headstart.base.errors import SpecError

STRIDES = (8, 16, 32)  # of the input's pixels
# Times the channels of the narrowest place that the last place of the last block may have: it has
# the 320 channels of EfficientNet-Lite0's last block, and not the 1,280 made of them for pooling.
WIDER = 2
ROWS = 2  # examples by which shapes are found


@dataclass(frozen=True, eq=False)
class Levels:
    """The activations of a backbone at STRIDES, one row each: flattened, one after the other.

    name: of the places in the network. shapes: (C, h, w) of each. both: the network, which returns
    (N, D) and the row (N, size). trunk: the same without (N, D). They share the backbone's modules.
    """

    name: str
    shapes: tuple[tuple[int, int, int], ...]
    both: nn.Module
    trunk: nn.Module

    @property
    def size(self) -> int:
        return sum(c * h * w for c, h, w in self.shapes)


def levels_of(backbone: Backbone) -> Levels:
    """Return the activations at the last end of a block of each stride; SpecError without them.

    Inside the last block, which holds layers behind its own end too, it is the last place of at
    most WIDER times the channels of the narrowest one.
    """
    found = _Found.of(backbone)
    both, trunk = (
        as_module(backbone.module, _packed(found.graph, found.ends, whole=w)) for w in (True, False)
    )
    return Levels(found.name, found.levels, both, trunk)


def levels_cut(backbone: Backbone, thawed: Collection[str]) -> Cut | None:
    """Cut the backbone at the last point before its first thawed layer where one tensor passes.

    A row per example passes the cut: the activations of `levels_of` and, unless it is one of them,
    the tensor at the point. tail: such rows -> the levels (N, size), those behind the point anew.
    thawed: names of parameters that the levels depend on. None without such a point.
    """
    found = _Found.of(backbone)
    last = found.place[found.ends[-1]]
    before = [n for n in crossings(found.graph, thawed) if found.place[n] < last]
    for node in reversed(before):
        shape = found.shapes.get(node, ())
        if len(shape) > 1 and shape[0] == ROWS:
            return _cut(backbone, found, node)
    return None


@dataclass(frozen=True, eq=False)
class _Found:
    """The graph of a network, the shapes of its values for ROWS examples, and the ends of its
    levels in the order of STRIDES."""

    graph: fx.Graph
    shapes: dict[fx.Node, Any]
    ends: list[fx.Node]

    @classmethod
    def of(cls, backbone: Backbone) -> "_Found":
        graph = traced(backbone.module)
        if graph is None:
            raise _lacking(backbone, "its operations depend on the data, so that it can't be cut")
        blank = blank_for_network(backbone.card.input, ROWS)
        shapes = _shapes(graph, backbone, blank)
        ends = list(dict.fromkeys(_ends(backbone, graph)))
        inside = list(_behind(graph, ends))
        height, width = blank.shape[-2:]
        found = []
        for stride in STRIDES:
            size = height // stride, width // stride
            own, more = (_of_size(shapes, nodes, size) for nodes in (ends, inside))
            if not own + more:
                raise _lacking(backbone, f"none of its blocks ends at stride {stride}")
            found.append(_last(shapes, own[-1:] + more))
        return cls(graph, shapes, found)

    @property
    def name(self) -> str:
        return "+".join(node.name for node in self.ends)

    @property
    def levels(self) -> tuple[tuple[int, int, int], ...]:
        shapes = (self.shapes[node] for node in self.ends)
        return tuple((int(c), int(h), int(w)) for _, c, h, w in shapes)

    @cached_property
    def place(self) -> dict[fx.Node, int]:
        return {node: i for i, node in enumerate(self.graph.nodes)}


def _cut(backbone: Backbone, found: _Found, node: fx.Node) -> Cut:
    packed = found.ends if node in found.ends else [*found.ends, node]
    module, graph = backbone.module, found.graph
    both, trunk = (as_module(module, _packed(graph, packed, whole=w)) for w in (True, False))
    tail = as_module(module, _above(found, node, packed))
    size = sum(math.prod(found.shapes[n][1:]) for n in packed)
    name = f"levels {found.name}" + (f" cut {node.name}" if packed is not found.ends else "")
    return Cut(name, trunk, tail, both, (size,))


def _above(found: _Found, node: fx.Node, packed: Sequence[fx.Node]) -> fx.Graph:
    """Return the graph from rows of `packed` values to rows of the levels: those up to `node` as
    they are, the others computed from its value."""
    copied, parts, at = fx.Graph(), dict[fx.Node, fx.Node](), 0
    rows = copied.placeholder("rows")
    for n in packed:
        end = at + math.prod(found.shapes[n][1:])
        part = (rows, (slice(None), slice(at, end)))
        parts[n], at = copied.call_function(operator.getitem, part), end
    shape = (-1, *map(int, found.shapes[node][1:]))
    values = {node: copied.call_method("reshape", (parts[node], shape))}
    first, last = found.place[node], found.place[found.ends[-1]]
    for n in found.graph.nodes:
        if first < found.place[n] <= last or n.op == "get_attr":
            values[n] = copied.node_copy(n, lambda m: values[m])
    levels = [
        parts[n] if found.place[n] <= first else copied.call_method("flatten", (values[n], 1))
        for n in found.ends
    ]
    copied.output(copied.call_function(torch.cat, (levels, 1)))
    return copied


def _lacking(backbone: Backbone, why: str) -> SpecError:
    strides = ", ".join(map(str, STRIDES))
    return SpecError(
        f"Boxes are found on activations of strides {strides}, and {backbone.card.name} does not "
        f"give them: {why}. Name a convolutional --backbone, such as packaged:efficientnet_lite0."
    )


def _of_size(
    shapes: Mapping[fx.Node, Any], nodes: list[fx.Node], size: tuple[int, int]
) -> list[fx.Node]:
    """Return the nodes whose values are (N, C, *size)."""
    return [n for n in nodes if len(shapes.get(n, ())) == 4 and shapes[n][2:] == size]


def _last(shapes: Mapping[fx.Node, Any], nodes: list[fx.Node]) -> fx.Node:
    most = WIDER * min(shapes[node][1] for node in nodes)
    return [node for node in nodes if shapes[node][1] <= most][-1]


def _behind(graph: fx.Graph, ends: list[fx.Node]) -> Iterator[fx.Node]:
    """Yield the nodes behind the last of these ends where one tensor alone passes."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    last = max((place[node] for node in ends), default=-1)
    yield from (node for node in crossings(graph) if place[node] > last)


def _ends(backbone: Backbone, graph: fx.Graph) -> Iterator[fx.Node]:
    """Yield the last node before each block, as far as one tensor passes there."""
    later = [set(block.parameters) for block in backbone.blocks]
    for k in range(1, len(later)):
        before = list(crossings(graph, set().union(*later[k:])))
        if before:
            yield before[-1]


def _shapes(graph: fx.Graph, backbone: Backbone, blank: torch.Tensor) -> dict[fx.Node, Any]:
    """Return the shape of each node's value, where that is a tensor; raises SpecError if the
    network can't take the input's size."""
    shapes = dict[fx.Node, Any]()

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                shapes[n] = tuple(value.shape)
            return value

    module = fx.GraphModule(backbone.module, graph)
    try:
        with torch.inference_mode():
            Shapes(module).run(blank)
    except (RuntimeError, AssertionError, ValueError) as error:
        height, width = blank.shape[-2:]
        raise SpecError(
            f"The network must take pictures of {width} x {height} pixels, and "
            f"{backbone.card.name} does not ({str(error).splitlines()[0][:80]}). Name a "
            f"convolutional --backbone, such as packaged:efficientnet_lite0."
        ) from error
    own = dict(zip(module.graph.nodes, graph.nodes, strict=True))
    return {own[n]: shape for n, shape in shapes.items()}


def _packed(graph: fx.Graph, nodes: list[fx.Node], *, whole: bool) -> fx.Graph:
    """Return the graph whose (second) output is the nodes' values, flattened and joined."""
    copied, values = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node.op != "output":
            values[node] = copied.node_copy(node, lambda n: values[n])
            continue
        flat = [copied.call_method("flatten", (values[n], 1)) for n in nodes]
        packed = copied.call_function(torch.cat, (flat, 1))
        copied.output((values[node.args[0]], packed) if whole else packed)
    return copied
