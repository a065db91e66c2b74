"""Draw boxes on pictures, with the names and scores of their classes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headstart.modalities.images.decoding import decode
from headstart.modalities.images.encoding import encoded
from headstart.modalities.images.lettering import fitting, font
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import ExampleBoxes

Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom

SHARP: dict[str, Any] = {"quality": 92, "subsampling": 0}  # thin lines keep their colours
LEAST = 640  # pixels of the longer side below which a picture is enlarged
# Bright colours that also differ for the colour-blind (Okabe, Ito 2008, Color universal design).
COLOURS: tuple[Colour, ...] = (
    (255, 176, 0),
    (86, 180, 233),
    (0, 200, 140),
    (240, 228, 66),
    (255, 110, 60),
    (230, 130, 200),
    (190, 255, 120),
    (200, 200, 255),
)
TRUE: Colour = (255, 255, 255)  # of labels
DARK: Colour = (16, 20, 24)  # below each line, and of the letters
LINE, LETTERS = 400, 44  # parts of the longer side that a line and a letter are
FINEST, SMALLEST = 2, 13  # pixels of a line and of letters, at least
DASH = 4  # widths of a line that a dash is long


@dataclass(frozen=True)
class DrawnBox:
    """A box in pixels of the picture. text: written beside it, "" for none. dashed: the style of
    labels, which are drawn below the others."""

    corners: Rectangle
    text: str = ""
    colour: Colour = TRUE
    dashed: bool = False


def colour_of(number: int) -> Colour:
    """Return the colour of a class.

    >>> colour_of(0) == colour_of(len(COLOURS))
    True
    """
    return COLOURS[number % len(COLOURS)]


def drawn_detections(found: Detections, names: Sequence[str]) -> list[DrawnBox]:
    """Return detections to draw, each in the colour of its class with name and score, those of the
    highest scores first. names: of the classes.

    >>> one = Detections(np.array([[0, 0, 4, 4]]), np.array([0.5]), np.array([0]))
    >>> drawn_detections(one, ("cell",))[0].text
    'cell 0.50'
    """
    order = np.argsort(-found.scores, kind="stable").tolist()
    return [
        DrawnBox(
            _corners(found.corners[i]),
            f"{names[found.labels[i]]} {found.scores[i]:.2f}",
            colour_of(int(found.labels[i])),
        )
        for i in order
    ]


def drawn_file(data: bytes, found: Detections, names: Sequence[str]) -> bytes:
    """Return a JPEG of a picture's file with detections drawn on it; raises DataError if the file
    can't be read."""
    drawn = draw_boxes(decode(data), drawn_detections(found, names))
    return encoded(drawn, "JPEG", **SHARP)


