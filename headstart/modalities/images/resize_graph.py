"""Pillow's resize in an ONNX graph, equal to the byte, for any height and width.

Pillow resizes along one axis and then the other (`_down_first`), by weights that it rounds to 22
bits, and rounds each result to a byte (its `Resample.c`). Here they are two products of float64
matrices, which hold such sums exactly, with weights that the graph computes from the lengths as
Pillow does.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL

from headstart.base.onnx_nodes import Nodes, Value, whole

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}  # pixels
ONE = float(2**22)  # the weight 1 in Pillow's integers
# Since 13.0 Pillow begins with the columns if they lose more than twice as many pixels as the rows.
DOWN_FIRST_SINCE = 13
D = np.float64  # the type of a constant


@dataclass(frozen=True)
class ResizedAxis:
    """One axis of a resize; values of the graph, (1,) float64 each.

    length: of the picture. begin, end: of what is resized. out: the length of the whole result.
    first: the place in it of the first value that is computed. count: how many are.
    """

    length: Value
    begin: Value
    end: Value
    out: Value
    first: Value
    count: int

    def places(self, nodes: Nodes) -> str:
        """Return (count,) the places in the result."""
        return nodes("Add", np.arange(self.count, dtype=D), self.first)

    def inside(self, nodes: Nodes) -> str:
        """Return (count,) whether each place is in the result."""
        i = self.places(nodes)
        low, high = nodes("GreaterOrEqual", i, D(0)), nodes("Less", i, self.out)
        return nodes("And", low, high)

    def scale(self, nodes: Nodes) -> str:
        return nodes("Div", nodes("Sub", self.end, self.begin), self.out)


def whole_axis(nodes: Nodes, length: str, out: Value, first: Value, count: int) -> ResizedAxis:
    """Return the axis of a resize of whole pictures. length, out, first: int64 (1,)."""
    n, o, f = (nodes.cast(value, D) for value in (length, out, first))
    return ResizedAxis(n, np.zeros(1), n, o, f, count)


def resized(nodes: Nodes, pixels: str, how: str, height: ResizedAxis, width: ResizedAxis) -> str:
    """Return pixels (N, H, W, 3) uint8 resized, (N, height.count, width.count, 3) uint8.

    how: nearest, bilinear, bicubic or lanczos. Places outside the result are 0.
    """
    if how == "nearest":
        rows = nodes("Gather", pixels, _nearest(nodes, height), axis=1)
        return nodes("Gather", rows, _nearest(nodes, width), axis=2)
    across, down = (
        nodes("Transpose", _weights(nodes, axis, how), perm=[1, 0]) for axis in (width, height)
    )
    count = nodes.sides(pixels)[0]
    some = nodes("Mul", count, _down_first(nodes, height, width))
    first = nodes("Slice", pixels, whole(0), some, whole(0))
    rest = nodes("Slice", pixels, some, count, whole(0))
    one = _passes(nodes, first, (0, 3, 2, 1), (down, across))  # (n, 3, height, width)
    other = _passes(nodes, rest, (0, 3, 1, 2), (across, down))  # (n, 3, width, height)
    other = nodes("Transpose", other, perm=[0, 1, 3, 2])
    return nodes("Transpose", nodes("Concat", one, other, axis=0), perm=[0, 2, 3, 1])


def _passes(nodes: Nodes, pixels: str, perm: tuple[int, ...], weights: tuple[str, str]) -> str:
    """Return pictures (n, H, W, 3) after a product along `perm`'s last axis, then the other."""
    planes = nodes.cast(nodes("Transpose", pixels, perm=perm), D)
    planes = _byte(nodes, _product(nodes, planes, weights[0]))
    planes = nodes("Transpose", planes, perm=[0, 1, 3, 2])
    return nodes.cast(_byte(nodes, _product(nodes, planes, weights[1])), np.uint8)


def _product(nodes: Nodes, planes: str, weights: str) -> str:
    """Return planes (n, 3, A, B) times (B, S), as a product of two matrices.

    So written, ONNX Runtime takes it for no pictures, n = 0, too.
    """
    shape = nodes("Concat", whole(-1), nodes("Shape", planes, start=3), axis=0)
    sums = nodes("MatMul", nodes("Reshape", planes, shape), weights)
    own = nodes("Shape", planes, start=0, end=3), nodes("Shape", weights, start=1)
    return nodes("Reshape", sums, nodes("Concat", *own, axis=0), allowzero=1)


def _down_first(nodes: Nodes, height: ResizedAxis, width: ResizedAxis) -> Value:
    """Return (1,) int64 1 if the columns are resized before the rows, else 0.

    The order matters where values between are rounded. All pictures have one size, so that one of
    the two orders is given no pictures: an `If` would need a graph of its own.
    """
    if int(PIL.__version__.partition(".")[0]) < DOWN_FIRST_SINCE:
        return whole(0)
    fewer = nodes("Sub", height.length, height.out)
    double = nodes("Mul", nodes("Sub", width.length, width.out), D(2))
    taller = nodes("And", nodes("Greater", fewer, D(0)), nodes("Greater", fewer, double))
    return nodes.cast(taller, np.int64)


