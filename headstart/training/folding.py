"""Convolutions that carry the norm behind them: the same sums, with a pass over the pictures less.

A batch norm in inference mode is a factor and a shift a channel, so it can be part of the
convolution's weight and bias (as ONNX Runtime does when it loads a graph). Here that happens anew
in every step, from the very parameters that learn: gradients reach weight, scale and shift as they
would have.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import conv2d, pad

from headstart.backbones.padding import PaddedConv2d


def folded(module: nn.Module) -> nn.Module:
    """The same network, parameters and names, each convolution with its norm in one operation.

    For norms in inference mode only. What isn't a traced graph is given back as it is.
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
    """batch_norm(conv2d(x)) with fixed statistics. settings: edges, eps and conv2d's own."""
    edges, eps, stride, padding, dilation, groups = settings
    factor = scale * torch.rsqrt(var + eps)
    moved = shift - mean * factor if bias is None else shift + (bias - mean) * factor
    x = pad(x, edges) if any(edges) else x
    joined = weight * factor[:, None, None, None]
    return conv2d(x, joined, moved, stride, padding, dilation, groups)


def _folds(node: fx.Node, parts: dict[str, nn.Module]) -> bool:
    """Whether a node is a batch norm that alone reads a convolution."""
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
    said = graph.call_function(conv_norm, (x, weight, bias, *tensors, settings))
    for part in ("drop", "act"):  # what timm's norms hold beside
        if hasattr(norm, part):
            said = graph.call_module(f"{norm_node.target}.{part}", (said,))
    return said
