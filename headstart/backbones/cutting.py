"""The cut of a network: which parameters are trainable, and the last tensor before them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate

import torch
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.entry import blank_for_network
from headstart.backbones.inputs import has_parts
from headstart.backbones.tracing import after, as_module, crossings, is_leaf, tapped, traced, until
from headstart.base.errors import SpecError, UnknownName


@dataclass(frozen=True, eq=False)
class Cut:
    """A network split where a single tensor passes from frozen to thawed layers.

    trunk: the frozen part, module input -> (N, *shape). tail: (N, *shape) -> (N, D). both: the
    whole network, returning (N, D) and (N, *shape). All three share the backbone's own modules, so
    training the tail trains the backbone.

    sequences: activations are of any length, (N, L, *shape), and pass with a mask; see
    `sequence_cut`.
    """

    name: str
    trunk: nn.Module
    tail: nn.Module
    both: nn.Module
    shape: tuple[int, ...]
    sequences: bool = False

    def in_tail(self, backbone: nn.Module) -> dict[str, str]:
        """Return the name in the tail of each of the backbone's parameters that the tail has."""
        own = {id(parameter): name for name, parameter in self.tail.named_parameters()}
        named = backbone.named_parameters()
        return {name: own[id(p)] for name, p in named if id(p) in own}


def thawed_by(backbone: Backbone, thaw: str, thaw_from: int | None = None) -> tuple[str, ...]:
    """Return the names of the trainable parameters, in the module's order.

    thaw: a number of blocks from the top; "all"; "none"; or a name or glob of blocks, layers or
    parameters. thaw_from: overrides thaw with all layers from this index on, counted as in Keras
    (`model.layers[thaw_from:]`; a negative index counts from the top). Raises SpecError or
    UnknownName for blocks or layers that the backbone lacks.
    """
    names = [name for name, _ in backbone.module.named_parameters()]
    if thaw_from is not None:
        layers = set(_layers_from(backbone, thaw_from))
        chosen = {name for name in names if layers.intersection(_prefixes(name))}
    elif thaw == "none":
        chosen = set()
    elif thaw == "all":
        chosen = set(names)
    elif thaw.isdecimal():
        chosen = set(_of_top_blocks(backbone, int(thaw)))
    else:
        chosen = _matching(backbone, thaw, names)
    return tuple(name for name in names if name in chosen)


def layers_of(module: nn.Module) -> tuple[str, ...]:
    """Return the layer names in execution order.

    A Keras network lists Keras' own layers, including its input layer and additions, so that
    indices match Keras; in other networks each module without submodules is a layer.
    """
    if isinstance(own := getattr(module, "layers", None), tuple):
        return own
    graph = traced(module)
    if graph is not None:
        called = (str(n.target) for n in graph.nodes if n.op == "call_module")
        return tuple(dict.fromkeys(called))
    return tuple(name for name, m in module.named_modules() if name and is_leaf(m))


def cut_before(backbone: Backbone, thawed: Sequence[str]) -> Cut | None:
    """Cut the backbone at the last point before its first thawed layer where one tensor passes.

    Returns None without such a point (the first layer is thawed, or the network can't be traced):
    training then has to run the whole network. A module's own method `cut_before`, from the names
    of the thawed parameters to a Cut or None, replaces the tracing.
    """
    if callable(own := getattr(backbone.module, "cut_before", None)):
        cut: Cut | None = own(tuple(thawed))
        if cut is not None and isinstance(cut.both, _Joined):
            cut.both.weight_names = weight_names(cut.both, backbone.module)
        return cut
    graph = traced(backbone.module)
    if graph is None or has_parts(backbone.card.input):  # a traced length would be fixed
        return None
    for node in reversed(list(crossings(graph, set(thawed)))):
        trunk = as_module(backbone.module, until(graph, node))
        if (shape := _shape_after(trunk, backbone)) is not None:
            tail = as_module(backbone.module, after(graph, node))
            both = as_module(backbone.module, tapped(graph, node))
            return Cut(node.name, trunk, tail, both, shape)
    return None


def sequence_cut(name: str, trunk: nn.Module, tail: nn.Module, width: int) -> Cut:
    """Return the cut of a network for padded sequences, whose mask passes with the activations.

    name: of the place, unique in the network: a part of cache keys. trunk: the batch's arrays ->
    hidden (P, L, width) and mask (P, L), 0 where padded, at the end of a sequence. tail: hidden and
    mask of any L -> (P, D). Both hold modules of the network itself, not copies.
    """
    return Cut(name, trunk, tail, _Joined(trunk, tail), (width,), sequences=True)


def weight_names(module: nn.Module, network: nn.Module) -> dict[str, str]:
    """Return the network's name of each weight of a module that is made of its layers."""
    own = {id(t): name for name, t in network.state_dict(keep_vars=True).items()}
    held = module.state_dict(keep_vars=True).items()
    return {name: own.get(id(tensor), name) for name, tensor in held}


class _Joined(nn.Module):
    """The arrays of a batch -> (P, D), and the activations and the mask at the cut."""

    def __init__(self, trunk: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.trunk, self.tail = trunk, tail
        self.weight_names: dict[str, str] = {}  # the network's names, also of a copy's weights

    def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden, mask = self.trunk(*arrays)
        return self.tail(hidden, mask), hidden, mask


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


def _matching(backbone: Backbone, pattern: str, names: Sequence[str]) -> set[str]:
    """Return the parameters whose name, or whose block's or module's name, matches `pattern`."""
    whole = [block for block in backbone.blocks if fnmatchcase(block.name, pattern)]
    matching = {name for block in whole for name in block.parameters}
    matching |= {n for n in names if any(fnmatchcase(p, pattern) for p in _prefixes(n))}
    if not matching:
        known = {block.name for block in backbone.blocks} | set(layers_of(backbone.module))
        raise UnknownName(f"block or layer of {backbone.card.name}", pattern, known)
    return matching


def _prefixes(name: str) -> Iterator[str]:
    """Yield the names of the modules around a parameter and its own: a, a.b, a.b.weight."""
    return accumulate(name.split("."), "{}.{}".format)


@torch.inference_mode()
def _shape_after(trunk: nn.Module, backbone: Backbone) -> tuple[int, ...] | None:
    """Return one example's shape at the cut; None unless a tensor with one row per example."""
    value = trunk(blank_for_network(backbone.card.input, 2))
    if not isinstance(value, torch.Tensor) or value.dim() < 2 or len(value) != 2:
        return None
    return tuple(value.shape[1:])