def _byte(nodes: Nodes, sums: str) -> str:
    """Return sums of bytes times integer weights as levels of 0 to 255."""
    levels = nodes("Floor", nodes("Div", nodes("Add", sums, D(ONE / 2)), D(ONE)))
    return nodes("Clip", levels, D(0), D(255))


def _weights(nodes: Nodes, axis: ResizedAxis, how: str) -> str:
    """Return the integer weights (count, length), float64; `precompute_coeffs` of Pillow."""
    scale = axis.scale(nodes)
    filterscale = nodes("Max", scale, np.ones(1))
    support = nodes("Mul", D(SUPPORT[how]), filterscale)
    middle = nodes("Add", axis.places(nodes), D(0.5))
    center = nodes("Add", axis.begin, nodes("Mul", middle, scale))
    low = nodes("Add", nodes("Sub", center, support), D(0.5))
    high = nodes("Add", nodes("Add", center, support), D(0.5))
    low = _column(nodes, nodes("Floor", nodes("Max", low, D(0))))
    high = _column(nodes, nodes("Min", nodes("Floor", high), axis.length))
    j = _row(nodes, nodes("Range", D(0), nodes("Squeeze", axis.length), D(1)))
    away = nodes("Add", nodes("Sub", j, _column(nodes, center)), D(0.5))
    k = _FILTERS[how](nodes, nodes("Mul", away, nodes("Div", D(1), filterscale)))
    taken = nodes("And", nodes("GreaterOrEqual", j, low), nodes("Less", j, high))
    taken = nodes("And", taken, _column(nodes, axis.inside(nodes)))
    k = nodes("Where", taken, k, D(0))
    total = nodes("ReduceSum", k, whole(1), keepdims=1)
    k = nodes("Div", k, nodes("Where", nodes("Equal", total, D(0)), D(1), total))
    return _rounded(nodes, nodes("Mul", k, D(ONE)))


def _rounded(nodes: Nodes, k: str) -> str:
    """Return values rounded to integers, halves away from 0."""
    up = nodes("Floor", nodes("Add", k, D(0.5)))
    down = nodes("Ceil", nodes("Sub", k, D(0.5)))
    return nodes("Where", nodes("Less", k, D(0)), down, up)


def _triangle(nodes: Nodes, x: str) -> str:
    return nodes("Max", nodes("Sub", D(1), nodes("Abs", x)), D(0))


def _cubic(nodes: Nodes, x: str) -> str:
    """Return Keys' cubic with a = -0.5, in the order of Pillow's operations."""
    a, x = -0.5, nodes("Abs", x)
    near = nodes("Sub", nodes("Mul", D(a + 2), x), D(a + 3))
    near = nodes("Add", nodes("Mul", nodes("Mul", near, x), x), D(1))
    far = nodes("Add", nodes("Mul", nodes("Sub", x, D(5)), x), D(8))
    far = nodes("Mul", nodes("Sub", nodes("Mul", far, x), D(4)), D(a))
    far = nodes("Where", nodes("Less", x, D(2)), far, D(0))
    return nodes("Where", nodes("Less", x, D(1)), near, far)


def _lanczos(nodes: Nodes, x: str) -> str:
    window = nodes("Mul", _sinc(nodes, x), _sinc(nodes, nodes("Div", x, D(3))))
    inside = nodes("And", nodes("LessOrEqual", D(-3), x), nodes("Less", x, D(3)))
    return nodes("Where", inside, window, D(0))


def _sinc(nodes: Nodes, x: str) -> str:
    zero, angle = nodes("Equal", x, D(0)), nodes("Mul", x, D(np.pi))
    divided = nodes("Div", nodes("Sin", angle), nodes("Where", zero, D(1), angle))
    return nodes("Where", zero, D(1), divided)


_FILTERS: dict[str, Any] = {"bilinear": _triangle, "bicubic": _cubic, "lanczos": _lanczos}


def _nearest(nodes: Nodes, axis: ResizedAxis) -> str:
    """Return (count,) the pixel that each place takes. Pillow adds the scale up, step by step."""
    scale = axis.scale(nodes)
    steps = nodes("Expand", scale, nodes("Sub", nodes.cast(axis.out, np.int64), whole(1)))
    first = nodes("Add", axis.begin, nodes("Mul", scale, D(0.5)))
    every = nodes("CumSum", nodes("Concat", first, steps, axis=0), np.int64(0))
    last = nodes("Sub", axis.out, D(1))
    place = nodes("Max", nodes("Min", axis.places(nodes), last), D(0))
    own = nodes("Gather", every, nodes.cast(place, np.int64), axis=0)
    return nodes.cast(nodes("Min", own, nodes("Sub", axis.length, D(1))), np.int64)


def _column(nodes: Nodes, values: str) -> str:
    return nodes("Unsqueeze", values, whole(1))


def _row(nodes: Nodes, values: str) -> str:
    return nodes("Unsqueeze", values, whole(0))
