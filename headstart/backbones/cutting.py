"""Where frozen meets thawed: which parameters may learn, and the last tensor before them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.backbones.backbone import Backbone
from headstart.errors import SpecError, UnknownName

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True, eq=False)
class Cut:
    """A network taken apart where a single tensor crosses from frozen to thawed layers.

    trunk: (N, 3, H, W) -> (N, *shape), wholly frozen; tail: (N, *shape) -> (N, D); both: the whole
    network, giving (N, D) and (N, *shape). All hold the very modules of the backbone they were cut
    from: what is trained in the tail is trained there.
    """

    name: str
    trunk: nn.Module
    tail: nn.Module
    both: nn.Module
    shape: tuple[int, ...]


def thawed_by(backbone: Backbone, thaw: str, thaw_from: int | None = None) -> tuple[str, ...]:
    """Names of the parameters that may learn, in the order of the module's own.

    thaw: a number of blocks from the top; "all"; "none"; or a name or glob of blocks, layers or
    parameters. thaw_from: instead, all layers from this one on, counted as Keras counts them
    (`model.layers[thaw_from:]`, so a negative one counts from the top).
    Raises SpecError or UnknownName for what the backbone hasn't got.
    """
    names = [name for name, _ in backbone.module.named_parameters()]
    if thaw_from is not None:
        chosen = set(_owned(_layers_from(backbone, thaw_from), names))
    elif thaw == "none":
        chosen = set()
    elif thaw == "all":
        chosen = set(names)
    elif thaw.isdecimal():
        chosen = set(_of_top_blocks(backbone, int(thaw)))
    else:
        chosen = set(_matching(backbone, thaw, names))
    return tuple(name for name in names if name in chosen)


def layers_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the layers in the order in which they run.

    Those of a Keras network are Keras' own, its input layer and additions included, so that a
    number means what it means there; elsewhere each module without parts of its own is one.
    """
    if isinstance(own := getattr(module, "layers", None), tuple):
        return own
    graph = traced(module)
    if graph is not None:
        called = (str(n.target) for n in graph.nodes if n.op == "call_module")
        return tuple(dict.fromkeys(called))
    return tuple(name for name, m in module.named_modules() if name and _is_leaf(m))


def cut_before(backbone: Backbone, thawed: Sequence[str]) -> Cut | None:
    """The backbone cut at the last point before its first thawed layer that one tensor crosses.

    None if there is no such point (the first layer is thawed, or the network can't be traced):
    then the whole network has to run.
    """
    graph = traced(backbone.module)
    if graph is None:
        return None
    for node in reversed(list(_crossings(graph, set(thawed)))):
        trunk = _module(backbone.module, _until(graph, node))
        if (shape := _shape_after(trunk, backbone)) is not None:
            tail = _module(backbone.module, _after(graph, node))
            return Cut(node.name, trunk, tail, _module(backbone.module, _with(graph, node)), shape)
    return None


def traced(module: nn.Module) -> fx.Graph | None:
    """The operations of a network in the order in which they run; None if they depend on data."""
    if isinstance(module, fx.GraphModule):
        return module.graph
    try:
        graph = _Tracer(autowrap_functions=_opaque_functions()).trace(module)
    except Exception:  # each of torch.fx's refusals is of another kind
        return None
    return _of_one_input(graph)


