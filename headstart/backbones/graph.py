"""Export a PyTorch backbone to an ONNX graph, which a CPU runs several times faster."""

import copy
import io
import warnings
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import onnx
import torch
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.entry import WholeNetwork, blank_for_network, tensors
from headstart.backbones.external_data import WEIGHTS
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Input
from headstart.backbones.padding import PaddedConv2d, same_edges
from headstart.backbones.timm_layers import same_convolutions
from headstart.base.values import fingerprint

OPSET = 17
_WITH_CUT: WeakKeyDictionary[nn.Module, Frozen] = WeakKeyDictionary()  # graphs without weights
_INSIDE = "network."  # the exporter's prefix for the names of the module's weights


def exported(backbone: Backbone, both: nn.Module | None = None) -> Frozen:
    """Return the backbone as `freeze` does, by a graph that was exported before if there is one.

    A graph holds no weights, so that of a backbone serves its fine-tuned copies too. (A graph with
    the outputs of `both` without those outputs is not used in its place: names inside differ, and
    so would the bundles of a run and of its repetition with all features in the store.)
    """
    graphs: MutableMapping[Any, Frozen] = _WITH_CUT if both is not None else backbone.exports
    key = _architecture(backbone) if both is None else both
    if key not in graphs:
        graphs[key] = replace(freeze(backbone, both), weights={})
    return replace(graphs[key], card=backbone.card, weights=backbone.weights())


def _architecture(backbone: Backbone) -> str:
    """Return a fingerprint of all but the values of the weights that a graph is made of."""
    state = backbone.module.state_dict().items()
    layout = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in state]
    return fingerprint(backbone.card.input.fingerprint(), repr(backbone.module), layout)


def freeze(backbone: Backbone, both: nn.Module | None = None) -> Frozen:
    """Export the backbone to a graph (opset 17, any batch size) with separate weights.

    both: the same network with further outputs (`cutting.Cut.both`), which the graph then returns
    too. Takes seconds. The module is copied, not changed.
    """
    names = getattr(both, "weight_names", {name: name for name in backbone.module.state_dict()})
    module = copy.deepcopy(both or backbone.module).cpu().float().eval()
    input = backbone.card.input
    module = _with_static_padding(module, blank_for_network(input, 1))
    network = WholeNetwork(module, input).eval()
    weights = backbone.weights()
    model = _split(_exported(network, input), names, weights)
    model = _padded_in_place(model, network.network)
    inputs = tuple(t.name for t in model.graph.initializer if t.name in weights)
    return Frozen(backbone.card, model.SerializeToString(), weights, inputs)


def named_columns(frozen: Frozen, width: int, columns: Mapping[str, tuple[int, int]]) -> Frozen:
    """Return the graph with parts of its features as further outputs, for other programs.

    The features (N, K * width) are read as (N, K, width); columns: from and to, by output's name;
    a single column loses its axis.
    """
    model = onnx.load_from_string(frozen.graph)
    graph, made = model.graph, onnx.helper.make_node

    def constant(name: str, values: Sequence[int]) -> str:
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)
        graph.initializer.append(tensor)
        return name

    shape = constant("columns_shape", (0, -1, width))
    graph.node.append(made("Reshape", ["features", shape], ["columns_rows"]))
    axis = constant("columns_axis", (2,))
    for name, (begin, end) in columns.items():
        ends = constant(f"{name}_begin", (begin,)), constant(f"{name}_end", (end,))
        one = end - begin == 1
        part = f"{name}_column" if one else name
        graph.node.append(made("Slice", ["columns_rows", *ends, axis], [part]))
        if one:
            graph.node.append(made("Squeeze", [part, axis], [name]))
        sides: list[str | int | None] = ["n", frozen.card.dim // width]
        sides += [] if one else [end - begin]
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sides)
        graph.output.append(value)
    return replace(frozen, graph=model.SerializeToString())


def _with_static_padding(module: nn.Module, blank: Any) -> nn.Module:
    """Replace timm's "SAME" padding, computed from the input shape at run time, by fixed padding.

    Dynamic padding costs a quarter of the speed in ONNX Runtime, and the card fixes the input size.
    blank: one example as the module takes it.
    """
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Any:
        return lambda _, args: sizes.__setitem__(name, tuple(args[0].shape[-2:]))

    kinds = same_convolutions()
    same = {name: m for name, m in module.named_modules() if isinstance(m, kinds)}
    if not same:
        return module
    hooks = [conv.register_forward_pre_hook(note(name)) for name, conv in same.items()]
    with torch.inference_mode():
        module(blank)
    for hook in hooks:
        hook.remove()
    for name, length in sizes.items():
        parent, _, child = name.rpartition(".")
        conv = same[name]
        edges = same_edges(length, conv.kernel_size, conv.stride, conv.dilation)
        setattr(module.get_submodule(parent), child, PaddedConv2d(conv, edges))
    return module


