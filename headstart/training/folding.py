"""Fold batch norms into the convolutions before them: one pass over the activations less.

A batch norm in inference mode is a factor and a shift per channel, so it can be part of the
convolution's weight and bias (as ONNX Runtime does on loading). Here the folding happens in every
step, from the trainable parameters: gradients reach weight, scale and shift as without folding.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import conv2d, pad

from headstart.backbones.padding import PaddedConv2d


def folded(module: nn.Module) -> nn.Module:
    """Return the network with each batch norm folded into its convolution; names are unchanged.

    Only for norms in inference mode. A module that is not a traced graph is returned unchanged.
    """
    if not isinstance(module, fx.GraphModule):
        return module
    parts, graph, values = dict(module.named_modules()), fx.Graph(), dict[fx.Node, Any]()
    convs = {norm: norm.args[0] for norm in module.graph.nodes if _folds(norm, parts)}
    for node in module.graph.nodes:
        if node in convs:
            values[node] = _joined(graph, convs[node], node, parts, values)
        elif node not in convs.values():
            values[node] = graph.node_copy(node, lambda n: values[n])
    return fx.GraphModule(module, graph)


def conv_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    var: Tensor,
    settings: tuple[Any, ...],
) -> Tensor:
    """Return batch_norm(conv2d(x)) with fixed statistics. settings: edges, eps, stride, …."""
    edges, eps, stride, padding, dilation, groups = settings
    factor = scale * torch.rsqrt(var + eps)
    moved = shift - mean * factor if bias is None else shift + (bias - mean) * factor
    x = pad(x, edges) if any(edges) else x
    joined = weight * factor[:, None, None, None]
    return conv2d(x, joined, moved, stride, padding, dilation, groups)


def _folds(node: fx.Node, parts: dict[str, nn.Module]) -> bool:
    """Return whether a node is a batch norm and the only user of a convolution's output."""
    norm = parts.get(str(node.target)) if node.op == "call_module" else None
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return False
    if norm.weight is None or norm.bias is None:
        return False
    before = node.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
        return False
    conv = parts[str(before.target)]
    return type(conv) in (nn.Conv2d, PaddedConv2d) and conv.padding_mode == "zeros"


def _joined(
    graph: fx.Graph,
    conv_node: fx.Node,
    norm_node: fx.Node,
    parts: dict[str, nn.Module],
    values: dict[fx.Node, Any],
) -> fx.Node:
    conv, norm = parts[str(conv_node.target)], parts[str(norm_node.target)]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    edges = conv.edges if isinstance(conv, PaddedConv2d) else (0, 0, 0, 0)
    padding = 0 if isinstance(conv, PaddedConv2d) else conv.padding
    settings = (edges, norm.eps, conv.stride, padding, conv.dilation, conv.groups)
    weight = graph.get_attr(f"{conv_node.target}.weight")
    bias = graph.get_attr(f"{conv_node.target}.bias") if conv.bias is not None else None
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = [graph.get_attr(f"{norm_node.target}.{name}") for name in names]
    x = values[conv_node.args[0]]  # type: ignore[index]
    node = graph.call_function(conv_norm, (x, weight, bias, *tensors, settings))
    for part in ("drop", "act"):  # parts of timm's norm layers
        if hasattr(norm, part):
            node = graph.call_module(f"{norm_node.target}.{part}", (node,))
    return node
