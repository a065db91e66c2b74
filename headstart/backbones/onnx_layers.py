"""The shapes that layers and reductions give, by the rules of opset 17, and their work in
multiply-adds."""

import math
from collections.abc import Sequence

import numpy as np

from headstart.backbones.onnx_call import INT64, Known, NodeCall, Shape, placed
from headstart.backbones.onnx_shapes import halves, same


def reduced(c: NodeCall) -> Known:
    return _reduce(c, c.of("axes", ()))


def summed(c: NodeCall) -> Known:
    axes = c.numbers(1) if c.has(1) else ()
    return same(c) if not axes and c.of("noop_with_empty_axes", 0) else _reduce(c, axes)


def _reduce(c: NodeCall, axes: Sequence[int]) -> Known:
    x = c.at(0)
    gone = {placed(axis, len(x.shape)) for axis in axes} or set(range(len(x.shape)))
    if any(x.shape[axis] == 0 for axis in gone):
        raise ValueError(x.shape)
    kept = c.of("keepdims", 1)
    shape = [1 if i in gone else n for i, n in enumerate(x.shape) if kept or i not in gone]
    return Known(tuple(shape), x.dtype)


def place_of_most(c: NodeCall) -> Known:
    axis = c.axis(len(c.at(0).shape))
    return Known(_reduce(c, (axis,)).shape, INT64)


def top(c: NodeCall) -> list[Known]:
    x, (k,) = c.at(0), c.numbers(1)
    axis = c.axis(len(x.shape), -1)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(k)
    shape = (*x.shape[:axis], int(k), *x.shape[axis + 1 :])
    return [Known(shape, x.dtype), Known(shape, INT64)]


def non_zero(c: NodeCall) -> Known:
    """Return the most places that there can be."""
    return Known((max(1, len(c.at(0).shape)), c.at(0).size), INT64)


def suppressed(c: NodeCall) -> Known:
    """Return the most boxes that can be left."""
    (n, boxes, four), (m, kinds, scored) = c.at(0).shape, c.at(1).shape
    if four != 4 or n != m or boxes != scored or any(c.at(i).size != 1 for i in range(2, 5)):
        raise ValueError(c.at(0).shape)
    return Known((n * kinds * max(0, min(boxes, *c.numbers(2))), 3), INT64)


