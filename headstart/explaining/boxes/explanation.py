"""An explanation of one detection: its values, and the page that shows them."""

from dataclasses import dataclass, field
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
from headstart.base.values import Record, as_key
from headstart.explaining.boxes.occlusion import Occlusion
from headstart.explaining.neighbours import Neighbour
from headstart.modalities.images.box_drawing import DrawnBox, Rectangle, colour_of, draw_boxes
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.encoding import encoded
from headstart.modalities.images.inputs import ImageInput
from headstart.modalities.images.lettering import fitting, font
from headstart.modalities.images.painting import AGAINST, FOR, painted

PANEL, EDGE, GAP, TOP = 516, 28, 24, 104
WIDTH = 2 * PANEL + GAP  # without the edges
THUMBS = 5
BLANK = (222, 226, 230)
INK, FAINT, PAPER = (28, 32, 38), (110, 118, 128), (255, 255, 255)
CONTEXT = 0.3  # sides of a training box that are shown around it


@dataclass(frozen=True)
class NearBox(Neighbour):
    """A box of a training example. corners: in pixels of the upright picture."""

    corners: Rectangle = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class NearestBox(Record):
    path: str
    label: str
    distance: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class ExplainedBox(Record):
    """An explanation without its pixels. box: corners in pixels of the upright picture. spot: the
    distance of the hidden spots in these pixels."""

    path: str
    name: str = field(metadata=as_key("class"))
    score: float
    box: tuple[float, float, float, float]
    method: str
    spot: float
    nearest: tuple[NearestBox, ...] = ()


@dataclass(frozen=True, eq=False)
class BoxExplanation:
    """Why a box is found. picture: (H, W, 3), what the network saw, without the padding. box: its
    corners in this picture; upright: in the file's. name, score: of its class. map: over `picture`.
    features: (D,) of the box. nearest: training boxes. scale: pixels of the file for one of
    `picture`."""

    path: str
    picture: NDArray[np.uint8]
    box: Rectangle
    upright: Rectangle
    name: str
    score: float
    label: int
    map: Occlusion
    scale: float = 1.0
    features: NDArray[np.float32] | None = None
    nearest: tuple[NearBox, ...] = ()
    answer: str = ""  # a field of every explanation; always "" here, since `score` is the answer

    def __repr__(self) -> str:
        return f"BoxExplanation({self.path!r}, {self.name!r}, score {self.score:.4f})"

    def _repr_html_(self) -> str:
        return html_image(self.png(), f"{self.path}: {self.name}", 2 * EDGE + WIDTH)

    def to_plain(self) -> dict[str, Any]:
        """Return the explanation without its pixels, ready for JSON."""
        near = [
            NearestBox(n.id, n.label, round(n.distance, 4), _rounded(n.corners))
            for n in self.nearest
        ]
        return ExplainedBox(
            path=self.path,
            name=self.name,
            score=self.score,
            box=_rounded(self.upright),
            method="occlusion",
            spot=round(self.map.spot * self.scale, 1),
            nearest=tuple(near),
        ).to_plain()

    def details(self) -> tuple[tuple[str, ...], ...]:
        """Return lines to print under the answer: where the box is."""
        return (("box", *(f"{side:.1f}" for side in self.upright)),)

    def save(self, path: Path | str) -> None:
        """Write `draw()` as a PNG file; raises OSError if it can't be written."""
        write_bytes(user_path(path), self.png())

    def png(self) -> bytes:
        return encoded(self.draw(), optimize=True)

    def draw(self) -> Image.Image:
        """Draw the picture with the box, the map over it, and the nearest training boxes."""
        high = max(1, round(PANEL * self.picture.shape[0] / self.picture.shape[1]))
        side, below = (WIDTH - (THUMBS - 1) * GAP) // THUMBS, TOP + high + 50
        page = Image.new(
            "RGB", (2 * EDGE + WIDTH, below + (side + 96 if self.nearest else 0)), PAPER
        )
        own = DrawnBox(self.box, f"{self.name} {self.score:.2f}", colour_of(self.label))
        over = painted(self.picture, self.map.values)
        panels = draw_boxes(self.picture, [own]), draw_boxes(over, [DrawnBox(self.box)])
        for n, panel in enumerate(panels):
            left = EDGE + n * (PANEL + GAP)
            page.paste(panel.resize((PANEL, high), Image.Resampling.LANCZOS), (left, TOP))
        pen = ImageDraw.Draw(page)
        self._write(pen, TOP + high + 10)
        if self.nearest:
            self._draw_nearest(page, below, side)
        return page

    def _write(self, pen: ImageDraw.ImageDraw, below: int) -> None:
        """Write the title, the path and the captions."""
        spot = f"occlusion: spots {self.map.spot * self.scale:.0f} px apart"
        lines = (
            (22, self.name, f"{self.score:.3f}", 30, INK, False),
            (64, self.path, spot, 15, FAINT, True),
        )
        for top, text, right, size, colour, end in lines:
            room = WIDTH - int(pen.textlength(right, font(size))) - GAP
            shown = fitting(pen, text, room, size, keep_end=end)
            pen.text((EDGE, top), shown, colour, font(size))
            pen.text((EDGE + WIDTH, top), right, colour, font(size), anchor="ra")
        pen.text((EDGE, below), "the detection that is explained", FAINT, font(15))
        x = EDGE + PANEL + GAP
        for text, colour in (("hiding it lowers the score", FOR), ("raises it", AGAINST)):
            pen.rounded_rectangle((x, below + 3, x + 14, below + 17), 3, colour)
            pen.text((x + 21, below), text, FAINT, font(15))
            x += 41 + int(pen.textlength(text, font(15)))

    def _draw_nearest(self, page: Image.Image, top: int, side: int) -> None:
        pen = ImageDraw.Draw(page)
        pen.text((EDGE, top), "training boxes most alike", INK, font(17))
        for n, near in enumerate(self.nearest[:THUMBS]):
            left = EDGE + n * (side + GAP)
            page.paste(cropped(near.source, near.corners, side), (left, top + 30))
            label = fitting(pen, near.label, side, 15)
            pen.text((left, top + 36 + side), label, INK, font(15))
            pen.text((left, top + 56 + side), f"{near.distance:.2f} away", FAINT, font(13))


def cropped(source: Any, corners: Rectangle, side: int) -> Image.Image:
    """Return the square around a box of a picture, side x side; grey if it can't be read."""
    try:
        picture = Image.fromarray(decode(fetched(ImageInput(), source)))
    except (OSError, DataError):
        return Image.new("RGB", (side, side), BLANK)
    a, b, c, d = corners
    half = max(c - a, d - b, 1.0) * (0.5 + CONTEXT)
    x, y = (a + c) / 2, (b + d) / 2
    shift, own = (round(x - half), round(y - half)), max(1, round(2 * half))
    square = Image.new("RGB", (own, own), BLANK)
    square.paste(picture, (-shift[0], -shift[1]))
    box = (a - shift[0], b - shift[1], c - shift[0], d - shift[1])
    drawn = draw_boxes(np.asarray(square), [DrawnBox(box)], 2 * side)
    return drawn.resize((side, side), Image.Resampling.LANCZOS)


def _rounded(corners: Rectangle) -> Rectangle:
    a, b, c, d = (round(float(side), 3) for side in corners)
    return a, b, c, d