def _exported(network: nn.Module, input: Input[Any]) -> Any:
    """Export with the TorchScript exporter, unfolded, so that weights keep their names.

    (PRESERVE, because EVAL folds batch norms into convolutions; ONNX Runtime does that on loading.)
    """
    buffer, blank = io.BytesIO(), input.blank(2)
    outputs = _outputs_of(network, input)
    axes: dict[str, Mapping[int, str]] = {**dict.fromkeys(blank, {}), **input.dynamic_axes()}
    axes |= outputs
    with warnings.catch_warnings(), _plain_attention():
        warnings.simplefilter("ignore")  # the exporter's deprecation and tracing warnings
        torch.onnx.export(
            network,
            tensors(blank),
            buffer,  # type: ignore[arg-type]  # a buffer is accepted when dynamo is False
            dynamo=False,
            opset_version=OPSET,
            input_names=list(blank),
            output_names=list(outputs),
            dynamic_axes={name: {0: "n", **more} for name, more in axes.items()},
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return onnx.load_from_string(buffer.getvalue())


@torch.inference_mode()
def _outputs_of(network: nn.Module, input: Input[Any]) -> dict[str, Mapping[int, str]]:
    """Return the names of the outputs, and the axes of each, besides the first, that vary.

    They are features, activations at the cut, and the mask of activations of sequences.
    """
    made = network(*tensors(input.blank(1)))
    if not isinstance(made, tuple):
        return {"features": {}}
    if not input.dynamic_axes():
        return {"features": {}, "cut": {}}
    longest: Mapping[int, str] = {1: "cut_length"}
    outputs: dict[str, Mapping[int, str]] = {"features": {}, "cut": longest, "cut_mask": longest}
    return dict(list(outputs.items())[-len(made) :])  # a trunk alone has no features


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disable PyTorch's fused attention, which has no ONNX equivalent."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _split(model: Any, names: Mapping[str, str], weights: Collection[str]) -> Any:
    """Turn initializers into references to external weights, under the weights' own names.

    names: of the backbone's weights by those in the exported module. weights: their own names.
    """
    renamed = {f"{_INSIDE}{inside}": name for inside, name in names.items()}
    for node in model.graph.node:
        node.input[:] = [renamed.get(i, i) for i in node.input]
        node.output[:] = [renamed.get(o, o) for o in node.output]  # Identity copies shared weights
    for tensor in model.graph.initializer:
        if tensor.name in renamed:
            tensor.name = renamed[tensor.name]
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=WEIGHTS)
    return _without_copies(model, weights)


def _without_copies(model: Any, weights: Collection[str]) -> Any:
    """Give each weight an initializer of its own.

    The exporter lets weights with equal values share one, such as the ones of a new batch norm; in
    a copy of the network they may differ.
    """
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    kept, copies = list[Any](), dict[str, Any]()
    for node in model.graph.node:
        copied = node.op_type == "Identity" and {node.output[0], node.input[0]} <= {*weights}
        source = held.get(node.input[0], copies.get(node.input[0])) if copied else None
        if source is None:
            kept.append(node)
        else:
            copies[node.output[0]] = source
    for name in sorted(copies):  # the exporter's own order is not the same in every process
        model.graph.initializer.add().CopyFrom(copies[name])
        model.graph.initializer[-1].name = name
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _padded_in_place(model: Any, module: nn.Module) -> Any:
    """Merge the Pad before each "SAME" convolution into its pads, which PyTorch can't express.

    ONNX Runtime would do so if the exporter wrote the padding as a constant; each unmerged Pad
    forces a change of memory layout and back, a third of the speed in total.
    """
    edges = {
        f"{name}.weight": conv.edges
        for name, conv in module.named_modules()
        if isinstance(conv, PaddedConv2d)
    }
    pads = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in edges and node.input[0] in pads:
            left, right, top, bottom = edges[node.input[1]]
            node.input[0] = pads[node.input[0]].input[0]
            (own,) = (a for a in node.attribute if a.name == "pads")
            own.ints[:] = [top, left, bottom, right]
    return _without_dead_nodes(model)


def _without_dead_nodes(model: Any) -> Any:
    """Remove nodes with unused outputs: the exporter writes eight per Pad for its edges."""
    wanted, kept = {output.name for output in model.graph.output}, []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    return model
