"""The values of small tensors made of constants and shapes: sizes of others depend on them."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.onnx_call import Known, NodeCall
from headstart.backbones.onnx_shapes import taken_places

Fold = Callable[[NodeCall, Known], NDArray[Any]]


def _quotient(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    return np.asarray(np.sign(a) * (np.abs(a) // b))  # divisors are above 0


def _all_values(c: NodeCall) -> list[NDArray[Any]]:
    return [known.values for known in c.inputs if known is not None and known.values is not None]


def _each(function: Callable[..., Any]) -> Fold:
    """Return the values of an operator that is a function of NumPy, of two arguments at most."""

    def fold(c: NodeCall, made: Known) -> NDArray[Any]:
        first, *others = _all_values(c)
        return np.asarray(reduce(function, others, first) if others else function(first))

    return fold


def _reshaped(c: NodeCall, made: Known) -> NDArray[Any]:
    return _all_values(c)[0].reshape(made.shape)


def _taken(c: NodeCall, made: Known) -> NDArray[Any]:
    x, places = _all_values(c)
    return np.asarray(np.take(x, places, c.axis(x.ndim)))


def _reducing(function: Callable[..., Any]) -> Fold:
    def fold(c: NodeCall, made: Known) -> NDArray[Any]:
        x, axes = _all_values(c)[0], c.of("axes", ()) or (c.numbers(1) if c.has(1) else ())
        return np.asarray(function(x, axis=tuple(axes) or None)).reshape(made.shape)

    return fold


FOLDS: dict[str, Fold] = {
    "Add": _each(np.add),
    "Sub": _each(np.subtract),
    "Mul": _each(np.multiply),
    "Div": _each(_quotient),
    "Mod": _each(np.mod),
    "And": _each(np.logical_and),
    "Or": _each(np.logical_or),
    "Not": _each(np.logical_not),
    "Min": _each(np.minimum),
    "Max": _each(np.maximum),
    "Neg": _each(np.negative),
    "Abs": _each(np.abs),
    "Floor": _each(np.floor),
    "Ceil": _each(np.ceil),
    "Sqrt": _each(np.sqrt),
    "Pow": _each(np.power),
    "Exp": _each(np.exp),
    "Log": _each(np.log),
    "Round": _each(np.rint),
    "Reciprocal": _each(np.reciprocal),
    "Sign": _each(np.sign),
    "Equal": _each(np.equal),
    "Less": _each(np.less),
    "Greater": _each(np.greater),
    "LessOrEqual": _each(np.less_equal),
    "GreaterOrEqual": _each(np.greater_equal),
    "Where": lambda c, made: np.where(*_all_values(c)),
    "Identity": _reshaped,
    "Cast": _reshaped,  # every result gets the type of what is made
    "Reshape": _reshaped,
    "Flatten": _reshaped,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "Gather": _taken,
    "Concat": lambda c, made: np.concatenate(_all_values(c), c.of("axis", 0)),
    "Slice": lambda c, made: c.at(0).values[np.ix_(*taken_places(c))],  # type: ignore[index]
    "Transpose": lambda c, made: np.transpose(_all_values(c)[0], c.of("perm", None)),
    "Expand": lambda c, made: np.broadcast_to(_all_values(c)[0], made.shape),
    "Tile": lambda c, made: np.tile(_all_values(c)[0], c.numbers(1)),
    "ReduceProd": _reducing(np.prod),
    "ReduceSum": _reducing(np.sum),
    "ReduceMax": _reducing(np.max),
    "ReduceMin": _reducing(np.min),
}