def upright_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the picture in a file when it is upright; see `decode`."""
    height, width, _ = decode(data).shape
    return width, height


def drawn_labels(boxes: ExampleBoxes, texts: Sequence[str] = ()) -> list[DrawnBox]:
    """Return true boxes to draw, dashed and white. texts: of each, () for none."""
    every = zip(boxes.corners, texts or [""] * len(boxes), strict=True)
    return [DrawnBox(_corners(own), text, dashed=True) for own, text in every]


def resized(boxes: Sequence[DrawnBox], by: float) -> list[DrawnBox]:
    """Return boxes to draw on a picture that is `by` times as large."""
    return [replace(box, corners=_scaled(box.corners, by)) for box in boxes]


def _corners(own: NDArray[np.floating]) -> Rectangle:
    a, b, c, d = (float(side) for side in own)
    return a, b, c, d


def draw_boxes(
    pixels: NDArray[np.uint8],
    boxes: Sequence[DrawnBox],
    least: int = LEAST,
    letters: int = LETTERS,
) -> Image.Image:
    """Draw boxes on a copy of a picture (H, W, 3); the first ones have the first choice of where
    their texts stand.

    least: pixels of the longer side below which the picture is enlarged by a whole factor, so that
    texts can be read. letters: how many of their heights the longer side is. Lines and letters grow
    with the picture.
    """
    longest = max(pixels.shape[:2])
    scale = max(1, math.ceil(least / longest))
    page = Image.fromarray(pixels)
    if scale > 1:
        how = Image.Resampling.NEAREST if scale >= 4 else Image.Resampling.BICUBIC
        page = page.resize((page.width * scale, page.height * scale), how)
    width = max(FINEST, round(scale * longest / LINE))
    size = max(SMALLEST, round(scale * longest / letters))
    pen = ImageDraw.Draw(page)
    placed = [(box, _scaled(box.corners, scale)) for box in boxes]
    for box, own in sorted(placed, key=lambda pair: not pair[0].dashed):
        _outline(pen, own, width + max(2, width // 2), DARK)
        _outline(pen, own, width, box.colour, dashed=box.dashed)
    _write(pen, placed, page.size, size)
    return page


def _scaled(corners: Rectangle, scale: float) -> Rectangle:
    left, top, right, bottom = (scale * float(side) for side in corners)
    return left, top, right, bottom


def _outline(
    pen: ImageDraw.ImageDraw, box: Rectangle, width: int, colour: Colour, *, dashed: bool = False
) -> None:
    """Draw the sides of a box, each as a filled strip around the box's own edge."""
    left, top, right, bottom = box
    half = width / 2
    for along, across in ((0, top), (0, bottom), (1, left), (1, right)):
        begin, end = ((left, right), (top, bottom))[along]
        parts = _dashes(begin, end, DASH * width) if dashed else ((begin - half, end + half),)
        for a, b in parts:
            low, high = (a, across - half), (b, across + half)
            strip = (*low, *high) if not along else (*low[::-1], *high[::-1])
            pen.rectangle([round(side) for side in _ordered(strip)], fill=colour)


def _ordered(strip: Sequence[float]) -> Rectangle:
    """Return a strip whose pixels, the last ones included, are as many as it is wide."""
    a, b, c, d = strip
    return a, b, max(a, c - 1), max(b, d - 1)


def _dashes(begin: float, end: float, length: float) -> Iterator[tuple[float, float]]:
    """Yield dashes of about a length with gaps between them, one at either end.

    >>> list(_dashes(0, 9, 3))
    [(0.0, 3.0), (6.0, 9.0)]
    """
    count = max(1, round((end - begin) / length / 2 + 0.5))
    own = (end - begin) / (2 * count - 1)
    for i in range(count):
        yield begin + 2 * i * own, begin + (2 * i + 1) * own


def _write(
    pen: ImageDraw.ImageDraw,
    placed: Sequence[tuple[DrawnBox, Rectangle]],
    page: tuple[int, int],
    size: int,
) -> None:
    """Write the texts on strips of their colour, where they cover no other text if there is room;
    the first ones on top."""
    taken, strips = list[Rectangle](), list[tuple[Rectangle, str, Colour]]()
    edge = max(1, size // 6)
    for box, own in placed:
        if not box.text:
            continue
        text = fitting(pen, box.text, page[0] - 2 * edge, size)
        sides = pen.textlength(text, font(size)) + 2 * edge, size + 2 * edge
        strip = _free(own, sides, page, taken)
        taken.append(strip)
        strips.append((strip, text, box.colour))
    for strip, text, colour in reversed(strips):
        pen.rectangle([round(side) for side in strip], fill=colour)
        middle = (strip[0] + edge, (strip[1] + strip[3]) / 2)
        pen.text(middle, text, DARK, font(size), anchor="lm")


def _free(
    box: Rectangle,
    sides: tuple[float, float],
    page: tuple[int, int],
    taken: Sequence[Rectangle],
) -> Rectangle:
    """Return a place for a text of these sides at a box: above, below or inside of it; the first
    that is free and covers nothing of the box, or else is free, or else the first."""
    (left, top, right, bottom), (wide, high) = box, sides
    asked = ((left, top - high), (right - wide, top - high), (left, bottom), (right - wide, bottom))
    found = list[Rectangle]()
    for x, y in (*asked, (left, top), (left, bottom - high)):
        x, y = (max(0.0, min(v, full - s)) for v, full, s in zip((x, y), page, sides, strict=True))
        found.append((x, y, x + wide, y + high))
    free = [own for own in found if not any(_meet(own, other) for other in taken)]
    return next((own for own in free if not _meet(own, box)), next(iter(free), found[0]))


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
