"""Trace a network into a graph of operations, and turn parts of the graph into modules."""

from collections.abc import Collection, Iterator
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.backbones.timm_layers import opaque_functions, opaque_modules

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def traced(module: nn.Module) -> fx.Graph | None:
    """Return a network's operations in execution order; None if they depend on the data."""
    if isinstance(module, fx.GraphModule):
        return module.graph
    try:
        graph = _Tracer(autowrap_functions=opaque_functions()).trace(module)
    except Exception:  # torch.fx raises many unrelated exception types
        return None
    return _of_one_input(graph)


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module counts as one operation: no submodules, a norm, or untraceable."""
    return isinstance(module, (*NORMS, nn.MultiheadAttention, *opaque_modules())) or not any(
        module.children()
    )


def crossings(graph: fx.Graph, thawed: Collection[str] = ()) -> Iterator[fx.Node]:
    """Yield, in order, each node whose value alone is used after it, up to the first node that
    holds a parameter in `thawed`."""
    nodes = [node for node in graph.nodes if node.op != "get_attr"]  # weights are not activations
    place = {node: i for i, node in enumerate(nodes)}
    last_use = {node: max((place.get(u, 0) for u in node.users), default=0) for node in nodes}
    reach = 0  # the last use of any value made before this node
    for i, node in enumerate(nodes):
        if _holds(node, thawed) or any(_holds(a, thawed) for a in node.all_input_nodes):
            return
        if reach <= i and node.op not in ("placeholder", "output"):
            yield node
        reach = max(reach, last_use[node])


def until(graph: fx.Graph, last: fx.Node) -> fx.Graph:
    """Return the operations up to `last`, whose value becomes the output."""
    copied, values = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        values[node] = copied.node_copy(node, lambda n: values[n])
        if node is last:
            copied.output(values[node])
            break
    return copied


def tapped(graph: fx.Graph, tap: fx.Node) -> fx.Graph:
    """Return the whole graph with the value of `tap` as a second output."""
    copied, values = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node.op == "output":
            copied.output((values[node.args[0]], values[tap]))
        else:
            values[node] = copied.node_copy(node, lambda n: values[n])
    return copied


def after(graph: fx.Graph, first: fx.Node) -> fx.Graph:
    """Return the operations after `first`, taking its value as input."""
    copied = fx.Graph()
    values = {first: copied.placeholder("x")}
    nodes = list(graph.nodes)
    behind = set(nodes[nodes.index(first) + 1 :])
    for node in nodes:
        if node in behind or node.op == "get_attr":
            values[node] = copied.node_copy(node, lambda n: values[n])
    return copied


def as_module(root: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Return the graph as a module with the submodules of `root` that it uses."""
    module = fx.GraphModule(root, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return fx.GraphModule(root, module.graph)  # drops submodules used only by dead code


def _of_one_input(graph: fx.Graph) -> fx.Graph:
    """Replace every input except the first by its default (a ViT also takes a mask)."""
    for node in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        default = node.args[0] if node.args else None

        def filled(n: fx.Node, node: fx.Node = node, default: Any = default) -> Any:
            return default if n is node else n

        for user in list(node.users):
            user.args = fx.map_arg(user.args, filled)
            user.kwargs = fx.map_arg(user.kwargs, filled)
        graph.erase_node(node)
    return graph


class _Tracer(fx.Tracer):
    """Traces into containers but not into leaves: a norm with its activation is a leaf."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m)


def _holds(node: fx.Node, thawed: Collection[str]) -> bool:
    target = str(node.target)
    if node.op == "get_attr":
        return target in thawed
    return node.op == "call_module" and any(name.startswith(f"{target}.") for name in thawed)
