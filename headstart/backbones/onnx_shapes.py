"""The shapes that operators give which move, join or choose numbers, by the rules of opset 17."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.onnx_call import FLOAT, INT64, KEPT, Known, NodeCall, Shape, placed
from headstart.backbones.onnx_wire import DTYPES, Refused, Tensor


def same(c: NodeCall) -> Known:
    return Known(c.at(0).shape, c.at(0).dtype)


def along(c: NodeCall, default: int) -> Known:
    c.axis(len(c.at(0).shape), default)
    return same(c)


def typed(dtype: np.dtype[Any], c: NodeCall) -> Known:
    return Known(broadcast(c).shape, dtype)


def broadcast(c: NodeCall) -> Known:
    shapes = [each.shape for each in c.inputs if each is not None]
    return Known(np.broadcast_shapes(*shapes), c.at(0).dtype)


def divided(c: NodeCall) -> Known:
    if c.at(0).dtype.kind in "iu" and min(c.numbers(1), default=1) < 1:
        raise Refused("divides whole numbers by others than whole numbers above 0")
    return broadcast(c)


def chosen(c: NodeCall) -> Known:
    return Known(broadcast(c).shape, c.at(1).dtype)


def cast(c: NodeCall) -> Known:
    return Known(c.at(0).shape, DTYPES[c.of("to", 0)])


def constant(c: NodeCall) -> Known:
    value = c.node.attributes["value"]
    assert isinstance(value, Tensor)
    if value.values is None:
        raise Refused("holds a constant without its numbers")
    return Known.of(value.values)


def shape_of(c: NodeCall) -> Known:
    return Known.of(np.array(c.at(0).shape, INT64)[slice(c.of("start", 0), c.of("end", None))])


def size_of(c: NodeCall) -> Known:
    return Known.of(np.array(c.at(0).size, INT64))


def reshaped(c: NodeCall) -> Known:
    x, wanted = c.at(0), c.numbers(1)
    keep = not c.of("allowzero", 0)
    dims = [x.shape[i] if n == 0 and keep else n for i, n in enumerate(wanted)]
    if -1 in dims:
        free, rest = dims.index(-1), math.prod(n for n in dims if n != -1)
        dims[free] = x.size // rest if rest else 0
    if min(dims, default=1) < 0 or math.prod(dims) != x.size:
        raise ValueError(dims)
    return Known(tuple(dims), x.dtype)


def flattened(c: NodeCall) -> Known:
    x, axis = c.at(0), c.of("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    return Known((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), x.dtype)


def squeezed(c: NodeCall) -> Known:
    x = c.at(0)
    given = c.numbers(1) if c.has(1) else [i for i, n in enumerate(x.shape) if n == 1]
    gone = {placed(axis, len(x.shape)) for axis in given}
    if any(x.shape[axis] != 1 for axis in gone):
        raise ValueError(gone)
    return Known(tuple(n for i, n in enumerate(x.shape) if i not in gone), x.dtype)


def unsqueezed(c: NodeCall) -> Known:
    x, given = c.at(0), c.numbers(1)
    rank = len(x.shape) + len(given)
    new, rest = {placed(axis, rank) for axis in given}, iter(x.shape)
    if len(new) < len(given):
        raise ValueError(given)
    return Known(tuple(1 if i in new else next(rest) for i in range(rank)), x.dtype)


def transposed(c: NodeCall) -> Known:
    x = c.at(0)
    order = c.of("perm", tuple(reversed(range(len(x.shape)))))
    if sorted(order) != list(range(len(x.shape))):
        raise ValueError(order)
    return Known(tuple(x.shape[i] for i in order), x.dtype)


def joined(c: NodeCall) -> Known:
    parts = [c.at(i) for i in range(len(c.inputs))]
    shape = list(parts[0].shape)
    axis = c.axis(len(shape))
    for part in parts[1:]:
        others = [n for i, n in enumerate(part.shape) if i != axis]
        if len(part.shape) != len(shape) or others != [*shape[:axis], *shape[axis + 1 :]]:
            raise ValueError(part.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return Known(tuple(shape), parts[0].dtype)


def split(c: NodeCall) -> list[Known]:
    x, count = c.at(0), len(c.node.outputs)
    axis = c.axis(len(x.shape))
    sizes = c.numbers(1) if c.has(1) else [x.shape[axis] // count] * count
    if len(sizes) != count or sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ValueError(sizes)
    return [Known((*x.shape[:axis], n, *x.shape[axis + 1 :]), x.dtype) for n in sizes]


def taken_places(c: NodeCall) -> list[range]:
    """Return the places that a Slice takes along each axis."""
    shape, starts, ends = c.at(0).shape, c.numbers(1), c.numbers(2)
    axes = c.numbers(3) if c.has(3) else list(range(len(starts)))
    steps = c.numbers(4) if c.has(4) else [1] * len(starts)
    taken = [range(n) for n in shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = placed(axis, len(shape))
        taken[place] = _taken(shape[place], start, end, step)
    return taken


def _taken(n: int, start: int, end: int, step: int) -> range:
    """Return the places of a slice of n, whose ends are cut as ONNX says (not as Python does)."""
    start, end = (at + n if at < 0 else at for at in (start, end))
    if step > 0:
        return range(min(max(start, 0), n), min(max(end, 0), n), step)
    return range(min(max(start, 0), n - 1), min(max(end, -1), n - 1), step)


def sliced(c: NodeCall) -> Known:
    return Known(tuple(map(len, taken_places(c))), c.at(0).dtype)


def gathered(c: NodeCall) -> Known:
    x, places = c.at(0), c.at(1)
    axis = c.axis(len(x.shape))
    return Known((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]), x.dtype)


def gathered_elements(c: NodeCall) -> Known:
    x, places = c.at(0), c.at(1)
    c.axis(len(x.shape))
    if len(places.shape) != len(x.shape):
        raise ValueError(places.shape)
    return Known(places.shape, x.dtype)


def gathered_parts(c: NodeCall) -> Known:
    x, places, own = c.at(0), c.at(1), c.of("batch_dims", 0)
    deep = places.shape[-1] + own
    if not own < deep <= len(x.shape) or x.shape[:own] != places.shape[:own]:
        raise ValueError(places.shape)
    return Known((*places.shape[:-1], *x.shape[deep:]), x.dtype)


def scattered_parts(c: NodeCall) -> Known:
    x, places, new = c.at(0), c.at(1), c.at(2)
    deep = places.shape[-1]
    if not 0 < deep <= len(x.shape) or new.shape != (*places.shape[:-1], *x.shape[deep:]):
        raise ValueError(new.shape)
    return same(c)


def scattered_elements(c: NodeCall) -> Known:
    c.axis(len(c.at(0).shape))
    if c.at(1).shape != c.at(2).shape or len(c.at(1).shape) != len(c.at(0).shape):
        raise ValueError(c.at(1).shape)
    return same(c)


def padded(c: NodeCall) -> Known:
    x, pads = c.at(0), c.numbers(1)
    rank, constant = len(x.shape), c.of("mode", "constant") == "constant"
    ends = pairs(x.shape, pairs(pads[:rank], pads[rank:]))
    fits = all(-n <= p and (constant or 0 <= p < n) for n, both in ends for p in both)
    shape = tuple(n + before + after for n, (before, after) in ends)
    if not fits or min(shape, default=0) < 0:
        raise ValueError(pads)
    return Known(shape, x.dtype)


def halves(pads: Sequence[int]) -> list[tuple[int, int]]:
    """Return the paddings before and after, of each axis."""
    if len(pads) % 2:
        raise ValueError(pads)
    return pairs(pads[: len(pads) // 2], pads[len(pads) // 2 :])


def pairs(one: Sequence[Any], other: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(one, other, strict=True))


def expanded(c: NodeCall) -> Known:
    return Known(np.broadcast_shapes(c.at(0).shape, tuple(c.numbers(1))), c.at(0).dtype)


def tiled(c: NodeCall) -> Known:
    times = c.numbers(1)
    if min(times, default=0) < 0:
        raise ValueError(times)
    return Known(tuple(n * k for n, k in pairs(c.at(0).shape, times)), c.at(0).dtype)


def filled(c: NodeCall) -> Known:
    value, shape = c.node.attributes.get("value"), tuple(c.numbers(0))
    if min(shape, default=0) < 0:
        raise ValueError(shape)
    if value is None:
        return _full(shape, np.zeros(1, FLOAT))
    assert isinstance(value, Tensor)
    if value.values is None or value.values.size != 1:
        raise ValueError(value.shape)
    return _full(shape, value.values.reshape(1))


def _full(shape: Shape, value: NDArray[Any]) -> Known:
    small = math.prod(shape) <= KEPT
    return Known(shape, value.dtype, np.full(shape, value[0]) if small else None)


def counted(c: NodeCall) -> Known:
    (start,), (end,), (step,) = (c.numbers(i) for i in range(3))
    count = max(0, math.ceil((end - start) / step))
    small = np.arange(count, dtype=np.float64) * step + start if count <= KEPT else None
    own = c.at(0).dtype
    return Known((count,), own, None if small is None else small.astype(own))


def resized(c: NodeCall) -> Known:
    x = c.at(0)
    if c.has(3):
        shape = tuple(c.numbers(3))
    else:
        scales = c.numbers(2)
        if min(scales, default=0.0) <= 0:
            raise ValueError(scales)
        shape = tuple(math.floor(n * s) for n, s in pairs(x.shape, scales))
    if len(shape) != len(x.shape) or min(shape, default=0) < 1:
        raise ValueError(shape)
    return Known(shape, x.dtype)


def depth_to_space(c: NodeCall) -> Known:
    (n, depth, h, w), b = c.at(0).shape, c.of("blocksize", 0)
    if depth % (b * b):
        raise ValueError(depth)
    return Known((n, depth // (b * b), h * b, w * b), c.at(0).dtype)


def space_to_depth(c: NodeCall) -> Known:
    (n, depth, h, w), b = c.at(0).shape, c.of("blocksize", 0)
    if h % b or w % b:
        raise ValueError((h, w))
    return Known((n, depth * b * b, h // b, w // b), c.at(0).dtype)


def one_hot(c: NodeCall) -> Known:
    shape, (depth,) = list(c.at(0).shape), c.numbers(1)
    shape.insert(c.axis(len(shape) + 1, -1), int(depth))
    if depth < 1:
        raise ValueError(depth)
    return Known(tuple(shape), c.at(2).dtype)


def cumulated(c: NodeCall) -> Known:
    (axis,) = c.numbers(1)
    placed(axis, len(c.at(0).shape))
    return same(c)


def triangle(c: NodeCall) -> Known:
    (shift,) = c.numbers(1) if c.has(1) else (0,)
    if len(c.at(0).shape) < 2 or not -(2**31) <= shift < 2**31:
        raise ValueError(c.at(0).shape)
    return same(c)
