"""The preparation of pictures as part of an exported graph: what `ImageInput` does with pixels."""

from typing import ClassVar, Protocol

import numpy as np

from headstart.backbones.in_graph import InGraph, mean_of_views
from headstart.base.onnx_nodes import Nodes, Value, whole
from headstart.modalities.images.averaged import AveragedViews, Change
from headstart.modalities.images.resize_graph import ResizedAxis, resized, whole_axis
from headstart.targets.boxes import ROW

PIXELS, PREPARED = "pixels", "prepared"  # the inputs of an exported graph
LAST = np.iinfo(np.int64).min + 1  # an end before the first entry


class Preparation(Protocol):
    """The fields of an `ImageInput` that decide the preparation of pictures."""

    longest: ClassVar[int]

    @property
    def size(self) -> int: ...
    @property
    def resize(self) -> int: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def interpolation(self) -> str: ...
    @property
    def fit(self) -> str: ...
    @property
    def averaged(self) -> AveragedViews: ...


class PaddedPreparation(Preparation, Protocol):
    """The further fields of a `LetterboxInput`: the sides of the rectangle."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def two_inputs(nodes: Nodes, height: int, width: int) -> tuple[str, str]:
    """Add the inputs: pictures of one size, any, and prepared ones. Returns their names.

    The second may be left out, and the first may hold no picture, (0, 1, 1, 3): the answers are
    those of the first's pictures and then of the second's.
    """
    pixels = nodes.input(PIXELS, np.uint8, ["n", "height", "width", 3])
    none = np.zeros((0, height, width, 3), np.uint8)
    return pixels, nodes.input(PREPARED, np.uint8, ["m", height, width, 3], none)


def prepared_alone(nodes: Nodes, height: int, width: int) -> str:
    """Add the input of a graph that is given prepared pictures alone."""
    return nodes.input(PREPARED, np.uint8, ["n", height, width, 3])


def picture_in_graph(nodes: Nodes, input: Preparation, prepares: bool) -> InGraph:
    """Add the inputs and the preparation of `ImageInput`."""
    size = input.size
    if prepares:
        pixels, given = two_inputs(nodes, size, size)
        made = _FITS[input.fit](nodes, input, pixels)
        square = nodes("Concat", made, given, axis=0)
    else:
        square = prepared_alone(nodes, size, size)
    count = input.averaged.count
    if count > 1:
        square = _views(nodes, square, input)
    return InGraph({"pixels": square}, lambda x: mean_of_views(nodes, x, count))


def _cropped(nodes: Nodes, input: Preparation, pixels: str) -> str:
    """Resize the shorter side and cut the centre, of which alone values are computed."""
    pixels = _middle(nodes, pixels, input.longest)
    _, height, width = nodes.sides(pixels)
    shorter = nodes("Min", height, width)

    def axis(length: str) -> ResizedAxis:
        out = nodes("Div", nodes("Mul", whole(input.resize), length), shorter)
        edge = nodes("Sub", nodes.cast(out, np.float64), np.float64(input.size))
        first = nodes("Round", nodes("Div", edge, np.float64(2)))  # halves to even, as in Python
        return whole_axis(nodes, length, out, first, input.size)

    return resized(nodes, pixels, input.interpolation, axis(height), axis(width))


def _middle(nodes: Nodes, pixels: str, most: int) -> str:
    """Cut a longer strip to its middle, as `inputs._middle` does."""
    _, height, width = nodes.sides(pixels)
    longest = nodes("Mul", whole(most), nodes("Min", height, width))
    edges = (nodes("Sub", side, longest) for side in (height, width))
    begins = [nodes("Div", nodes("Max", edge, whole(0)), whole(2)) for edge in edges]
    begin = nodes("Concat", *begins, axis=0)
    return nodes("Slice", pixels, begin, nodes("Add", begin, longest), whole((1, 2)))


def _squashed(nodes: Nodes, input: Preparation, pixels: str) -> str:
    _, height, width = nodes.sides(pixels)
    out, first, size = whole(input.size), whole(0), input.size
    axes = (whole_axis(nodes, side, out, first, size) for side in (height, width))
    return resized(nodes, pixels, input.interpolation, *axes)


def _padded(nodes: Nodes, input: Preparation, pixels: str) -> str:
    """Resize the longer side to the square's, and fill up with the mean colour."""
    _, height, width = nodes.sides(pixels)
    longer = nodes.cast(nodes("Max", height, width), np.float64)

    def out(side: str) -> str:
        long = nodes.cast(nodes("Mul", whole(input.size), side), np.float64)
        return nodes("Max", _integer(nodes, nodes("Div", long, longer)), whole(1))

    outs = out(height), out(width)
    return _on_canvas(nodes, input, pixels, outs, (input.size, input.size))[0]


_FITS = {"crop": _cropped, "squash": _squashed, "pad": _padded}


def _on_canvas(
    nodes: Nodes,
    input: Preparation,
    pixels: str,
    outs: tuple[str, str],
    canvas: tuple[int, int],
) -> tuple[str, tuple[str, str]]:
    """Return pixels resized to `outs` in the middle of a canvas of the mean colour, and its edges.

    outs, canvas: height and width; the edges are top and left, (1,) int64.
    """
    sides = nodes.sides(pixels)[1:]
    edges = tuple(
        nodes("Div", nodes("Sub", whole(size), out), whole(2))
        for size, out in zip(canvas, outs, strict=True)
    )
    axes = [
        whole_axis(nodes, side, out, nodes("Neg", edge), size)
        for side, out, edge, size in zip(sides, outs, edges, canvas, strict=True)
    ]
    inside = [
        nodes("Unsqueeze", a.inside(nodes), whole(x)) for a, x in zip(axes, (1, 0), strict=True)
    ]
    mask = nodes("Unsqueeze", nodes("And", *inside), whole(2))  # (height, width, 1)
    colour = np.array([round(255 * m) for m in input.mean], np.uint8)
    made = resized(nodes, pixels, input.interpolation, *axes)
    return nodes("Where", mask, made, colour), (edges[0], edges[1])


