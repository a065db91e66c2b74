"""From a PyTorch backbone to the ONNX graph that a CPU runs several times faster."""

import copy
import io
import warnings
from typing import Any

import onnx
import torch
from timm.layers import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn
from torch.nn.functional import pad

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.data.preprocess import Preprocess

OPSET = 17
_INSIDE = "network."  # what the exporter puts before the names of the module's own weights


class FromPixels(nn.Module):
    """The network with its normalisation as the first layer: uint8 NHWC pixels in."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        std = torch.tensor(preprocess.std)
        scale, shift = 1 / (255 * std), -torch.tensor(preprocess.mean) / std
        self.scale = nn.Buffer(scale[:, None, None], persistent=False)
        self.shift = nn.Buffer(shift[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:  # (N, H, W, 3) uint8 -> (N, D)
        x = pixels.permute(0, 3, 1, 2).to(self.scale.dtype)
        return self.network(x * self.scale + self.shift)


def freeze(backbone: Backbone) -> Frozen:
    """The backbone as a graph (opset 17, any batch size) beside its weights.

    Takes 1 to 10 s. The module is copied, never changed.
    """
    module = copy.deepcopy(backbone.module).cpu().float().eval()
    size = backbone.card.preprocess.size
    network = FromPixels(_with_static_padding(module, size), backbone.card.preprocess).eval()
    weights = backbone.weights()
    model = _padded_in_place(_split(_exported(network, size), set(weights)), network.network)
    inputs = tuple(t.name for t in model.graph.initializer if t.name in weights)
    return Frozen(backbone.card, model.SerializeToString(), weights, inputs)


class _StaticSame(nn.Conv2d):
    """TensorFlow's "SAME" convolution for one input size: its padding is a constant."""

    def __init__(self, conv: nn.Conv2d, height: int, width: int) -> None:
        super().__init__(1, 1, 1)
        self.__dict__.update(conv.__dict__)
        top, left = (
            get_same_padding(length, conv.kernel_size[i], conv.stride[i], conv.dilation[i])
            for i, length in enumerate((height, width))
        )
        self.edges = (left // 2, left - left // 2, top // 2, top - top // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, self.edges)
        return nn.functional.conv2d(
            x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def _with_static_padding(module: nn.Module, size: int) -> nn.Module:
    """timm computes "SAME" padding from the input's shape at run time, which costs a quarter of
    the speed in ONNX Runtime; the card fixes the size, so the padding can be fixed too."""
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Any:
        return lambda _, args: sizes.__setitem__(name, tuple(args[0].shape[-2:]))

    same = {name: m for name, m in module.named_modules() if isinstance(m, Conv2dSame)}
    hooks = [conv.register_forward_pre_hook(note(name)) for name, conv in same.items()]
    with torch.inference_mode():
        module(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    for name, (height, width) in sizes.items():
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, _StaticSame(same[name], height, width))
    return module


def _exported(network: nn.Module, size: int) -> Any:
    """The ONNX model as the TorchScript exporter writes it, nothing folded, so weights keep names.

    (PRESERVE, since EVAL melts batch norms into convolutions; ONNX Runtime does that on loading.)
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecation and tracing notes
        torch.onnx.export(
            network,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]  # a buffer is taken when dynamo is False
            dynamo=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes={"pixels": {0: "n"}, "features": {0: "n"}},
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return onnx.load_from_string(buffer.getvalue())


def _split(model: Any, names: set[str]) -> Any:
    """Take the weights out of the graph: initializers become references by their own names."""
    renamed = {f"{_INSIDE}{name}": name for name in names}
    for node in model.graph.node:
        node.input[:] = [renamed.get(i, i) for i in node.input]
        node.output[:] = [renamed.get(o, o) for o in node.output]  # twins are made by Identity
    for tensor in model.graph.initializer:
        if tensor.name in renamed:
            tensor.name = renamed[tensor.name]
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.safetensors")
    return model


def _padded_in_place(model: Any, module: nn.Module) -> Any:
    """Make each Pad before a "SAME" convolution the convolution's own, which PyTorch can't say.

    ONNX Runtime would do so itself if the exporter wrote the padding as a constant; as it is, each
    Pad makes it leave its blocked memory layout and come back, at a third of the speed in all.
    """
    edges = {
        f"{name}.weight": conv.edges
        for name, conv in module.named_modules()
        if isinstance(conv, _StaticSame)
    }
    pads = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in edges and node.input[0] in pads:
            left, right, top, bottom = edges[node.input[1]]
            pad_node = pads[node.input[0]]
            node.input[0] = pad_node.input[0]
            (own,) = (a for a in node.attribute if a.name == "pads")
            own.ints[:] = [top, left, bottom, right]
            model.graph.node.remove(pad_node)
    return model
