"""Views of a letterboxed picture that take its boxes along: mirrored, cropped, other colours."""

import math
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from headstart.backbones.inputs import Batch
from headstart.base.errors import SpecError
from headstart.base.values import fingerprint
from headstart.modalities.images.augment import Augment, Flip
from headstart.targets.box_values import ExampleBoxes

VISIBLE = 0.4  # share of a box that a crop must leave of it
LEAST = 1.0  # pixel of a side that must be left
BOX_VIEWS_VERSION = 1


@dataclass(frozen=True)
class Moved:
    """A change of a rectangle (width, height): a crop, resized to it, and flips.

    left, top, share: of the crop; share is that of each side.
    """

    left: float
    top: float
    share: float
    mirrored: bool
    upside_down: bool
    colours: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def picture(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the view of pixels (H, W, 3), of the same shape."""
        height, width = pixels.shape[:2]
        image = Image.fromarray(pixels)
        if self.share < 1:
            right, bottom = self.left + self.share * width, self.top + self.share * height
            box = self.left, self.top, right, bottom
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        kinds = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
        for kind, factor in zip(kinds, self.colours, strict=True):
            image = kind(image).enhance(factor) if factor != 1 else image
        changed = np.asarray(image)
        changed = changed[:, ::-1] if self.mirrored else changed
        return np.ascontiguousarray(changed[::-1] if self.upside_down else changed)

    def boxes(self, own: ExampleBoxes, width: int, height: int) -> ExampleBoxes:
        """Return the boxes of the view; those of which too little is visible are left out."""
        a = np.asarray(own.corners, np.float64) - [self.left, self.top] * 2
        a = a / self.share
        if self.mirrored:
            a[:, [0, 2]] = width - a[:, [2, 0]]
        if self.upside_down:
            a[:, [1, 3]] = height - a[:, [3, 1]]
        cut = np.clip(a, 0, [width, height] * 2)
        before, after = a[:, 2:] - a[:, :2], cut[:, 2:] - cut[:, :2]
        seen = after.prod(axis=1) >= VISIBLE * before.prod(axis=1)
        kept = seen & (after >= LEAST).all(axis=1)
        ours = own.take(kept)
        return ExampleBoxes(cut[kept], ours.labels, ours.crowd, ours.difficult, own.size)


@dataclass(frozen=True)
class BoxViews:
    """Random changes of pictures that their boxes follow, a `ViewSpec`.

    flip, resized_crop, colour_jitter, views: as in `Augment`; a crop keeps the rectangle's
    proportions.
    """

    flip: Flip = "horizontal"
    resized_crop: float = 0.5
    colour_jitter: float = 0.0
    views: int = 4

    @classmethod
    def of(cls, augment: Augment) -> "BoxViews":
        """Return the views of an augmentation; SpecError for changes that boxes can't follow."""
        if augment.quarter_turns or augment.rotation or augment.random_erasing:
            raise SpecError(
                "Boxes follow flips and crops of their picture, not turns and erasing: leave "
                "--quarter-turns, --rotation and --random-erasing out."
            )
        if augment.trivial_augment:
            raise SpecError("Boxes can't follow --trivial-augment: name --flip or --resized-crop.")
        if not augment.views:
            raise SpecError("Activations for boxes are stored: give --views, from 1 on.")
        return cls(augment.flip, augment.resized_crop, augment.colour_jitter, augment.views)

    @property
    def active(self) -> bool:
        return self.flip != "none" or self.resized_crop < 1 or self.colour_jitter > 0

    def fingerprint(self) -> str:
        made = self.flip, self.resized_crop, self.colour_jitter
        return fingerprint("boxes", BOX_VIEWS_VERSION, *made)

    def drawn(self, seed: int, width: int, height: int) -> Moved:
        """Return the change of this seed for a rectangle."""
        rng = np.random.default_rng(seed)
        share, x, y, *flips = rng.random(5).tolist()
        side = math.sqrt(self.resized_crop + share * (1 - self.resized_crop))
        jitter = 1 + self.colour_jitter * (2 * rng.random(3) - 1) if self.colour_jitter else None
        return Moved(
            left=x * (1 - side) * width,
            top=y * (1 - side) * height,
            share=side,
            mirrored=self.flip in ("horizontal", "both") and flips[0] < 0.5,
            upside_down=self.flip in ("vertical", "both") and flips[1] < 0.5,
            colours=(1.0, 1.0, 1.0) if jitter is None else (jitter[0], jitter[1], jitter[2]),
        )

    def moved(self, places: ExampleBoxes, seed: int, width: int, height: int) -> ExampleBoxes:
        """Return the boxes in the view of this seed of a rectangle."""
        return self.drawn(seed, width, height).boxes(places, width, height)

    def change(self, example: Batch, seed: int) -> Batch:
        """Return a view of one prepared picture, a batch of 1."""
        pixels = example["pixels"][0]
        moved = self.drawn(seed, pixels.shape[1], pixels.shape[0])
        return {**example, "pixels": moved.picture(pixels)[None]}


def followed(views: Any) -> BoxViews:
    """Return the changes of a `ViewSpec` that boxes follow; raises SpecError for others."""
    if not isinstance(views, Augment):
        raise SpecError("Boxes can't follow the changes of a function: name --flip or another one.")
    return BoxViews.of(views)


def usual_views(asked: Augment, given: Collection[str]) -> Augment:
    """Return the usual changes for boxes where nobody named any, or none.

    given: the names of the settings that the user chose. None is kept as a single view, so that a
    recipe shows it.
    """
    if asked != Augment():
        return asked
    if {f.name for f in fields(Augment)} & {*given} or "augment" in given:
        return replace(asked, views=1)
    own = BoxViews()
    return Augment(own.flip, resized_crop=own.resized_crop, views=own.views)
