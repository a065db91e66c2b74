"""Draw an explanation: the square, the map over it, deletion curves, nearest examples."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headstart.base.errors import DataError
from headstart.explaining.neighbours import Neighbour
from headstart.explaining.pixels.deletion import CURVES, Deletion
from headstart.explaining.pixels.explanation import Explanation
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.lettering import fitting, font
from headstart.modalities.images.painting import AGAINST, FOR, painted

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom

PANEL, EDGE, GAP = 336, 28, 24
INK, FAINT, LINE, PAPER = (28, 32, 38), (110, 118, 128), (222, 226, 230), (255, 255, 255)
CURVE_COLOURS = {"ours": FOR, "random": (140, 146, 154), "centre": AGAINST}
CURVE_WORDS = {"ours": "by this map", "random": "in random order", "centre": "from the centre"}
SMOOTH = 4  # curves are drawn this many times larger, then reduced


def draw_explanation(explained: Explanation) -> Image.Image:
    """Draw the network's input, the map over it, deletion curves and nearest examples on a page."""
    width = 2 * EDGE + 3 * PANEL + 2 * GAP
    top = 104
    thumbs = _thumb_side(explained.nearest)
    height = top + PANEL + 74 + (thumbs + 96 if explained.nearest else 0)
    page = Image.new("RGB", (width, height), PAPER)
    _title(page, explained, width - 2 * EDGE)
    lefts = [EDGE + n * (PANEL + GAP) for n in range(3)]
    square = explained.square
    shown = [_panel(square), _panel(painted(square, explained.map.over(len(square))))]
    for left, picture in zip(lefts, shown, strict=False):
        page.paste(picture, (left, top))
    page.paste(curves(explained.deletion, PANEL), (lefts[2], top))
    _captions(page, lefts, top + PANEL + 10)
    if explained.nearest:
        _row(page, explained.nearest, top + PANEL + 74, thumbs)
    return page


def png_of(page: Image.Image) -> bytes:
    file = io.BytesIO()
    page.save(file, "PNG", optimize=True)
    return file.getvalue()


def curves(told: Deletion, side: int) -> Image.Image:
    """Plot the score of the class against the share of hidden pixels, with the areas as a key."""
    page = Image.new("RGB", (side, side), PAPER)
    box = (40, 8, side - 8, side - 112)
    _grid(page, box)
    for name in reversed(CURVES):  # ours on top
        _line(page, box, told.fractions, getattr(told, name), CURVE_COLOURS[name])
    pen, at = ImageDraw.Draw(page), side - 70
    pen.text((box[2], side - 104), "hidden", FAINT, font(13), anchor="ra")
    for name in CURVES:
        pen.line((box[0], at + 9, box[0] + 22, at + 9), CURVE_COLOURS[name], 4)
        pen.text((box[0] + 32, at), CURVE_WORDS[name], INK, font(14))
        pen.text((box[2], at), f"area {told.area(name):.2f}", INK, font(14), anchor="ra")
        at += 24
    return page


def _title(page: Image.Image, explained: Explanation, width: int) -> None:
    pen = ImageDraw.Draw(page)
    score = f"{explained.score:.3f}"
    room = width - int(pen.textlength(score, font(30))) - GAP
    pen.text((EDGE, 22), fitting(pen, explained.name, room, 30), INK, font(30))
    pen.text((EDGE + width, 22), score, INK, font(30), anchor="ra")
    at = f"{explained.map.method}: {explained.map.layer}"
    pen.text((EDGE + width, 64), at, FAINT, font(15), anchor="ra")
    room = width - int(pen.textlength(at, font(15))) - GAP
    pen.text((EDGE, 64), fitting(pen, explained.path, room, 15, keep_end=True), FAINT, font(15))


def _captions(page: Image.Image, lefts: Sequence[int], top: int) -> None:
    pen = ImageDraw.Draw(page)
    pen.text((lefts[0], top), "what the network saw", FAINT, font(15))
    x = lefts[1]
    for text, colour in (("speaks for it", FOR), ("against it", AGAINST)):
        pen.rounded_rectangle((x, top + 3, x + 14, top + 17), 3, colour)
        pen.text((x + 21, top), text, FAINT, font(15))
        x += 41 + int(pen.textlength(text, font(15)))
    pen.text((lefts[2], top), "score as the most important is hidden", FAINT, font(15))


def _row(page: Image.Image, nearest: Sequence[Neighbour], top: int, side: int) -> None:
    pen = ImageDraw.Draw(page)
    pen.text((EDGE, top), "training examples most alike", INK, font(17))
    for n, neighbour in enumerate(nearest):
        left = EDGE + n * (side + GAP)
        page.paste(_thumb(neighbour.source, side), (left, top + 30))
        label = fitting(pen, neighbour.label, side, 15)
        pen.text((left, top + 36 + side), label, INK, font(15))
        pen.text((left, top + 56 + side), f"{neighbour.distance:.2f} away", FAINT, font(13))


def _thumb_side(nearest: Sequence[Neighbour]) -> int:
    """Return the side at which the thumbnails, or five if there are fewer, fill the page width."""
    count = max(5, len(nearest))
    return (3 * PANEL + 2 * GAP - (count - 1) * GAP) // count


def _thumb(source: Path, side: int) -> Image.Image:
    """Fit a whole picture into a square; a blank one if the file can't be read."""
    try:
        picture = Image.fromarray(decode(source, short_side=side))
    except (OSError, DataError):
        picture = Image.new("RGB", (side, side), LINE)
    share = side / max(picture.size)
    picture = picture.resize(
        (max(1, round(picture.width * share)), max(1, round(picture.height * share))),
        Image.Resampling.LANCZOS,
    )
    square = Image.new("RGB", (side, side), (244, 245, 247))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _panel(square: NDArray[np.uint8]) -> Image.Image:
    how = Image.Resampling.NEAREST if len(square) * 4 < PANEL else Image.Resampling.BICUBIC
    return Image.fromarray(square).resize((PANEL, PANEL), how)


def _grid(page: Image.Image, box: Box) -> None:
    pen = ImageDraw.Draw(page)
    left, top, right, bottom = box
    for share in (0.0, 0.5, 1.0):
        y = round(bottom - share * (bottom - top))
        pen.line((left, y, right, y), LINE, 1)
        pen.text((left - 8, y), f"{share:g}", FAINT, font(13), anchor="rm")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = round(left + share * (right - left))
        pen.line((x, bottom, x, bottom + 4), LINE, 1)
        if share < 1:
            pen.text((x, bottom + 8), f"{share:.0%}", FAINT, font(13), anchor="ma")


def _line(
    page: Image.Image,
    box: Box,
    fractions: NDArray[np.float32],
    scores: NDArray[np.float32],
    colour: Colour,
) -> None:
    """Draw the curve large and reduce it, since Pillow's lines have no smooth edges."""
    left, top, right, bottom = box
    mask = Image.new("L", (page.width * SMOOTH, page.height * SMOOTH))
    points = [
        ((left + x * (right - left)) * SMOOTH, (bottom - y * (bottom - top)) * SMOOTH)
        for x, y in zip(fractions.tolist(), scores.tolist(), strict=True)
    ]
    ImageDraw.Draw(mask).line(points, 255, width=round(2.5 * SMOOTH), joint="curve")
    page.paste(colour, (0, 0), mask.resize(page.size, Image.Resampling.BOX))
