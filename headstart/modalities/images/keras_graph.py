"""Convert a Keras functional model to a torch.fx graph of plain PyTorch layers, channels first.

The layers keep their names, order and arithmetic; padding that depends on the input size becomes
constant.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import LayerNorm2d
from torch import Tensor, fx, nn
from torch.nn import functional as F

from headstart.backbones.padding import Edges, PaddedConv2d, same_edges
from headstart.base.errors import Mismatch

POOL = "global_pool"  # the only part that is not in the Keras model
Function = Callable[..., Tensor]
Layer = TypeVar("Layer", bound=nn.Module)

_NONE: Edges = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a Keras layer. shape: of its first input, channels last; zeros: its padding."""

    layer: Any
    shape: tuple[int, ...]
    zeros: Edges = _NONE

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return {v.name: torch.from_numpy(copied(v.value)) for v in self.layer.weights}

    def edges(self, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Edges:
        if self.layer.padding == "valid":
            return self.zeros
        dilation = getattr(self.layer, "dilation_rate", (1, 1))
        return same_edges(self.shape[1:3], kernel, stride, tuple(dilation))


def copied(value: Any) -> NDArray[np.float32]:
    """Copy a tensor of any Keras backend."""
    if isinstance(value, Tensor):  # np.array(tensor) is deprecated by NumPy 2
        return value.numpy(force=True).copy()
    return np.array(value)


class Converted(fx.GraphModule):
    """layers: names of all layers in Keras' order, with the input and layers without weights."""

    layers: tuple[str, ...]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Converted":
        copied = cast(Converted, super().__deepcopy__(memo))  # copies no attributes
        copied.layers = self.layers
        return copied


def convert(model: Any, pool: bool = True) -> Converted:
    """Convert `model` with its current weights: (N, 3, H, W) -> (N, D).

    pool: average the model's output over height and width. Each of `model.layers` becomes a node
    of the graph, and a submodule if it has weights. Raises Mismatch for an unknown kind of layer.
    """
    graph, parts = fx.Graph(), dict[str, nn.Module]()
    names, zeros = fresh_names(model.operations), _merged_zeros(model)
    values: dict[int, fx.Node] = {}  # by the id of Keras' symbolic tensor
    for operation in model.operations:
        call = _call_of(operation, zeros)
        inputs = [values.get(id(a), a) for a in _flat(_node(operation).arguments.args)]
        name = names[operation.name]
        node = _added(graph, parts, name, _form(call, operation.name in zeros), inputs)
        values[id(operation.output)] = _activated(graph, name, operation, node)
    result = values[id(model.outputs[0])]
    if pool:
        parts[POOL] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        result = graph.call_module(POOL, (result,))
    graph.output(result)
    module = Converted(parts, graph)
    module.layers = tuple(names[layer.name] for layer in model.layers)
    return module.eval().requires_grad_(False)


def fresh_names(operations: Iterable[Any]) -> dict[str, str]:
    """Return the names that Keras would give in a new session, by the names in this one.

    Keras numbers unnamed layers (conv2d_7) over all models of a session.
    """
    numbered: dict[str, list[tuple[int, str]]] = {}
    names = {}
    for operation in operations:
        kind = _snake(type(operation).__name__)
        numbers = re.fullmatch(rf"{kind}(?:_(\d+))?", operation.name)
        names[operation.name] = operation.name.replace(".", "_")
        if kind == "input_layer":
            names[operation.name] = kind  # a cloned model names it after its tensor
        elif numbers:
            numbered.setdefault(kind, []).append((int(numbers[1] or 0), operation.name))
    for kind, members in numbered.items():
        for place, (_, name) in enumerate(sorted(members)):
            names[name] = f"{kind}_{place}" if place else kind
    return names


def _snake(name: str) -> str:
    """
    >>> _snake("MaxPooling2D"), _snake("ReLU")
    ('max_pooling2d', 're_lu')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _node(operation: Any) -> Any:
    """Return the operation's node in Keras' graph; raises Mismatch unless there is one."""
    nodes = operation._inbound_nodes
    if len(nodes) != 1:
        raise Mismatch(
            f"Each Keras layer must be used once to be converted; {operation.name!r} is used "
            f"{len(nodes)} times. Make a copy of it for each use."
        )
    return nodes[0]


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _call_of(operation: Any, zeros: Mapping[str, Edges]) -> Call:
    """Return the Call of an operation, with the zeros of a merged ZeroPadding2D before it."""
    sources = _node(operation).input_tensors
    shape = tuple(sources[0].shape) if sources else ()
    before = sources[0]._keras_history.operation.name if sources else ""
    return Call(operation, shape, zeros.get(before, _NONE))


def _merged_zeros(model: Any) -> dict[str, Edges]:
    """Return the edges of each ZeroPadding2D that only one unpadded convolution reads, by name."""
    readers: dict[str, list[Any]] = {}
    for operation in model.operations:
        for source in _node(operation).input_tensors:
            readers.setdefault(source._keras_history.operation.name, []).append(operation)
    return {
        operation.name: _edges(operation.padding)
        for operation in model.operations
        if type(operation).__name__ == "ZeroPadding2D"
        and [_takes_zeros(r) for r in readers.get(operation.name, ())] == [True]
        and not any(operation.output is output for output in model.outputs)
    }


def _takes_zeros(operation: Any) -> bool:
    kinds = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")
    return type(operation).__name__ in kinds and operation.padding == "valid"


def _edges(pairs: Any) -> Edges:
    (top, bottom), (left, right) = pairs
    return left, right, top, bottom


def _form(call: Call, merged: bool) -> nn.Module | Function | None:
    """Return the layer in PyTorch; None for the input."""
    kind = type(call.layer).__name__
    if kind == "InputLayer":
        return None
    if merged:
        return nn.Identity()
    if kind not in _FORMS:
        raise Mismatch(
            f"A Keras layer of the kind {kind} ({call.layer.name!r}) can't be converted; those "
            f"that can are {', '.join(sorted(_FORMS))}."
        )
    return _FORMS[kind](call)


def _added(
    graph: fx.Graph,
    parts: dict[str, nn.Module],
    name: str,
    form: nn.Module | Function | None,
    inputs: list[Any],
) -> fx.Node:
    if form is None:
        return graph.create_node("placeholder", name, name=name)
    if isinstance(form, nn.Module):
        parts[name] = form
        return graph.create_node("call_module", name, tuple(inputs), name=name)
    return graph.create_node("call_function", form, tuple(inputs), name=name)


def _activated(graph: fx.Graph, name: str, operation: Any, node: fx.Node) -> fx.Node:
    """Return the node, or the node of the activation that a layer with weights contains."""
    contains = type(operation).__name__ != "Activation" and hasattr(operation, "activation")
    if not contains or operation.activation.__name__ == "linear":
        return node
    function = _activation(operation)
    return graph.create_node("call_function", function, (node,), name=f"{name}_activation")


def _activation(layer: Any) -> Function:
    if (name := layer.activation.__name__) not in _ACTIVATIONS:
        raise Mismatch(
            f"The activation {name} of {layer.name!r} can't be converted; those that can are "
            f"{', '.join(sorted(_ACTIVATIONS))}."
        )
    return _ACTIVATIONS[name]


_ACTIVATIONS: dict[str, Function] = {
    "elu": F.elu,
    "gelu": F.gelu,
    "hard_sigmoid": F.hardsigmoid,
    "hard_silu": F.hardswish,
    "relu": F.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def add(*terms: Any) -> Any:
    return sum(terms[1:], start=terms[0])


def multiply(x: Any, *factors: Any) -> Any:
    for factor in factors:
        x = x * factor
    return x


def concatenate(*tensors: Tensor) -> Tensor:  # each (N, C, H, W) -> (N, all C, H, W)
    return torch.cat(tensors, dim=1)


class Rescaling(nn.Module):
    """x * scale + offset; both are one number, or one per channel."""

    def __init__(self, scale: Any, offset: Any) -> None:
        super().__init__()
        self.scale = nn.Buffer(_per_channel(scale), persistent=False)
        self.offset = nn.Buffer(_per_channel(offset), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset


def _per_channel(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1)


class Standardisation(nn.Module):
    """Keras' Normalization: by fixed statistics, never by those of a batch.

    The buffers have a batch norm's names, by which a graph tells them from parameters.
    """

    def __init__(self, mean: Any, variance: Any) -> None:
        super().__init__()
        self.running_mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32).flatten())
        self.running_var = nn.Buffer(torch.tensor(variance, dtype=torch.float32).flatten())

    def forward(self, x: Tensor) -> Tensor:
        std = self.running_var.sqrt().clamp(min=1e-7)  # keras.config.epsilon()
        return (x - self.running_mean[:, None, None]) / std[:, None, None]


class ChannelScale(nn.Module):
    """ConvNeXt's LayerScale: a learned factor per channel."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


class ScaledSum(nn.Module):
    """Inception-ResNet's residual sum: shortcut + scale * branch."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        return shortcut + branch * self.scale


class Cropping(nn.Module):
    """Crops rows and columns at the edges."""

    def __init__(self, edges: Edges) -> None:
        super().__init__()
        self.left, self.right, self.top, self.bottom = edges

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return x[..., self.top : height - self.bottom, self.left : width - self.right]


def _conv(call: Call) -> nn.Module:
    kernel = _by_output(call.weights["kernel"])
    return _convolution(call, kernel, call.weights.get("bias"), call.layer.groups)


def _depthwise(call: Call) -> nn.Module:
    kernel = _by_channel(call.weights["kernel"])
    return _convolution(call, kernel, call.weights.get("bias"), call.shape[-1])


def _separable(call: Call) -> nn.Module:
    kernel = _by_channel(call.weights["depthwise_kernel"])
    across = _by_output(call.weights["pointwise_kernel"])
    pair = nn.Sequential()
    pair.add_module("depthwise", _convolution(call, kernel, None, call.shape[-1]))
    pair.add_module("pointwise", _with_weights(across, call.weights.get("bias")))
    return pair


def _by_output(kernel: Tensor) -> Tensor:  # (h, w, in, out) -> (out, in, h, w)
    return kernel.permute(3, 2, 0, 1)


def _by_channel(kernel: Tensor) -> Tensor:
    """Reorder (h, w, C, M) to (C * M, 1, h, w): the M filters of a channel lie side by side."""
    return kernel.permute(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])


def _convolution(call: Call, kernel: Tensor, bias: Tensor | None, groups: int) -> nn.Conv2d:
    """Return a convolution with the layer's stride and padding. kernel: (out, in/groups, h, w)."""
    stride, dilation = tuple(call.layer.strides), tuple(call.layer.dilation_rate)
    left, right, top, bottom = call.edges(tuple(kernel.shape[2:]), stride)
    even = (left, top) == (right, bottom)
    geometry = {"stride": stride, "dilation": dilation, "padding": (top, left) if even else 0}
    conv = _with_weights(kernel, bias, groups=groups, **geometry)
    return conv if even else PaddedConv2d(conv, (left, right, top, bottom))


def _with_weights(kernel: Tensor, bias: Tensor | None, **geometry: Any) -> nn.Conv2d:
    outputs, inputs, height, width = kernel.shape
    channels = inputs * geometry.get("groups", 1)
    # on meta: torch would draw random weights from its global generator
    conv = nn.Conv2d(channels, outputs, (height, width), device="meta", **geometry)
    return _filled(conv, kernel.contiguous(), bias)


def _filled(layer: Layer, weight: Tensor | None, bias: Tensor | None) -> Layer:
    """Set a layer's weight and bias; None: the layer has no such parameter."""
    for name, value in (("weight", weight), ("bias", bias)):
        layer.register_parameter(name, None if value is None else nn.Parameter(value))
    return layer


def _dense(call: Call) -> nn.Module:
    """Return a linear layer, or on a map a 1x1 convolution."""
    kernel, bias = call.weights["kernel"].T, call.weights.get("bias")
    if len(call.shape) == 4:
        return _with_weights(kernel[:, :, None, None], bias)
    outputs, inputs = kernel.shape
    return _filled(nn.Linear(inputs, outputs, device="meta"), kernel.contiguous(), bias)


def _batch_norm(call: Call) -> nn.Module:
    """Return a batch norm, without weight or bias if the Keras layer has none."""
    weights, kind = call.weights, nn.BatchNorm2d if len(call.shape) == 4 else nn.BatchNorm1d
    norm = kind(call.shape[-1], call.layer.epsilon, 1 - call.layer.momentum)
    norm.running_mean, norm.running_var = weights["moving_mean"], weights["moving_variance"]
    return _filled(norm, weights.get("gamma"), weights.get("beta"))


def _layer_norm(call: Call) -> nn.Module:
    norm = LayerNorm2d(call.shape[-1], eps=call.layer.epsilon)
    return _filled(norm, call.weights["gamma"], call.weights["beta"])


def _standardisation(call: Call) -> nn.Module:
    config, weights = call.layer.get_config(), call.weights
    if config["mean"] is not None:
        return Standardisation(config["mean"], config["variance"])
    return Standardisation(weights["mean"].numpy(), weights["variance"].numpy())


def _channel_scale(call: Call) -> nn.Module:
    (gamma,) = call.weights.values()
    return ChannelScale(gamma)


def _relu(call: Call) -> nn.Module:
    layer = call.layer
    plain = not (layer.negative_slope or layer.threshold)
    if not plain or layer.max_value not in (None, 6):
        raise Mismatch(f"Only plain ReLU and ReLU6 can be converted; {layer.name!r} is neither.")
    return nn.ReLU6() if layer.max_value else nn.ReLU()


def _pool(call: Call) -> nn.Module:
    """Return a pooling layer. Only a maximum can be padded more right and below: a last, cut
    window has the same maximum."""
    kernel, stride = tuple(call.layer.pool_size), tuple(call.layer.strides)
    left, right, top, bottom = call.edges(kernel, stride)
    maximum = type(call.layer).__name__ == "MaxPooling2D"
    if (left, top) != (right, bottom):
        if maximum and not (left or top):
            return nn.MaxPool2d(kernel, stride, ceil_mode=True)
        raise Mismatch(f"The padding of {call.layer.name!r} can't be converted: use another size.")
    if maximum:
        return nn.MaxPool2d(kernel, stride, (top, left))
    return nn.AvgPool2d(kernel, stride, (top, left), count_include_pad=False)


def _global_pool(call: Call, pool: nn.Module) -> nn.Module:
    return pool if call.layer.keepdims else nn.Sequential(pool, nn.Flatten())


def flattened(x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, H * W * C), in channels-last order
    return x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x.flatten(1)


def _reshape(call: Call) -> nn.Module:
    """Reshape (N, C) to a map of one pixel, the only kind in use."""
    target = tuple(call.layer.target_shape)
    if len(call.shape) != 2 or target[:2] != (1, 1):
        raise Mismatch(
            f"A reshaping must make a map of one pixel to be converted; {call.layer.name!r} makes "
            f"{target} of {call.shape[1:]}."
        )
    return nn.Unflatten(1, (target[2], 1, 1))


def _nested(call: Call) -> nn.Module:
    """Convert a model inside the model."""
    return convert(getattr(call.layer, "_functional", call.layer), pool=False)


def _identity(call: Call) -> nn.Module:
    return nn.Identity()


_RANDOM = ("Brightness", "Contrast", "Flip", "Rotation", "Translation", "Zoom")
_FORMS: dict[str, Callable[[Call], nn.Module | Function]] = {
    "Activation": lambda call: (
        nn.Identity() if call.layer.activation.__name__ == "linear" else _activation(call.layer)
    ),
    "Add": lambda call: add,  # the layer, and the operator +
    "AveragePooling2D": _pool,
    "BatchNormalization": _batch_norm,
    "Concatenate": lambda call: concatenate,
    "Conv2D": _conv,
    "Cropping2D": lambda call: Cropping(_edges(call.layer.cropping)),
    "CustomScaleLayer": lambda call: ScaledSum(call.layer.scale),
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _identity,  # backbones run in inference mode
    "ELU": lambda call: nn.ELU(call.layer.alpha),
    "Flatten": lambda call: flattened,
    "Functional": _nested,
    "GaussianNoise": _identity,
    "GlobalAveragePooling2D": lambda call: _global_pool(call, nn.AdaptiveAvgPool2d(1)),
    "GlobalMaxPooling2D": lambda call: _global_pool(call, nn.AdaptiveMaxPool2d(1)),
    "LayerNormalization": _layer_norm,
    "LayerScale": _channel_scale,
    "LeakyReLU": lambda call: nn.LeakyReLU(call.layer.negative_slope),
    "MaxPooling2D": _pool,
    "Multiply": lambda call: multiply,
    "Normalization": _standardisation,
    **{f"Random{change}": _identity for change in _RANDOM},  # training only
    "ReLU": _relu,
    "Rescaling": lambda call: Rescaling(call.layer.scale, call.layer.offset),
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "Sequential": _nested,
    "SpatialDropout2D": _identity,
    "StochasticDepth": _identity,
    "ZeroPadding2D": lambda call: nn.ZeroPad2d(_edges(call.layer.padding)),
}
