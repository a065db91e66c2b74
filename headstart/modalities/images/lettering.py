"""Draw text on pictures."""

from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont


def fitting(
    pen: ImageDraw.ImageDraw, text: str, room: int, size: int, *, keep_end: bool = False
) -> str:
    """Return the text, shortened with an ellipsis to `room` pixels; keep_end: cut its start."""
    text = text.encode("utf-8", "replace").decode()
    if pen.textlength(text, font(size)) <= room:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = f"…{text[-kept:]}" if keep_end else f"{text[:kept].rstrip(' ,')}…"
        if pen.textlength(shorter, font(size)) <= room:
            return shorter
    return "…"


# Fonts with most of the world's letters, by the names under which systems install them.
INSTALLED = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")


@lru_cache(maxsize=64)
def world_font(size: int) -> ImageFont.FreeTypeFont | None:
    """Return a font of this machine with most of the world's letters; None without one."""
    own = font(size)
    if isinstance(own, ImageFont.FreeTypeFont) and own.getname()[0] == "DejaVu Sans":
        return own
    for name in INSTALLED:
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return None


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return matplotlib's DejaVu Sans, which has most of the world's letters, or a default font."""
    spec = find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)