def _windows(c: NodeCall, kernel: Shape, *, ceil: bool = False) -> Shape:
    """Return the lengths that a window sliding over the input gives."""
    sizes = c.at(0).shape[2:]
    once = (1,) * len(sizes)
    steps, apart = c.of("strides", once), c.of("dilations", once)
    pads = c.of("pads", once + once) if "pads" in c.node.attributes else (0,) * (2 * len(sizes))
    rows = zip(sizes, kernel, steps, apart, halves(pads), strict=True)
    found = []
    for n, k, step, gap, (before, after) in rows:
        room = n + int(before) + int(after) - gap * (k - 1) - 1
        count = (-(-room // step) if ceil else room // step) + 1
        if ceil and (count - 1) * step >= n + before:
            count -= 1
        if room < 0 or count < 1:
            raise ValueError(sizes)
        found.append(count)
    return tuple(found)


def convolved(c: NodeCall) -> Known:
    x, w, group = c.at(0), c.at(1), c.of("group", 1)
    rank, kernel = len(x.shape), w.shape[2:]
    fits = 3 <= rank <= 5 and len(w.shape) == rank and x.shape[1] == w.shape[1] * group
    if not fits or w.shape[0] % group or c.of("kernel_shape", kernel) != kernel or 0 in w.shape:
        raise ValueError(w.shape)
    if c.has(2) and c.at(2).shape != w.shape[:1]:
        raise ValueError(c.at(2).shape)
    return Known((x.shape[0], w.shape[0], *_windows(c, kernel)), x.dtype)


def convolved_back(c: NodeCall) -> Known:
    x, w, group = c.at(0), c.at(1), c.of("group", 1)
    rank, kernel, sizes = len(x.shape), w.shape[2:], x.shape[2:]
    if not 3 <= rank <= 5 or len(w.shape) != rank or x.shape[1] != w.shape[0] or 0 in w.shape:
        raise ValueError(w.shape)
    if x.shape[1] % group or c.of("kernel_shape", kernel) != kernel:
        raise ValueError(w.shape)
    once, none = (1,) * len(sizes), (0,) * len(sizes)
    steps, apart, more = (
        c.of("strides", once),
        c.of("dilations", once),
        c.of("output_padding", none),
    )
    pads = c.of("pads", none + none)
    rows = zip(sizes, kernel, steps, apart, more, halves(pads), strict=True)
    out = [s * (n - 1) + m + d * (k - 1) + 1 - int(a + b) for n, k, s, d, m, (a, b) in rows]
    if min(out) < 1:
        raise ValueError(out)
    return Known((x.shape[0], w.shape[1] * group, *out), x.dtype)


def pooled(c: NodeCall) -> Known:
    x = c.at(0)
    kernel: Shape = c.of("kernel_shape", ())
    pads = c.of("pads", (0,))
    if not 3 <= len(x.shape) <= 5 or any(p >= k for p, k in zip(pads, kernel * 2, strict=False)):
        raise ValueError(x.shape)
    return Known((*x.shape[:2], *_windows(c, kernel, ceil=bool(c.of("ceil_mode", 0)))), x.dtype)


def globally_pooled(c: NodeCall) -> Known:
    x = c.at(0)
    if len(x.shape) < 3 or 0 in x.shape:
        raise ValueError(x.shape)
    return Known((*x.shape[:2], *(1,) * (len(x.shape) - 2)), x.dtype)


def per_channel(c: NodeCall) -> Known:
    x = c.at(0)
    if any(c.at(i).shape != x.shape[1:2] for i in range(1, len(c.inputs))) or len(x.shape) < 2:
        raise ValueError(x.shape)
    return same(c)


def layer_norm(c: NodeCall) -> Known:
    x = c.at(0)
    over = x.shape[c.axis(len(x.shape), -1) :]
    if any(c.at(i).shape != over for i in range(1, len(c.inputs))) or 0 in over:
        raise ValueError(x.shape)
    return same(c)


def multiplied(c: NodeCall) -> Known:
    a, b = c.at(0).shape, c.at(1).shape
    if not a or not b or a[-1] != (b[-2] if len(b) > 1 else b[0]):
        raise ValueError((a, b))
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return Known((*np.broadcast_shapes(a[:-2], b[:-2]), *rows, *columns), c.at(0).dtype)


def gemm(c: NodeCall) -> Known:
    (a, b), flags = (c.at(0).shape, c.at(1).shape), (c.of("transA", 0), c.of("transB", 0))
    (m, k), (j, n) = (s[::-1] if turned else s for s, turned in zip((a, b), flags, strict=True))
    if k != j or (c.has(2) and np.broadcast_shapes(c.at(2).shape, (m, n)) != (m, n)):
        raise ValueError((a, b))
    return Known((m, n), c.at(0).dtype)


def _sizes_of_letters(c: NodeCall) -> tuple[dict[str, int], str]:
    left, arrow, right = str(c.of("equation", "")).replace(" ", "").partition("->")
    terms, sizes = left.split(","), dict[str, int]()
    if not arrow or not (right + left.replace(",", "")).isalpha() or len(set(right)) < len(right):
        raise ValueError(left)
    for term, known in zip(terms, (c.at(i) for i in range(len(c.inputs))), strict=True):
        for letter, n in zip(term, known.shape, strict=True):
            if sizes.setdefault(letter, n) != n:
                raise ValueError(term)
    return sizes, right


def einsum(c: NodeCall) -> Known:
    sizes, result = _sizes_of_letters(c)
    return Known(tuple(sizes[letter] for letter in result), c.at(0).dtype)


def recurrent(gates: int, c: NodeCall) -> list[Known]:
    """Return the states of all steps, the last one, and the last cells of an LSTM."""
    (steps, n, width), w, r = c.at(0).shape, c.at(1).shape, c.at(2).shape
    ways, hidden = 2 if c.of("direction", "forward") == "bidirectional" else 1, r[2]
    sizes = (ways, gates * hidden, width), (ways, gates * hidden, hidden)
    if (w, r) != sizes or c.of("hidden_size", 0) != hidden:
        raise ValueError(w)
    if c.has(3) and c.at(3).shape != (ways, 2 * gates * hidden):
        raise ValueError(c.at(3).shape)
    if any(c.has(i) and c.at(i).shape != (ways, n, hidden) for i in (5, 6)):
        raise ValueError(n)
    last, kind = Known((ways, n, hidden), c.at(0).dtype), c.at(0).dtype
    return [Known((steps, ways, n, hidden), kind), last, last][: 3 if gates == 4 else 2]


def recurrent_work(c: NodeCall, made: Sequence[Known]) -> int:
    return c.at(0).shape[0] * c.at(0).shape[1] * (c.at(1).size + c.at(2).size)


# ------------------------------------------------------------ work, in multiply-adds
def conv_work(c: NodeCall, made: Sequence[Known]) -> int:
    return made[0].size * math.prod(c.at(1).shape[1:])


def back_work(c: NodeCall, made: Sequence[Known]) -> int:
    return c.at(0).size * math.prod(c.at(1).shape[1:])


def pool_work(c: NodeCall, made: Sequence[Known]) -> int:
    return 8 * made[0].size * math.prod(c.of("kernel_shape", ()))


def matmul_work(c: NodeCall, made: Sequence[Known]) -> int:
    return made[0].size * c.at(0).shape[-1]


def gemm_work(c: NodeCall, made: Sequence[Known]) -> int:
    return made[0].size * c.at(0).shape[0 if c.of("transA", 0) else 1]


def einsum_work(c: NodeCall, made: Sequence[Known]) -> int:
    return math.prod(_sizes_of_letters(c)[0].values())


def resize_work(c: NodeCall, made: Sequence[Known]) -> int:
    return made[0].size * 64


def suppression_work(c: NodeCall, made: Sequence[Known]) -> int:
    return made[0].shape[0] * c.at(0).shape[1]


def sort_work(c: NodeCall, made: Sequence[Known]) -> int:
    return c.at(0).size * 32
