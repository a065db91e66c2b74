"""Probes of a network: the layers whose activations form a grid over the picture."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.entry import blank_for_network
from headstart.backbones.tracing import after, as_module, crossings, traced, until

LEAST = 4  # values per side of the grid; fewer are too coarse
PREFIX = 8  # tokens, at most, before the patch tokens: the class token, registers
Layout = Literal["channels first", "channels last", "tokens"]


@dataclass(frozen=True, eq=False)
class Probe:
    """A network cut in two at a single tensor whose values form a grid over the picture.

    node: the node of the module's graph after which it is cut. side: grid positions per side.
    prefix: number of tokens before the patch tokens.
    """

    module: nn.Module
    graph: fx.Graph
    node: fx.Node
    layout: Layout
    side: int
    prefix: int = 0

    @property
    def name(self) -> str:
        return self.node.name

    @cached_property
    def trunk(self) -> nn.Module:
        """Normalised pixels (N, 3, S, S) -> activations. Made on first use, since it is slow."""
        return as_module(self.module, until(self.graph, self.node))

    @cached_property
    def tail(self) -> nn.Module:
        """Activations -> features (N, D)."""
        return as_module(self.module, after(self.graph, self.node))

    def grid(self, values: Tensor) -> Tensor:
        """Arrange a tensor of the activations' shape as a grid: (N, side, side, C)."""
        if self.layout == "channels first":
            return values.permute(0, 2, 3, 1)
        if self.layout == "tokens":
            return values[:, self.prefix :].unflatten(1, (self.side, self.side))
        return values


def probes(backbone: Backbone, least: int = LEAST) -> Iterator[Probe]:
    """Yield the probes of a network, the last layer first; none if it can't be traced.

    The layout is guessed from the shape: Swin has channels last, most transformers patch tokens.
    """
    graph = traced(backbone.module)
    if graph is None:
        return
    shapes = _shapes(backbone, graph)
    for node in reversed(list(crossings(graph))):
        if found := _grid_of(shapes.get(node, ()), _prefix(backbone.module)):
            layout, side, prefix = found
            if side >= least:
                yield Probe(backbone.module, graph, node, layout, side, prefix)


def _prefix(module: nn.Module) -> int | None:
    """Return how many tokens precede the patch tokens by timm's attribute; None without one."""
    count = getattr(module, "num_prefix_tokens", None)
    return count if isinstance(count, int) else None


def _grid_of(shape: Sequence[int], prefix: int | None) -> tuple[Layout, int, int] | None:
    """Return layout, side and prefix of one example's activations; None if not a square grid."""
    if len(shape) == 3 and shape[1] == shape[2]:
        return "channels first", shape[1], 0
    if len(shape) == 3 and shape[0] == shape[1]:
        return "channels last", shape[0], 0
    if len(shape) == 2:
        side = math.isqrt(max(0, shape[0] - (prefix or 0)))
        before = shape[0] - side * side
        if before == prefix or (prefix is None and before <= PREFIX):
            return "tokens", side, before
    return None


def _shapes(backbone: Backbone, graph: fx.Graph) -> dict[fx.Node, tuple[int, ...]]:
    """Return one example's shape after each node whose value is a tensor with a row per example."""
    shapes = dict[fx.Node, tuple[int, ...]]()

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor) and value.dim() > 1 and len(value) == 2:
                shapes[n] = tuple(value.shape[1:])
            return value

    device = next((p.device for p in backbone.module.parameters()), torch.device("cpu"))
    blank = blank_for_network(backbone.card.input, 2).to(device)
    with torch.inference_mode():
        Noting(fx.GraphModule(backbone.module, graph)).run(blank)
    return shapes
