"""Aerial pictures of trees that a package ships, for the demo of boxes; nothing is downloaded."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.inputs import Encoded
from headstart.base.errors import DataError
from headstart.data.boxes.parsing import parse_xml
from headstart.data.dataset import Dataset
from headstart.modalities.images.inputs import ImageInput
from headstart.targets.box_values import ExampleBoxes
from headstart.targets.boxes import BoxesTarget

FOLDER = Path("data")  # where make puts the archive
ARCHIVE = "deepforest-2.1.0-py3-none-any.whl"
FETCH = "pip download --no-deps deepforest==2.1.0 -d data"
PICTURES = {  # by the names of their annotations
    "2019_YELL_2_528000_4978000_image_crop2": "png",
    "2019_YELL_2_541000_4977000_image_crop": "png",
    "OSBS_029": "png",
}
TILE = 400  # pixels of the sides, nearly
VISIBLE = 0.4  # share of a box that must lie in a tile
LARGEST = 32 * 2**20  # bytes of any file in the archive


@dataclass(frozen=True, eq=False)
class TreeTile:
    """A part of a picture, (H, W, 3) uint8, and the boxes in it, (M, 4) pixels of the tile."""

    id: str
    pixels: NDArray[np.uint8]
    corners: NDArray[np.float32]


def tree_crowns(folder: Path = FOLDER) -> Dataset:
    """Return tiles of three aerial pictures of forests, a box around each crown of a tree.

    The pictures are cut into tiles of about TILE pixels, which do not overlap. folder: of the
    archive, where the data lies.

    Data: MIT licence, from the package deepforest. Weinstein, Marconi, Bohlman, Zare and White,
    "Individual Tree-Crown Detection in RGB Imagery Using Semi-Supervised Deep Learning Neural
    Networks", Remote Sensing 2019; pictures of the National Ecological Observatory Network. Raises
    DataError if the archive is not there or can't be read.
    """
    path = folder / ARCHIVE
    if not path.is_file():
        raise DataError(
            f"The pictures of trees are in the package deepforest, and there is no {path}. Fetch "
            f"it with: {FETCH} (in a clone: make data/{ARCHIVE})"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            tiles = [t for name in PICTURES for t in _tiles(archive, name)]
    except (OSError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Delete it and fetch it again.") from error
    encode = ImageInput().encode
    return Dataset(
        tuple(tile.id for tile in tiles),
        tuple(Encoded(tile.id, encode(tile.pixels)) for tile in tiles),
        tuple(_boxes(tile) for tile in tiles),
        BoxesTarget(("tree",)),
    )


def _boxes(tile: TreeTile) -> ExampleBoxes:
    height, width = tile.pixels.shape[:2]
    return ExampleBoxes(tile.corners, np.zeros(len(tile.corners)), size=(width, height))


def _tiles(archive: zipfile.ZipFile, name: str) -> Iterator[TreeTile]:
    """Yield the tiles of one picture, row by row."""
    picture = io.BytesIO(_member(archive, f"deepforest/data/{name}.{PICTURES[name]}"))
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    root = parse_xml(_member(archive, f"deepforest/data/{name}.xml"), f"{name}.xml")
    corners = np.array([[*_corners(one)] for one in root.iter("bndbox")], np.float64)
    height, width = pixels.shape[:2]
    for top, bottom in _cuts(height):
        for left, right in _cuts(width):
            own = _inside(corners, left, top, right, bottom)
            id = f"{name} {left},{top}"
            yield TreeTile(id, np.ascontiguousarray(pixels[top:bottom, left:right]), own)


def _corners(box: Element) -> Iterator[float]:
    """Yield the corners of a box of Pascal VOC, whose pixels count from 1, half-open."""
    for side in ("xmin", "ymin", "xmax", "ymax"):
        yield float(box.findtext(side, "")) - (side in ("xmin", "ymin"))


def _cuts(side: int) -> list[tuple[int, int]]:
    """Return the begins and ends of tiles along a side.

    >>> _cuts(1035)
    [(0, 345), (345, 690), (690, 1035)]
    """
    count = max(1, round(side / TILE))
    ends = [round(side * i / count) for i in range(count + 1)]
    return list(zip(ends, ends[1:], strict=False))


def _inside(
    corners: NDArray[np.float64], left: int, top: int, right: int, bottom: int
) -> NDArray[np.float32]:
    """Return the boxes of a tile in its own pixels, those left out that are hardly in it."""
    moved = corners - [left, top, left, top]
    cut = np.clip(moved, 0, [right - left, bottom - top] * 2)
    areas = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (cut, moved)]
    return np.asarray(cut[areas[0] >= VISIBLE * areas[1]], np.float32)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > LARGEST:
        raise ValueError(f"{name} has {info.file_size:,} bytes, and at most {LARGEST:,} are read")
    return archive.read(info)
