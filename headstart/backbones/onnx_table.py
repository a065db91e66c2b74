"""The operators that a graph may have: their inputs, the range of their settings, their shapes.

Shapes are those of one example. An operator of ONNX that is not in this table is refused: control
flow, texts, random numbers, sequences, and all others that no network here needs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from headstart.backbones import onnx_layers as layers
from headstart.backbones import onnx_shapes as shapes
from headstart.backbones.onnx_call import BOOL, KEPT, Known, NodeCall
from headstart.backbones.onnx_folding import FOLDS
from headstart.backbones.onnx_wire import DTYPES, MOST_DIMENSIONS, Tensor

OPSET = 17
MOST_STEP = 4096  # of a stride, a dilation, a kernel's side or a padding
Fits = Callable[[Any], bool]
Rule = Callable[[NodeCall], Known | Sequence[Known]]


@dataclass(frozen=True, eq=False)
class Op:
    """An operator. inputs: how many it has. work: multiply-adds; by default one per element."""

    rule: Rule
    inputs: tuple[int, int] = (1, 1)
    attributes: Mapping[str, Fits] = field(default_factory=dict)
    work: Callable[[NodeCall, Sequence[Known]], int] | None = None


# ------------------------------------------------------------ attributes
def whole(low: int, high: int) -> Fits:
    return lambda v: type(v) is int and low <= v <= high


def wholes(low: int, high: int) -> Fits:
    one = whole(low, high)
    return lambda v: isinstance(v, tuple) and len(v) <= 2 * MOST_DIMENSIONS and all(map(one, v))


def word(*known: str) -> Fits:
    return lambda v: v in known and type(v) is str


def number(v: Any) -> bool:
    return type(v) is float and math.isfinite(v)


FLAG, AXIS, STEPS = whole(0, 1), whole(-MOST_DIMENSIONS, MOST_DIMENSIONS), wholes(1, MOST_STEP)
AXES = wholes(-MOST_DIMENSIONS, MOST_DIMENSIONS)
WINDOW: dict[str, Fits] = {
    "kernel_shape": STEPS,
    "strides": STEPS,
    "dilations": STEPS,
    "pads": wholes(0, MOST_STEP),
    "auto_pad": word("NOTSET"),
}


# ------------------------------------------------------------ the table
def results(op: "Op", call: NodeCall) -> list[Known]:
    """Return what is known of the outputs of a node."""
    found = op.rule(call)
    made = [found] if isinstance(found, Known) else list(found)
    fold = FOLDS.get(call.node.op)
    small = len(made) == 1 and made[0].size <= KEPT and made[0].values is None
    if fold and small and all(k is None or k.values is not None for k in call.inputs):
        with np.errstate(all="ignore"):
            return [replace(made[0], values=fold(call, made[0]).astype(made[0].dtype))]
    return made


OPS: dict[str, Op] = {}


def _add(names: str, rule: Rule, inputs: tuple[int, int] = (1, 1), **more: Any) -> None:
    attributes = more.pop("attributes", {})
    for name in names.split():
        OPS[name] = Op(rule, inputs, attributes, **more)


_PLAIN = "Relu Sigmoid Tanh Softplus Softsign Erf Exp Log Sqrt Reciprocal Abs Neg Sign Floor Ceil"
_add(f"{_PLAIN} Round Sin Cos Tan Asin Acos Atan Sinh Cosh HardSwish Not Identity", shapes.same)
_add("LeakyRelu Elu Celu ThresholdedRelu", shapes.same, attributes={"alpha": number})
_add("Selu", shapes.same, attributes={"alpha": number, "gamma": number})
_add("HardSigmoid", shapes.same, attributes={"alpha": number, "beta": number})
_add("Clip", shapes.same, (1, 3))
_add("IsNaN IsInf", partial(shapes.typed, BOOL))
_add("Cast", shapes.cast, attributes={"to": lambda v: v in DTYPES})
_add("Softmax LogSoftmax", lambda c: shapes.along(c, -1), attributes={"axis": AXIS})
_add("LpNormalization", lambda c: shapes.along(c, -1), attributes={"axis": AXIS, "p": whole(1, 2)})
_add("Add Sub Mul Pow And Or Xor PRelu", shapes.broadcast, (2, 2))
_add("Div", shapes.divided, (2, 2))
_add("Mod", shapes.divided, (2, 2), attributes={"fmod": FLAG})
_add("Min Max Sum Mean", shapes.broadcast, (1, 64))
_add("Equal Less Greater LessOrEqual GreaterOrEqual", partial(shapes.typed, BOOL), (2, 2))
_add("Where", shapes.chosen, (3, 3))
_add("Constant", shapes.constant, (0, 0), attributes={"value": lambda v: isinstance(v, Tensor)})
_add("Shape", shapes.shape_of, attributes={"start": AXIS, "end": AXIS})
_add("Size", shapes.size_of)
_add("Reshape", shapes.reshaped, (2, 2), attributes={"allowzero": FLAG})
_add("Flatten", shapes.flattened, attributes={"axis": AXIS})
_add("Squeeze", shapes.squeezed, (1, 2))
_add("Unsqueeze", shapes.unsqueezed, (2, 2))
_add("Transpose", shapes.transposed, attributes={"perm": wholes(0, MOST_DIMENSIONS)})
_add("Concat", shapes.joined, (1, 1024), attributes={"axis": AXIS})
_add("Split", shapes.split, (1, 2), attributes={"axis": AXIS})
_add("Slice", shapes.sliced, (3, 5))
_add("Gather", shapes.gathered, (2, 2), attributes={"axis": AXIS})
_add("GatherElements", shapes.gathered_elements, (2, 2), attributes={"axis": AXIS})
_add(
    "GatherND", shapes.gathered_parts, (2, 2), attributes={"batch_dims": whole(0, MOST_DIMENSIONS)}
)
_REDUCTION = {"reduction": word("none", "add", "mul")}
_add("ScatterND", shapes.scattered_parts, (3, 3), attributes=_REDUCTION)
_add("ScatterElements", shapes.scattered_elements, (3, 3), attributes=_REDUCTION | {"axis": AXIS})
_add("Pad", shapes.padded, (2, 3), attributes={"mode": word("constant", "reflect", "edge")})
_add("Expand", shapes.expanded, (2, 2))
_add("Tile", shapes.tiled, (2, 2))
_add("ConstantOfShape", shapes.filled, attributes={"value": lambda v: isinstance(v, Tensor)})
_add("Range", shapes.counted, (3, 3))
_add(
    "Resize",
    shapes.resized,
    (3, 4),
    work=layers.resize_work,
    attributes={
        "mode": word("nearest", "linear", "cubic"),
        "coordinate_transformation_mode": word(
            "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"
        ),
        "nearest_mode": word("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        "cubic_coeff_a": number,
        "exclude_outside": FLAG,
        "extrapolation_value": number,
    },
)
_BLOCK = {"blocksize": whole(1, MOST_STEP)}
_add("DepthToSpace", shapes.depth_to_space, attributes=_BLOCK | {"mode": word("DCR", "CRD")})
_add("SpaceToDepth", shapes.space_to_depth, attributes=_BLOCK)
_add("OneHot", shapes.one_hot, (3, 3), attributes={"axis": AXIS})
_add("CumSum", shapes.cumulated, (2, 2), attributes={"exclusive": FLAG, "reverse": FLAG})
_add("Trilu", shapes.triangle, (1, 2), attributes={"upper": FLAG})
_KEEP = {"axes": AXES, "keepdims": FLAG}
_REDUCED = "ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum"
_add(f"{_REDUCED} ReduceLogSumExp ReduceSumSquare", layers.reduced, attributes=_KEEP)
_add(
    "ReduceSum", layers.summed, (1, 2), attributes={"keepdims": FLAG, "noop_with_empty_axes": FLAG}
)
_MOST = {"axis": AXIS, "keepdims": FLAG, "select_last_index": FLAG}
_add("ArgMax ArgMin", layers.place_of_most, attributes=_MOST)
_SORT = {"axis": AXIS, "largest": FLAG, "sorted": FLAG}
_add("TopK", layers.top, (2, 2), attributes=_SORT, work=layers.sort_work)
_add("NonZero", layers.non_zero)
_BOXES = {"center_point_box": FLAG}
_add(
    "NonMaxSuppression", layers.suppressed, (5, 5), attributes=_BOXES, work=layers.suppression_work
)
_CONV = WINDOW | {"group": whole(1, 2**16)}
_add("Conv", layers.convolved, (2, 3), attributes=_CONV, work=layers.conv_work)
_BACK = _CONV | {"output_padding": wholes(0, MOST_STEP)}
_add("ConvTranspose", layers.convolved_back, (2, 3), attributes=_BACK, work=layers.back_work)
_POOL = WINDOW | {"ceil_mode": FLAG}
_add(
    "MaxPool",
    layers.pooled,
    attributes=_POOL | {"storage_order": whole(0, 0)},
    work=layers.pool_work,
)
_add(
    "AveragePool",
    layers.pooled,
    attributes={k: v for k, v in _POOL.items() if k != "dilations"} | {"count_include_pad": FLAG},
    work=layers.pool_work,
)
_add("GlobalAveragePool GlobalMaxPool", layers.globally_pooled)
_NORM = {"epsilon": number, "momentum": number, "training_mode": whole(0, 0)}
_add("BatchNormalization", layers.per_channel, (5, 5), attributes=_NORM)
_add("InstanceNormalization", layers.per_channel, (3, 3), attributes={"epsilon": number})
_LAYER = {"axis": AXIS, "epsilon": number, "stash_type": whole(1, 1)}
_add("LayerNormalization", layers.layer_norm, (2, 3), attributes=_LAYER)
_LOCAL = {"alpha": number, "beta": number, "bias": number, "size": whole(1, 64)}
_add("LRN", shapes.same, attributes=_LOCAL)
_STEPS = {
    "hidden_size": whole(1, 2**16),
    "direction": word("forward", "reverse", "bidirectional"),
    "linear_before_reset": FLAG,
}
_COST_OF_STEPS = layers.recurrent_work
for _name, _gates, _inputs in (("RNN", 1, 6), ("GRU", 3, 6), ("LSTM", 4, 7)):
    _own = {k: v for k, v in _STEPS.items() if _name == "GRU" or k != "linear_before_reset"}
    _rule = partial(layers.recurrent, _gates)
    _add(_name, _rule, (3, _inputs), attributes=_own, work=_COST_OF_STEPS)
_add("MatMul", layers.multiplied, (2, 2), work=layers.matmul_work)
_GEMM = {"alpha": number, "beta": number, "transA": FLAG, "transB": FLAG}
_add("Gemm", layers.gemm, (2, 3), attributes=_GEMM, work=layers.gemm_work)
_add(
    "Einsum",
    layers.einsum,
    (1, 2),
    attributes={"equation": lambda v: type(v) is str},
    work=layers.einsum_work,
)
