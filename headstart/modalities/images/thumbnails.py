"""Thumbnails as data URIs for HTML pages."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.inputs import Encoded, Input
from headstart.base.errors import HeadstartError
from headstart.base.location import Location
from headstart.data.content import read_checked
from headstart.data.dataset import CheckedFile
from headstart.modalities.images.augment import Augment
from headstart.modalities.images.box_drawing import DrawnBox, draw_boxes, resized
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.encoding import encoded
from headstart.modalities.images.inputs import ImageInput
from headstart.modalities.images.painting import painted

SIDE = (
    192  # pixels of a thumbnail's longer side; the page shows them smaller until they are enlarged
)
BOXED = 640  # pixels of the longer side of a picture with boxes
BOXED_LETTERS = 32  # heights of the letters beside them
TILE = 48  # pixels of a tile of the sheet for the embedding map
COLUMNS = 40  # tiles in a line of the sheet
SHEET_BYTES = 200_000_000  # of the files; a sheet of more is not made


class Album:
    """Thumbnails of a run's pictures, each made once. missing: paths of pictures that can't be read
    or have changed since they were checked. input: of the run's examples; those of another kind
    than pictures have excerpts in place of thumbnails."""

    def __init__(
        self, sources: Mapping[str, Path | CheckedFile], input: Input[Any] | None = None
    ) -> None:
        self.sources, self.input = sources, input
        self.missing = set[str]()
        self._made = dict[str, str]()

    def picture(self, path: str) -> str:
        """Return a data URI, or "" for a missing picture."""
        if path in self.missing or not self._of_pictures:
            return ""
        if path not in self._made:
            pixels = self._decoded(path)
            if pixels is None:
                return ""
            self._made[path] = uri(_fitted(Image.fromarray(pixels), SIDE))
        return self._made[path]

    def with_boxes(self, path: str, boxes: Sequence[DrawnBox], size: tuple[int, int]) -> str:
        """Return a data URI of a picture of BOXED pixels with boxes drawn on it, "" for a missing
        picture. size: width and height of the picture that the boxes are in pixels of."""
        pixels = self._decoded(path, BOXED)
        if pixels is None:
            return ""
        image = _fitted(Image.fromarray(pixels), BOXED)
        own = resized(boxes, max(image.size) / max(*size, 1))
        return uri(draw_boxes(np.asarray(image), own, BOXED, BOXED_LETTERS), quality=80)

    def excerpt(self, path: str) -> str:
        """Return the beginning of an example as text, "" for pictures and what can't be read."""
        if self.input is None or self._of_pictures or path in self.missing:
            return ""
        try:
            return self.input.excerpt(
                self.input.read(read_checked(self.input, self.sources[path])[0])
            )
        except (KeyError, OSError, ValueError, HeadstartError):
            self.missing.add(path)
            return ""

    @property
    def _of_pictures(self) -> bool:
        return self.input is None or isinstance(self.input, ImageInput)

    def square(self, path: str) -> NDArray[np.uint8] | None:
        """Return the whole picture squashed, (SIDE, SIDE, 3), or None."""
        pixels = self._decoded(path)
        return None if pixels is None else ImageInput(SIDE, SIDE, fit="squash")(pixels)

    def explained(
        self, path: str, preprocess: ImageInput, values: NDArray[np.float32]
    ) -> tuple[str, str]:
        """Return data URIs of the network's input and of a copy with the map `values` (h, w)
        painted over it, orange above 0 and blue below; ("", "") if the picture can't be read."""
        pixels = self._decoded(path, preprocess.resize)
        if pixels is None:
            return "", ""
        side = (SIDE, SIDE)
        square = Image.fromarray(preprocess(pixels)).resize(side, Image.Resampling.LANCZOS)
        large = np.asarray(Image.fromarray(values).resize(side, Image.Resampling.BICUBIC))
        return uri(square), uri(Image.fromarray(painted(np.asarray(square), large)), quality=85)

    def views(self, path: str, augment: Augment, n: int, seed: int) -> list[str]:
        """Return data URIs of the picture and n augmented views; [] if it can't be read.

        Raises MissingPackage without torchvision.
        """
        square = self.square(path)
        if square is None:
            return []
        cells = [square, *(augment(square, seed + i) for i in range(n))]
        return [uri(Image.fromarray(cell)) for cell in cells]

    def sheet(self, paths: Iterable[str]) -> "Sheet | None":
        """Return one picture of tiles; None if no file can be read or the files are too large."""
        listed = list(paths) if self._of_pictures else []
        if sum(self._size(path) for path in listed) > SHEET_BYTES:
            return None
        width, height = COLUMNS * TILE, -(-len(listed) // COLUMNS) * TILE
        sheet, held = Image.new("RGB", (width, max(height, 1)), (128, 128, 128)), list[bool]()
        for i, path in enumerate(listed):
            pixels = self._decoded(path, TILE)
            held.append(pixels is not None)
            if pixels is not None:
                tile = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BILINEAR)
                sheet.paste(tile, (i % COLUMNS * TILE, i // COLUMNS * TILE))
        return Sheet(uri(sheet, quality=55), tuple(held)) if any(held) else None

    def _size(self, path: str) -> int:
        try:
            source = CheckedFile.of(self.sources[path]).path
            if isinstance(source, Encoded):
                return len(source.data)
            if isinstance(source, Location):
                return max(0, source.size)
            return source.stat().st_size if isinstance(source, Path) else 0
        except (KeyError, OSError, ValueError):
            return 0

    def _decoded(self, path: str, side: int = SIDE) -> NDArray[np.uint8] | None:
        try:
            return decode(read_checked(ImageInput(), self.sources[path])[0], short_side=side)
        except (KeyError, OSError, ValueError, HeadstartError):
            self.missing.add(path)
            return None


@dataclass(frozen=True)
class Sheet:
    """uri: of a picture with COLUMNS tiles per line. held: whether tile i shows a picture."""

    uri: str
    held: tuple[bool, ...]


def uri(image: Image.Image, quality: int = 72) -> str:
    """Return the picture as a WebP in a data URI."""
    file = encoded(image, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(file).decode("ascii")


def _fitted(image: Image.Image, side: int) -> Any:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
