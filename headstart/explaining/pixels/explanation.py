"""An explanation of one answer: its values, and the page that shows them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headstart.backbones.inputs import fetched
from headstart.base.atomic import write_bytes
from headstart.base.errors import DataError
from headstart.base.notebook import html_image
from headstart.base.paths import user_path
from headstart.explaining.neighbours import Neighbour
from headstart.explaining.pixels.attribution import Attribution
from headstart.explaining.pixels.deletion import CURVES, Deletion
from headstart.explaining.pixels.saved import ExplainedPicture, ExplainedRow
from headstart.explaining.saved import NearestExample
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.inputs import ImageInput
from headstart.modalities.images.lettering import fitting, font
from headstart.modalities.images.painting import AGAINST, FOR, painted

Box = tuple[int, int, int, int]  # left, top, right, bottom

PANEL, EDGE, GAP, TOP = 336, 28, 24, 104
WIDTH = 3 * PANEL + 2 * GAP  # without the edges
INK, FAINT, LINE, PAPER = (28, 32, 38), (110, 118, 128), (222, 226, 230), (255, 255, 255)
CURVE_STYLES = {  # colour and words
    "ours": (FOR, "by this map"),
    "random": ((140, 146, 154), "in random order"),
    "centre": (AGAINST, "from the centre"),
}
SMOOTH = 4  # curves are drawn this many times larger, then reduced


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a picture gets an answer. square: (S, S, 3), the network's input. name, score: of the
    explained class or label; of a number or grade, the place on a scale of 0 to 1. nearest:
    training examples, empty without training rows. answer: the number or grade, else ""."""

    path: str
    square: NDArray[np.uint8]
    name: str
    score: float
    map: Attribution
    deletion: Deletion
    nearest: tuple[Neighbour, ...] = ()
    answer: str = ""

    def __repr__(self) -> str:
        shown = self.answer or f"score {self.score:.4f}"
        return f"Explanation({self.path!r}, {self.name!r}, {shown})"

    def _repr_html_(self) -> str:
        return html_image(self.png(), f"{self.path}: {self.name}", 2 * EDGE + WIDTH)

    @property
    def picture(self) -> ExplainedPicture:
        """The explanation without its pixels."""
        return ExplainedPicture(
            path=self.path,
            name=self.name,
            score=self.score,
            method=self.map.method,
            layer=self.map.layer,
            deletion=self.deletion.saved(),
            nearest=tuple(
                NearestExample(n.id, n.label, round(n.distance, 4)) for n in self.nearest
            ),
            answer=self.answer,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return `picture`, ready for JSON."""
        return self.picture.to_plain()

    def details(self) -> tuple[tuple[str, str], ...]:
        """Return lines to print under the answer: none, the picture shows them."""
        return ()

    def row(self, label: str, group: str = "") -> ExplainedRow:
        """Return the row of explained.json for an example with this label."""
        own = vars(self.picture)
        return ExplainedRow(**own, label=label, map=self.map.quantised(), group=group)

    def save(self, path: Path | str) -> None:
        """Write `draw()` as a PNG file; raises OSError if it can't be written."""
        write_bytes(user_path(path), self.png())

    def png(self) -> bytes:
        """Return `draw()` as the bytes of a PNG file."""
        file = io.BytesIO()
        self.draw().save(file, "PNG", optimize=True)
        return file.getvalue()

    def draw(self) -> Image.Image:
        """Draw the square, the map over it, the deletion curves and the nearest examples."""
        count = max(5, len(self.nearest))  # thumbnails, or five if there are fewer, fill the width
        thumbs, below = (WIDTH - (count - 1) * GAP) // count, TOP + PANEL + 74
        height = below + (thumbs + 96 if self.nearest else 0)
        page = Image.new("RGB", (2 * EDGE + WIDTH, height), PAPER)
        lefts = [EDGE + n * (PANEL + GAP) for n in range(3)]
        over = painted(self.square, self.map.over(len(self.square)))
        panels = _panel(self.square), _panel(over), curves(self.deletion, PANEL)
        for left, panel in zip(lefts, panels, strict=True):
            page.paste(panel, (left, TOP))
        pen = ImageDraw.Draw(page)
        self._write_title(pen)
        _write_captions(pen, lefts, TOP + PANEL + 10, quantity=bool(self.answer))
        if self.nearest:
            _draw_examples(page, self.nearest, below, thumbs)
        return page

    def _write_title(self, pen: ImageDraw.ImageDraw) -> None:
        """Write what is explained and the answer; below, the path and how the map was made."""
        lines = (
            (22, self.name, self.answer or f"{self.score:.3f}", 30, INK),
            (64, self.path, f"{self.map.method}: {self.map.layer}", 15, FAINT),
        )
        for top, text, right, size, colour in lines:
            room = WIDTH - int(pen.textlength(right, font(size))) - GAP
            shown = fitting(pen, text, room, size, keep_end=text is self.path)
            pen.text((EDGE, top), shown, colour, font(size))
            pen.text((EDGE + WIDTH, top), right, colour, font(size), anchor="ra")


def curves(deletion: Deletion, side: int) -> Image.Image:
    """Plot the score of the class against the share of hidden pixels, with the areas as a key."""
    page = Image.new("RGB", (side, side), PAPER)
    box = (40, 8, side - 8, side - 112)
    _grid(page, box)
    for name in reversed(CURVES):  # ours on top
        _line(page, box, deletion.fractions, getattr(deletion, name), CURVE_STYLES[name][0])
    pen, at = ImageDraw.Draw(page), side - 70
    pen.text((box[2], side - 104), "hidden", FAINT, font(13), anchor="ra")
    for name, (colour, words) in CURVE_STYLES.items():
        pen.line((box[0], at + 9, box[0] + 22, at + 9), colour, 4)
        pen.text((box[0] + 32, at), words, INK, font(14))
        pen.text((box[2], at), f"area {deletion.area(name):.2f}", INK, font(14), anchor="ra")
        at += 24
    return page


def _write_captions(
    pen: ImageDraw.ImageDraw, lefts: Sequence[int], top: int, *, quantity: bool
) -> None:
    words = ("raises it", "lowers it") if quantity else ("speaks for it", "against it")
    what = "its place, 0 to 1," if quantity else "score"
    pen.text((lefts[0], top), "what the network saw", FAINT, font(15))
    x = lefts[1]
    for text, colour in zip(words, (FOR, AGAINST), strict=True):
        pen.rounded_rectangle((x, top + 3, x + 14, top + 17), 3, colour)
        pen.text((x + 21, top), text, FAINT, font(15))
        x += 41 + int(pen.textlength(text, font(15)))
    end = "as parts are hidden" if quantity else "as the most important is hidden"
    pen.text((lefts[2], top), f"{what} {end}", FAINT, font(15))


def _draw_examples(page: Image.Image, nearest: Sequence[Neighbour], top: int, side: int) -> None:
    pen = ImageDraw.Draw(page)
    pen.text((EDGE, top), "training examples most alike", INK, font(17))
    for n, neighbour in enumerate(nearest):
        left = EDGE + n * (side + GAP)
        page.paste(_thumb(neighbour.source, side), (left, top + 30))
        label = fitting(pen, neighbour.label, side, 15)
        pen.text((left, top + 36 + side), label, INK, font(15))
        pen.text((left, top + 56 + side), f"{neighbour.distance:.2f} away", FAINT, font(13))


def _thumb(source: Path, side: int) -> Image.Image:
    """Fit a whole picture into a square; a blank one if the file can't be read."""
    try:
        picture = Image.fromarray(decode(fetched(ImageInput(), source), short_side=side))
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
    colour: tuple[int, int, int],
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
