"""An attacked picture: before, the amplified difference and after, as values and as a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from headstart.base.atomic import write_bytes
from headstart.base.notebook import html_image
from headstart.base.paths import user_path
from headstart.modalities.images.decoding import Pixels, decode
from headstart.modalities.images.encoding import png
from headstart.modalities.images.lettering import fitting, font
from headstart.models.predictor import Answer
from headstart.training.attack import LEVELS

SIDE = 320  # pixels of the longer side of each picture; small ones are enlarged by whole factors
GAP = 16
HEAD, LINE = 30, 22  # pixels: height of the heading, and of each line below
GREY = 128
INK, PALE, RED = "#1a1a1a", "#666666", "#b00020"

Lines = Sequence[tuple[str, str]]  # text and colour


@dataclass(frozen=True, eq=False)
class Fooling:
    """The result of attacking one picture.

    picture: the original, (H, W, 3). file: PNG of the changed picture. before, after: predictions
    for the original and for the file as read back. target: number of the wanted class, None for any
    class but that of `before`. path: of the original, if it was a file.
    """

    picture: Pixels
    file: bytes
    before: Answer
    after: Answer
    target: int | None = None
    path: str = ""

    def __repr__(self) -> str:
        change = f"{self.before.name!r} -> {self.after.name!r}, {self.levels}/{LEVELS}"
        return f"Fooling({self.path!r}, {self.outcome}, {change})"

    def _repr_html_(self) -> str:
        return html_image(png(self.triptych()), f"{self.path}: {self.outcome}", 3 * SIDE)

    @cached_property
    def changed(self) -> Pixels:
        """The changed picture, decoded from the file."""
        return decode(self.file)

    @cached_property
    def difference(self) -> Pixels:
        """The absolute change of each value, in steps of 1/255."""
        return np.where(
            self.changed > self.picture, self.changed - self.picture, self.picture - self.changed
        )

    @property
    def flipped(self) -> bool:
        """Whether the predicted class is now the target, or without a target any other class."""
        if self.target is not None:
            return self.after.label == self.target
        return self.after.label != self.before.label

    @property
    def fooled(self) -> bool:
        """Whether the class is flipped and the model does not report it as unknown."""
        return self.flipped and not self.after.doubt

    @property
    def outcome(self) -> str:
        """ "held", "flipped", or "doubted": flipped, and reported as unknown."""
        if not self.flipped:
            return "held"
        return "flipped" if self.fooled else "doubted"

    @property
    def levels(self) -> int:
        """The largest change of a value, in steps of 1/255."""
        return int(self.difference.max())

    @property
    def length(self) -> float:
        """L2 norm of all changes, on the scale 0..1."""
        each = np.bincount(self.difference.ravel(), minlength=LEVELS + 1)
        return float(np.sqrt(each @ np.arange(LEVELS + 1.0) ** 2)) / LEVELS

    def save(self, path: Path | str) -> None:
        """Write the changed picture as a PNG, and beside it its triptych: both or neither."""
        path = user_path(path)
        write_bytes(triptych_path(path), png(self.triptych()))
        try:
            write_bytes(path, self.file)
        except OSError:
            triptych_path(path).unlink(missing_ok=True)
            raise

    def triptych(self) -> Pixels:
        """Draw the picture before, the difference and after, with their predictions: (H, W, 3)."""
        times = max(1, (GREY - 1) // max(1, self.levels))  # as large as the range of grey lets it
        change = self.changed.astype(np.int16) - self.picture
        difference = (GREY + times * change).clip(0, LEVELS).astype(np.uint8)
        panels: list[tuple[str, Pixels, Lines]] = [
            ("before", self.picture, _lines_of(self.before, INK)),
            (f"difference x {times}", difference, self._lines_of_change()),
            ("after", self.changed, _lines_of(self.after, RED if self.flipped else INK)),
        ]
        size = _shown_size(self.picture)
        column = max(size[0], SIDE)
        height = HEAD + size[1] + max(len(lines) for *_, lines in panels) * LINE + 2 * GAP
        sheet = Image.new("RGB", (3 * column + 4 * GAP, height), "white")
        for n, (title, pixels, lines) in enumerate(panels):
            left = GAP + n * (column + GAP)
            _place(sheet, left, column, title, _fitted(pixels, size), lines)
        return np.asarray(sheet)

    def _lines_of_change(self) -> Lines:
        levels = f"{self.levels} of {LEVELS} levels" if self.levels != 1 else f"1 level of {LEVELS}"
        return ((f"at most {levels}", INK), (f"L2 {self.length:.3g} on the scale 0 to 1", PALE))


def triptych_path(file: Path) -> Path:
    return file.with_name(f"{file.stem}-triptych.png")


def _lines_of(answer: Answer, colour: str) -> Lines:
    lines = [(answer.name, colour), (f"score {answer.score:.3f}", PALE)]
    if not answer.doubt:
        return lines
    what, _, numbers = answer.doubt.partition(" (")
    return [*lines, (f"but reported as unknown: {what}", PALE), (numbers.rstrip(")"), PALE)]


def _shown_size(picture: Pixels) -> tuple[int, int]:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    scale = float(int(scale)) if scale >= 1 else scale
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fitted(pixels: Pixels, size: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(pixels)
    larger = size >= image.size
    return image.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.BOX)


def _place(
    sheet: Image.Image, left: int, width: int, title: str, image: Image.Image, lines: Lines
) -> None:
    """Paste a picture below its title and above its lines, centred in a column; texts are cut."""
    pen, below = ImageDraw.Draw(sheet), HEAD + image.height + GAP // 2
    sheet.paste(image, (left + (width - image.width) // 2, HEAD))
    texts = [(GAP // 2, 15, title, PALE)]
    texts += [(below + n * LINE, 13 if n else 17, *line) for n, line in enumerate(lines)]
    for top, size, text, colour in texts:
        shown = fitting(pen, text, width, size)
        pen.text((left + width / 2, top), shown, colour, font(size), anchor="ma")
