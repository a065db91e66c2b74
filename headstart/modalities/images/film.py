"""Write a picture, or a film of several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from headstart.base.atomic import write_bytes
from headstart.base.errors import SpecError
from headstart.modalities.images.decoding import Pixels
from headstart.modalities.images.encoding import encoded

FORMATS: dict[str, dict[str, Any]] = {  # WebP is smaller and keeps all colours
    ".gif": {"format": "GIF", "optimize": True},
    ".webp": {"format": "WEBP", "quality": 85, "method": 4},
}
FRAME_MS, LAST_MS = 80, 2000


def write_picture(path: Path, picture: Pixels, made_by: str) -> None:
    """Write a PNG of (H, W, 3); made_by: text that is stored in the file."""
    text = PngImagePlugin.PngInfo()
    text.add_text("headstart", made_by)
    write_bytes(path, encoded(Image.fromarray(picture), pnginfo=text))


def check_film(path: Path) -> None:
    """Raise SpecError unless the path ends in .gif or .webp."""
    if path.suffix.lower() not in FORMATS:
        raise SpecError(f"A film is a .gif or a .webp; got {path}. Name it so.")


def write_film(path: Path, frames: Sequence[Pixels]) -> None:
    """Write frames (H, W, 3) as an endless film that pauses on the last; raises SpecError."""
    check_film(path)
    first, *others = (Image.fromarray(frame) for frame in frames)
    film = encoded(
        first,
        save_all=True,
        append_images=others,
        duration=[FRAME_MS] * len(others) + [LAST_MS],
        loop=0,
        **FORMATS[path.suffix.lower()],
    )
    write_bytes(path, film)