def _of_one_input(graph: fx.Graph) -> fx.Graph:
    """The same, with every input but the first at its default (a ViT takes a mask as well)."""
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
    """Looks into modules made of modules, and no further: a norm with its activation is a leaf."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m)


def _is_leaf(module: nn.Module) -> bool:
    return isinstance(module, (*NORMS, *_opaque_modules())) or not any(module.children())


def _opaque_modules() -> tuple[type[nn.Module], ...]:
    from timm.models._features_fx import get_notrace_modules

    return tuple(get_notrace_modules())


def _opaque_functions() -> tuple[Callable[..., Any], ...]:
    from timm.models._features_fx import get_notrace_functions

    return tuple(get_notrace_functions())


def _layers_from(backbone: Backbone, index: int) -> tuple[str, ...]:
    layers = layers_of(backbone.module)
    if not -len(layers) <= index < len(layers):
        raise SpecError(
            f"thaw_from counts the {len(layers)} layers of {backbone.card.name}, from 0 or, below "
            f"0, from the top; got {index}."
        )
    return layers[index:]


def _of_top_blocks(backbone: Backbone, count: int) -> Iterator[str]:
    blocks = backbone.blocks
    if count > len(blocks):
        raise SpecError(
            f"{backbone.card.name} has {len(blocks)} blocks to thaw, but {count} were asked for: "
            f"say all, or a smaller number."
        )
    for block in blocks[len(blocks) - count :]:  # [-count:] would thaw all when count is 0
        yield from block.parameters


def _matching(backbone: Backbone, pattern: str, names: Sequence[str]) -> Iterator[str]:
    """Parameters whose own name, or that of what holds them, is matched."""
    whole = [block for block in backbone.blocks if fnmatchcase(block.name, pattern)]
    found = {name for block in whole for name in block.parameters}
    for name in names:
        parts = name.split(".")
        if any(fnmatchcase(".".join(parts[: n + 1]), pattern) for n in range(len(parts))):
            found.add(name)
    if not found:
        known = {block.name for block in backbone.blocks} | set(layers_of(backbone.module))
        raise UnknownName(f"block or layer of {backbone.card.name}", pattern, known)
    yield from found


def _owned(layers: Iterable[str], names: Sequence[str]) -> Iterator[str]:
    wanted = set(layers)
    for name in names:
        parts = name.split(".")
        if any(".".join(parts[:n]) in wanted for n in range(1, len(parts) + 1)):
            yield name


def _crossings(graph: fx.Graph, thawed: set[str]) -> Iterator[fx.Node]:
    """Nodes before the first thawed one whose value alone is used after them, in order."""
    nodes = [node for node in graph.nodes if node.op != "get_attr"]  # weights cross nothing
    place = {node: i for i, node in enumerate(nodes)}
    last_use = {node: max((place.get(u, 0) for u in node.users), default=0) for node in nodes}
    reach = 0  # the last use of any value made before this node
    for i, node in enumerate(nodes):
        if _holds(node, thawed) or any(_holds(a, thawed) for a in node.all_input_nodes):
            return
        if reach <= i and node.op not in ("placeholder", "output"):
            yield node
        reach = max(reach, last_use[node])


def _holds(node: fx.Node, thawed: set[str]) -> bool:
    target = str(node.target)
    if node.op == "get_attr":
        return target in thawed
    return node.op == "call_module" and any(name.startswith(f"{target}.") for name in thawed)


def _until(graph: fx.Graph, last: fx.Node) -> fx.Graph:
    copied, values = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        values[node] = copied.node_copy(node, lambda n: values[n])
        if node is last:
            copied.output(values[node])
            break
    return copied


def _with(graph: fx.Graph, tap: fx.Node) -> fx.Graph:
    """The whole graph, giving the value of `tap` beside its own."""
    copied, values = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node.op == "output":
            copied.output((values[node.args[0]], values[tap]))
        else:
            values[node] = copied.node_copy(node, lambda n: values[n])
    return copied


def _after(graph: fx.Graph, first: fx.Node) -> fx.Graph:
    copied = fx.Graph()
    values = {first: copied.placeholder("x")}
    nodes = list(graph.nodes)
    behind = set(nodes[nodes.index(first) + 1 :])
    for node in nodes:
        if node in behind or node.op == "get_attr":
            values[node] = copied.node_copy(node, lambda n: values[n])
    return copied


def _module(root: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """The graph as a module that holds those parts of `root` that it uses."""
    module = fx.GraphModule(root, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return fx.GraphModule(root, module.graph)  # without the parts that only dead code used


@torch.inference_mode()
def _shape_after(trunk: nn.Module, backbone: Backbone) -> tuple[int, ...] | None:
    """What one example is at the cut; None if that is no tensor with a row an example."""
    size = backbone.card.preprocess.size
    value = trunk(torch.zeros(2, 3, size, size))
    if not isinstance(value, torch.Tensor) or value.dim() < 2 or len(value) != 2:
        return None
    return tuple(value.shape[1:])