def _views(nodes: Nodes, squares: str, input: Preparation) -> str:
    """Return the test-time views of squares (N, S, S, 3), as (N * views, S, S, 3)."""
    size = input.size
    views = [_changed(nodes, squares, change, size) for change in input.averaged.changes(size)]
    apart = [nodes("Unsqueeze", view, whole(1)) for view in views]
    return nodes("Reshape", nodes("Concat", *apart, axis=1), whole((-1, size, size, 3)))


def _changed(nodes: Nodes, square: str, change: Change, size: int) -> str:
    """Return one view: a crop of the square, quarter turns to the left, mirrored or not."""
    if change.side < size:
        square = resized(
            nodes,
            square,
            "bilinear",
            _part(change.top, change, size),
            _part(change.left, change, size),
        )
    if change.turns % 2:
        square = nodes("Transpose", square, perm=[0, 2, 1, 3])
    flipped = {0: (False, False), 1: (True, False), 2: (True, True), 3: (False, True)}[change.turns]
    rows, columns = flipped[0], flipped[1] != change.mirrored
    for axis, backwards in ((1, rows), (2, columns)):
        if backwards:
            square = nodes("Slice", square, whole(-1), whole(LAST), whole(axis), whole(-1))
    return square


def _part(begin: int, change: Change, size: int) -> ResizedAxis:
    length, first, last = (np.array([float(n)]) for n in (size, begin, begin + change.side))
    return ResizedAxis(length, first, last, length, np.zeros(1), size)


def letterbox_in_graph(nodes: Nodes, input: PaddedPreparation, prepares: bool) -> InGraph:
    """Add the inputs and the preparation of `LetterboxInput`; boxes come back in upright pixels,
    those of prepared pictures in pixels of what was given."""
    canvas = input.height, input.width
    if not prepares:
        return InGraph({"pixels": prepared_alone(nodes, *canvas)}, lambda x: x)
    pixels, given = two_inputs(nodes, *canvas)
    lengths = [nodes.cast(side, np.float64) for side in nodes.sides(pixels)[1:]]
    fits = [nodes("Div", np.array([float(a)]), b) for a, b in zip(canvas, lengths, strict=True)]
    scale = nodes("Min", *fits)

    def out(length: str, most: int) -> str:
        near = _integer(nodes, nodes("Mul", scale, length))
        return nodes("Max", nodes("Min", near, whole(most)), whole(1))

    outs = out(lengths[0], canvas[0]), out(lengths[1], canvas[1])
    made, edges = _on_canvas(nodes, input, pixels, outs, canvas)
    frame = _frames(nodes, (pixels, given), lengths, outs, edges)
    every = nodes("Concat", made, given, axis=0)
    return InGraph({"pixels": every}, lambda x: _settled(nodes, x, frame))


def _frames(
    nodes: Nodes,
    inputs: tuple[str, str],
    lengths: list[str],
    outs: tuple[str, str],
    edges: tuple[str, str],
) -> str:
    """Return (N, 6) left, top, scales and size of each example, as `Placing.numbers` has them."""
    scales = [
        nodes("Div", length, nodes.cast(out, np.float64))
        for length, out in zip(lengths, outs, strict=True)
    ]
    numbers = [
        *(nodes.cast(edge, np.float64) for edge in edges[::-1]),
        *scales[::-1],
        *lengths[::-1],
    ]
    placed = nodes("Unsqueeze", nodes("Concat", *numbers, axis=0), whole(0))
    given = [nodes("Shape", inputs[1], start=axis, end=axis + 1) for axis in (2, 1)]
    size = [nodes.cast(side, np.float64) for side in given]
    still = nodes("Concat", np.zeros(2), np.ones(2), *size, axis=0)
    frames: list[Value] = [placed, nodes("Unsqueeze", still, whole(0))]
    each = [
        nodes("Expand", frame, nodes("Concat", nodes.sides(own)[0], whole(6), axis=0))
        for frame, own in zip(frames, inputs, strict=True)
    ]
    return nodes("Concat", *each, axis=0)


def _settled(nodes: Nodes, x: str, frame: str) -> str:
    """Bring detections (N, K * ROW) into upright pixels, as `letterbox.out_of` does."""
    rows = nodes("Reshape", nodes.cast(x, np.float64), whole((0, -1, ROW)))
    corners, rest = nodes.several(2, "Split", rows, whole((4, ROW - 4)), axis=2)
    pairs = nodes.several(3, "Split", frame, whole((2, 2, 2)), axis=1)
    begin, scale, size = (
        nodes("Unsqueeze", nodes("Concat", pair, pair, axis=1), whole(1)) for pair in pairs
    )
    corners = nodes("Mul", nodes("Sub", corners, begin), scale)
    corners = nodes("Max", nodes("Min", corners, size), np.float64(0))
    joined = nodes("Concat", corners, rest, axis=2)
    return nodes.cast(nodes("Reshape", joined, nodes("Shape", x)), np.float32)


def _integer(nodes: Nodes, value: str) -> str:
    """Return float64 rounded as Python rounds, as int64."""
    return nodes.cast(nodes("Round", value), np.int64)
