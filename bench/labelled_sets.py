"""Labelled pictures out of packages, written as PNG files with a manifest: what two tools read.

    write_set("cells", folder, rows=100, seed=0)

writes folder/manifest.csv, with the columns path, label and part, and the pictures that it names.
Of `rows` rows, 15 of 85 are for validation; the test part is other rows, as many as TESTED. Parts
are drawn with the shares of the classes, except those of textures, whose test part is cut out of
other regions of the photographs.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from headstart.modalities.images.examples import solar_cells

TESTED = 600  # rows of the test part, at most
VALIDATION = 0.15 / 0.85  # of the rows outside the test part, as in a run
LEAST_TESTED = 60
TEXTURES = ("brick", "grass", "gravel", "moon", "ihc", "chelsea", "coffee", "hubble_deep_field")
PATCH = 32  # pixels a side
Picture = NDArray[np.uint8]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Pictures with a label each. apart: numbers of the rows that only a test part may have."""

    pictures: list[Picture]
    labels: list[str]
    apart: frozenset[int] = frozenset()


def cells() -> LabelledSet:
    """ELPV: 2,624 solar cells, functional or defective, grey, 300 px."""
    rows = solar_cells()
    return LabelledSet(_cells(), [rows.classes[label] for label in rows.labels])


def crystals() -> LabelledSet:
    """The same cells, monocrystalline or polycrystalline."""
    return LabelledSet(_cells(), list(solar_cells().strata))


def faces() -> LabelledSet:
    """scikit-image's 100 faces and 100 other pictures, grey, 25 px."""
    pictures = np.load(Path(skimage.data.__file__).parent / "lfw_subset.npy")
    return LabelledSet(list(_grey(pictures)), ["face"] * 100 + ["other"] * 100)


def digits() -> LabelledSet:
    """scikit-learn's 1,797 written digits, grey, 8 px."""
    found = load_digits()
    return LabelledSet(list(_grey(found.images / 16)), [f"digit {c}" for c in found.target])


def textures() -> LabelledSet:
    """Grey patches of eight photographs of scikit-image, of equal mean and contrast, turned.

    Those for the test come from the right halves of the photographs, the others from the left.
    """
    rng = np.random.default_rng(0)
    pictures, labels, apart = list[Picture](), list[str](), set[int]()
    for name in TEXTURES:
        for half in (0, 1):
            for patch in _patches(name, half, rng):
                if half:
                    apart.add(len(pictures))
                pictures.append(patch)
                labels.append(name)
    return LabelledSet(pictures, labels, frozenset(apart))


SETS: dict[str, Callable[[], LabelledSet]] = {
    made.__name__: made for made in (cells, crystals, faces, digits, textures)
}


def write_set(name: str, folder: Path, *, rows: int, seed: int) -> dict[str, int]:
    """Write a set's manifest and pictures; return the number of rows of each part.

    A set that has fewer rows gives as many as leave LEAST_TESTED for the test.
    """
    made = SETS[name]()
    part_of = parts(made, rows, np.random.default_rng(seed))
    folder.mkdir(parents=True)
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "label", "part"])
        for row, part in sorted(part_of.items()):
            lines.writerow([f"{row:05d}.png", made.labels[row], part])
            Image.fromarray(made.pictures[row]).save(folder / f"{row:05d}.png")
    return {part: list(part_of.values()).count(part) for part in ("train", "val", "test")}


def parts(made: LabelledSet, rows: int, rng: np.random.Generator) -> dict[int, str]:
    """Return the part of each row that is drawn."""
    labels = np.array(made.labels)
    free = np.array([i for i in range(len(labels)) if i not in made.apart])
    apart = np.array(sorted(made.apart), int)
    own = _spread(labels, free, rng)
    count = min(rows, len(own) - (0 if len(apart) else LEAST_TESTED))
    tested = _spread(labels, apart, rng) if len(apart) else own[count:]
    drawn = _spread(labels, own[:count], rng)
    val = round(count * VALIDATION)
    named = [(drawn[:val], "val"), (drawn[val:], "train"), (tested[:TESTED], "test")]
    return {int(row): part for some, part in named for row in some}


def _spread(labels: NDArray[np.str_], rows: Rows, rng: np.random.Generator) -> Rows:
    """Return the rows in an order of which each beginning has the shares of the classes."""
    order = rng.permutation(rows)
    place = np.empty(len(order))
    for name in np.unique(labels[order]):
        own = np.flatnonzero(labels[order] == name)
        place[own] = (np.arange(len(own)) + rng.random()) / len(own)
    return order[np.argsort(place, kind="stable")]


def _cells() -> list[Picture]:
    return [np.asarray(Image.open(path).convert("L")) for path in solar_cells().sources]


def _grey(pictures: NDArray[np.float64]) -> Picture:
    found: Picture = (255 * np.clip(pictures, 0, 1)).round().astype(np.uint8)
    return found


def _patches(name: str, half: int, rng: np.random.Generator) -> Iterator[Picture]:
    """Yield patches of the left (0) or right (1) half of a photograph."""
    folder = Path(skimage.data.__file__).parent
    path = next(p for p in (folder / f"{name}.png", folder / f"{name}.jpg") if p.exists())
    whole = np.asarray(Image.open(path).convert("L"), np.float32)
    middle = whole.shape[1] // 2
    side = whole[:, middle:] if half else whole[:, :middle]
    for _ in range(90 if half else 150):
        top, left = (int(rng.integers(0, n - PATCH)) for n in side.shape)
        patch = np.rot90(side[top : top + PATCH, left : left + PATCH], int(rng.integers(4)))
        even = (patch - patch.mean()) / (patch.std() + 1)
        yield np.ascontiguousarray(np.clip(even * 50 + 128, 0, 255).astype(np.uint8))
