"""Random changes to a training picture that keep its class.

torchvision makes the changes, on Pillow images: for pictures this small, threads of tensor
operations cost more than they save (measured), and Pillow gives the same bytes on every machine.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, reduce
from threading import Lock
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.inputs import Batch
from headstart.base.errors import Mismatch, MissingPackage, SpecError, UnknownName
from headstart.base.values import fingerprint, to_plain

VERSION = 1  # raise it when the same square, settings and seed would give another view
HUE = 0.25  # share of the colour jitter's strength; more makes grass blue
ERASED = (124, 116, 104)  # the mean colour of ImageNet, RGB: "RE-M" of Zhong et al., section 4
MOST_VIEWS = 1000  # of an example; each is stored
GAP = 4  # pixels of white between the cells of a grid
WORDS = ("none", "auto")  # in place of changes
Flip = Literal["none", "horizontal", "vertical", "both"]
Square = NDArray[np.uint8]  # (S, S, 3), RGB

_generator = Lock()  # torchvision draws from torch's global generator, one view at a time


@dataclass(frozen=True)
class Augment:
    """Random changes to training pictures, all off by default.

    Switch on only changes that keep a picture's class: a "6" turned is a "9". Quarter turns come
    first, then the others in the order of the fields.
    """

    flip: Annotated[
        Flip,
        "mirror half of the views; left to right (horizontal), upside down (vertical), or both",
    ] = "none"
    quarter_turns: Annotated[bool, "turn by 0, 90, 180 or 270 degrees"] = False
    rotation: Annotated[
        float,
        "turn by up to this fraction of a full turn; 0 to 0.5, either way; corners are filled by "
        "reflection, as Keras' RandomRotation does",
    ] = 0.0
    resized_crop: Annotated[
        float,
        "cut out at least this share of the area, and resize it; 1 is none (aspect ratio 3/4 to "
        "4/3; Szegedy et al. 2015)",
    ] = 1.0
    colour_jitter: Annotated[
        float,
        "change brightness, contrast and saturation by up to this share, and hue by up to a "
        "quarter of it",
    ] = 0.0
    trivial_augment: Annotated[
        bool,
        "one change of random kind and strength per view (Müller and Hutter 2021)",
    ] = False
    random_erasing: Annotated[
        float,
        "probability that a rectangle is painted over with the mean colour (Zhong et al. 2017)",
    ] = 0.0
    views: Annotated[
        int,
        "augmented views of each picture, made once and stored, and drawn from in training as the "
        "picture itself is; 0 draws new ones in every epoch, which runs the frozen layers in every "
        "epoch",
    ] = 4

    def __post_init__(self) -> None:
        if self.flip not in get_args(Flip):
            raise SpecError(f"flip is one of {', '.join(get_args(Flip))}; got {self.flip!r}.")
        if not 0 <= self.rotation <= 0.5:
            raise SpecError(
                f"rotation is a fraction of a full turn from 0 to 0.5; got {self.rotation}. "
                f"For 30 degrees say {30 / 360:.3f}."
            )
        if not 0 < self.resized_crop <= 1:
            raise SpecError(
                f"resized_crop is the least share of the area that is kept, above 0 and up to 1 "
                f"(none); got {self.resized_crop}."
            )
        if not 0 <= self.colour_jitter <= 1:
            raise SpecError(f"colour_jitter is a share from 0 to 1; got {self.colour_jitter}.")
        if not 0 <= self.random_erasing <= 1:
            raise SpecError(
                f"random_erasing is a probability from 0 to 1; got {self.random_erasing}."
            )
        if not 0 <= self.views <= MOST_VIEWS:
            raise SpecError(
                f"views is how many are stored, up to {MOST_VIEWS:,}, or 0 for new ones; got "
                f"{self.views}."
            )

    @property
    def active(self) -> bool:
        """Whether a view can differ from its picture."""
        return replace(self, views=0) != Augment(views=0)

    def fingerprint(self) -> str:
        """Return a fingerprint of everything, except the seed, that decides a view."""
        settings = to_plain(self)
        del settings["views"]  # their number changes none of them
        return fingerprint("augment", VERSION, settings)

    def change(self, example: Batch, seed: int) -> Batch:
        """Return a view of one prepared picture, a batch of 1."""
        return {"pixels": self(example["pixels"][0], seed)[None]}

    def __call__(self, square: Square, seed: int) -> Square:
        """Return a view of a square, both (S, S, 3) uint8 RGB; the seed alone decides the changes.

        Returns the square itself if nothing is active. Leaves torch's global generator as it was.
        Raises Mismatch for a wrong shape or type, MissingPackage without torch and torchvision.
        """
        if square.dtype != np.uint8 or square.shape != (len(square), len(square), 3):
            raise Mismatch(
                f"An augmentation reads squares (S, S, 3) uint8 as an ImageInput makes them; "
                f"got {square.shape} {square.dtype}."
            )
        if not self.active:
            return square
        change = _built(self, len(square))
        import torch

        with _generator, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
            return np.array(change(Image.fromarray(square)))


@dataclass(frozen=True)
class AutoViews:
    """An augmentation that a run chooses by its own data; it stands in for one until then.

    views: of the augmentation that is chosen, as in `Augment`.

    >>> AutoViews().together(["flip_horizontal", "flip_vertical"]).flip
    'both'
    """

    views: int = Augment.views
    # Weak changes: one that does not help so will hardly help when it is stronger.
    changes: ClassVar[Mapping[str, Augment]] = {
        "flip_horizontal": Augment(flip="horizontal"),
        "flip_vertical": Augment(flip="vertical"),
        "quarter_turns": Augment(quarter_turns=True),
        "rotation": Augment(rotation=0.03),
        "resized_crop": Augment(resized_crop=0.6),
        "colour_jitter": Augment(colour_jitter=0.2),
    }

    def __post_init__(self) -> None:
        Augment(views=self.views)  # checks it

    @property
    def active(self) -> bool:
        return True

    def fingerprint(self) -> str:
        return fingerprint("augment", "auto")

    def together(self, names: Sequence[str]) -> Augment:
        """Return one augmentation with all these changes, none for no names."""
        return reduce(_both, (self.changes[name] for name in names), Augment(views=self.views))

    def change(self, example: Batch, seed: int) -> Batch:
        """Raise SpecError: a run replaces this value before it makes views."""
        raise SpecError("augment auto is chosen by a run: use `headstart train`, or name changes.")


def _both(a: Augment, b: Augment) -> Augment:
    flips = {a.flip, b.flip} - {"none"}
    both: Flip = "both" if flips else "none"
    return replace(
        a,
        flip=flips.pop() if len(flips) == 1 else both,
        quarter_turns=a.quarter_turns or b.quarter_turns,
        rotation=max(a.rotation, b.rotation),
        resized_crop=min(a.resized_crop, b.resized_crop),
        colour_jitter=max(a.colour_jitter, b.colour_jitter),
    )


def named_views(word: str, views: int) -> Augment | AutoViews:
    """Return what a word of WORDS stands for; raises UnknownName for another word."""
    if word not in WORDS:
        raise UnknownName("augmentation", word, WORDS)
    return AutoViews(views) if word == "auto" else Augment(views=views)


def view_grid(
    square: Square, augment: Augment, *, columns: int = 4, rows: int = 4, seed: int = 0
) -> NDArray[np.uint8]:
    """Draw the square, top left, and views of it with the seeds from `seed` on, as one picture.

    Returns (rows * (S + GAP) - GAP, columns * (S + GAP) - GAP, 3) uint8 RGB.
    """
    if min(columns, rows) < 1:
        raise SpecError(f"A grid has columns and rows; got columns={columns}, rows={rows}.")
    cells = [square, *(augment(square, (seed + i) % 2**63) for i in range(columns * rows - 1))]
    step = len(square) + GAP
    grid = np.full((rows * step - GAP, columns * step - GAP, 3), 255, np.uint8)
    for i, cell in enumerate(cells):
        top, left = (i // columns) * step, (i % columns) * step
        grid[top : top + len(cell), left : left + len(cell)] = cell
    return grid


CHANGES = frozenset(f.name for f in fields(Augment)) - {"views"}  # names of the changes' settings


@lru_cache(maxsize=32)
def _built(augment: Augment, size: int) -> Any:
    """Return the torchvision transform of a Pillow image, size x size."""
    try:
        from torchvision.transforms import v2
    except ImportError:
        raise MissingPackage("torchvision", purpose="Augmentation", extra="train") from None
    return v2.Compose(list(_steps(augment, size, v2)))


def _steps(augment: Augment, size: int, v2: Any) -> Iterator[Any]:
    if augment.quarter_turns:  # Pillow moves pixels here, without interpolation
        yield v2.RandomChoice([v2.RandomRotation((a, a)) for a in (0, 90, 180, 270)])
    if augment.flip in ("horizontal", "both"):
        yield v2.RandomHorizontalFlip()
    if augment.flip in ("vertical", "both"):
        yield v2.RandomVerticalFlip()
    if augment.rotation:
        yield v2.Pad(_reach(augment.rotation, size), padding_mode="symmetric")
        yield v2.RandomRotation(360 * augment.rotation, interpolation=v2.InterpolationMode.BILINEAR)
        yield v2.CenterCrop(size)
    if augment.resized_crop < 1:
        yield v2.RandomResizedCrop(size, scale=(augment.resized_crop, 1.0))
    if s := augment.colour_jitter:
        yield v2.ColorJitter(s, s, s, HUE * s)
    if augment.trivial_augment:
        yield v2.TrivialAugmentWide()
    if augment.random_erasing:
        yield v2.RandomApply([_erasing(v2)], p=augment.random_erasing)


def _reach(rotation: float, size: int) -> int:
    """Return by how many pixels, at most, the corners of a square leave it when it is turned."""
    angle = min(2 * math.pi * rotation, math.pi / 4)  # corners reach furthest at 45 degrees
    return math.ceil(size / 2 * (math.cos(angle) + math.sin(angle) - 1)) + 1  # 1: interpolation


def _erasing(v2: Any) -> Callable[[Image.Image], Image.Image]:
    """Return a change that paints by Pillow: torchvision's RandomErasing takes tensors only."""
    where = v2.RandomErasing(p=1.0)

    def erased(image: Image.Image) -> Image.Image:
        box = where.make_params([image])
        if box["v"] is not None:  # None: no rectangle fits
            left, top = box["j"], box["i"]
            image.paste(ERASED, (left, top, left + box["w"], top + box["h"]))
        return image

    return erased
