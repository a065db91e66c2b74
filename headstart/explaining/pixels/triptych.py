"""Draw three pictures side by side: before, the amplified difference, after."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from headstart.base.atomic import write_bytes
from headstart.explaining.pixels.fooling import Fooling
from headstart.modalities.images.augment import png
from headstart.modalities.images.decoding import Pixels
from headstart.modalities.images.lettering import fitting, font
from headstart.models.predictor import Answer
from headstart.training.attack import LEVELS

SIDE = 320  # pixels of the longer side of each picture; small ones are enlarged by whole factors
GAP = 16
HEAD, LINE = 30, 22  # pixels: height of the heading, and of each line below
GREY = 128
INK, PALE, RED = "#1a1a1a", "#666666", "#b00020"

Lines = Sequence[tuple[str, str]]  # text and colour


def write_fooling(found: Fooling, file: Path) -> None:
    """Write the changed picture and its triptych: both or neither."""
    write_bytes(triptych_path(file), png(triptych(found)))
    try:
        write_bytes(file, found.file)
    except OSError:
        triptych_path(file).unlink(missing_ok=True)
        raise


def triptych_path(file: Path) -> Path:
    return file.with_name(f"{file.stem}-triptych.png")


def triptych(found: Fooling) -> Pixels:
    """Draw the picture before, the difference and after, with their predictions: (H, W, 3)."""
    times = amplification(found)
    size = _shown_size(found.picture)
    gone = RED if found.flipped else INK
    panels: list[tuple[str, Image.Image, Lines]] = [
        ("before", _fitted(found.picture, size), _said(found.before, INK)),
        (f"difference x {times}", _fitted(amplified(found, times), size), _changed(found)),
        ("after", _fitted(found.changed, size), _said(found.after, gone)),
    ]
    column = max(size[0], SIDE)
    height = HEAD + size[1] + max(len(lines) for *_, lines in panels) * LINE + 2 * GAP
    sheet = Image.new("RGB", (3 * column + 4 * GAP, height), "white")
    for n, (title, image, lines) in enumerate(panels):
        _place(sheet, GAP + n * (column + GAP), column, title, image, lines)
    return np.asarray(sheet)


def amplification(found: Fooling) -> int:
    """Return the factor by which the largest change can grow within the range of grey."""
    return max(1, (GREY - 1) // max(1, found.levels))


def amplified(found: Fooling, times: int) -> Pixels:
    """Return the changes around mid-grey: lighter where a value rose, darker where it fell."""
    change = found.changed.astype(np.int16) - found.picture
    return (GREY + times * change).clip(0, LEVELS).astype(np.uint8)


def _changed(found: Fooling) -> Lines:
    levels = f"{found.levels} of {LEVELS} levels" if found.levels != 1 else f"1 level of {LEVELS}"
    return ((f"at most {levels}", INK), (f"L2 {found.length:.3g} on the scale 0 to 1", PALE))


def _said(answer: Answer, colour: str) -> Lines:
    lines = [(answer.name, colour), (f"score {answer.score:.3f}", PALE)]
    if not answer.doubt:
        return lines
    what, _, numbers = answer.doubt.partition(" (")
    return [*lines, (f"but told as unknown: {what}", PALE), (numbers.rstrip(")"), PALE)]


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
    """Paste a picture below its title and above its lines, centred in a column."""
    draw = ImageDraw.Draw(sheet)
    _write(draw, left, GAP // 2, width, title, PALE, 15)
    sheet.paste(image, (left + (width - image.width) // 2, HEAD))
    for n, (text, colour) in enumerate(lines):
        top = HEAD + image.height + GAP // 2 + n * LINE
        _write(draw, left, top, width, text, colour, 13 if n else 17)


def _write(
    draw: ImageDraw.ImageDraw, left: int, top: int, width: int, text: str, colour: str, size: int
) -> None:
    """Write a line centred in a column, shortened to fit."""
    shown = fitting(draw, text, width, size)
    draw.text((left + width / 2, top), shown, colour, font(size), anchor="ma")
