"""Preprocessing: from decoded pixels to the input square of a backbone.

The square holds integers; scaling by mean and std is the first step of the network's graph. Pillow
resizes everywhere: its result is the same on every machine, while the rounding of PyTorch's uint8
kernels depends on the processor, and a served bundle has no PyTorch.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.inputs import INPUTS, Batch, Input, given, input_class
from headstart.base.errors import DataError, SpecError
from headstart.base.notebook import html_image
from headstart.base.values import fingerprint, later
from headstart.modalities.images import decoding, formats
from headstart.modalities.images.averaged import AveragedViews
from headstart.modalities.images.encoding import encoded_picture, png

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones.in_graph import InGraph
    from headstart.base.onnx_nodes import Nodes
    from headstart.data.dataset import Dataset
    from headstart.modalities.images.survey import PictureSurveyor

VERSION = 1  # raise it when the same pixels would give another square
# Times the shorter side; a longer strip is first cut to its middle, since 1 x 10^6 pixels would
# otherwise be resized to 256 x 256 * 10^6 before the crop.
LONGEST = 16
SERVED_PIXELS = 25_000_000  # of a picture sent to a server: 75 MB as RGB in each decoding thread
MOST_SIZE = 4096  # pixels of a side
Fit = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class ImageInput(Input[decoding.Pixels]):
    """How a picture becomes the input square of a backbone.

    size: side of the square, pixels. resize: the shorter side before a centre crop, pixels.
    mean, std: of red, green and blue, on the scale 0..1. fit: "crop" resizes the shorter side to
    `resize` and cuts the centre; "squash" resizes the whole picture to the square; "pad" keeps its
    proportions and fills up with the mean colour. draft: large JPEGs may be decoded at 1/2, 1/4 or
    1/8 scale. bgr: the network takes the normalised channels in reverse order. averaged: the
    test-time views whose features are averaged; by default the square alone.
    """

    kind: ClassVar[str] = "image"
    noun: ClassVar[str] = "images"
    suffixes: ClassVar[Collection[str]] = formats.SUFFIXES
    unmeant: ClassVar[str] = formats.NOT_AN_IMAGE
    longest: ClassVar[int] = LONGEST

    size: int = 224
    resize: int = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"
    fit: Fit = "crop"
    draft: bool = True
    bgr: bool = False
    averaged: AveragedViews = field(default=AveragedViews(), metadata=later())

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise SpecError(f"fit is one of {', '.join(get_args(Fit))}; got {self.fit!r}.")
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise SpecError(f"interpolation is one of {known}; got {self.interpolation!r}.")
        if not 0 < self.size <= self.resize:
            raise SpecError(
                f"The shorter side is resized to at least the size that is cropped, one pixel or "
                f"more; got resize={self.resize}, size={self.size}."
            )
        if not (self.size <= MOST_SIZE and self.resize <= 2 * MOST_SIZE):
            raise SpecError(
                f"A network is given pictures of up to {MOST_SIZE:,} pixels a side, cropped from "
                f"up to {2 * MOST_SIZE:,}; got size={self.size}, resize={self.resize}."
            )
        right = len(self.mean) == len(self.std) == 3 and min(self.std) > 0
        if not right or not 0 <= min(self.mean) <= max(self.mean) <= 1:
            raise SpecError(
                f"mean and std are three numbers, mean from 0 to 1, std positive; got {self.mean}, "
                f"{self.std}."
            )

    def changed(self, **settings: Any) -> "ImageInput":
        """Return a copy with these fields changed; a new size scales `resize` too."""
        size = settings.get("size", self.size)
        scaled = max(size, round(self.resize * size / self.size))
        return replace(self, **{"resize": scaled, **settings})

    def fetch(self, where: Any) -> bytes:
        """Return the bytes of a picture file; the path may name a picture in an archive."""
        return decoding.read_file(Path(where))

    def encode(self, example: Any) -> bytes:
        """Return a PIL image or an array (H, W), (H, W, 3) or (H, W, 4) of uint8 as a PNG."""
        return encoded_picture(example)

    def check_served(self, data: bytes) -> None:
        width, height = decoding.claimed_size(data)
        if width * height > SERVED_PIXELS:
            raise DataError(
                f"has {width}x{height} pixels, and a server reads up to "
                f"{SERVED_PIXELS / 1e6:.0f} million: make it smaller"
            )

    def display(self, raw: decoding.Pixels, caption: str, width: int = 160) -> str:
        small = Image.fromarray(raw)
        small.thumbnail((2 * width, 2 * width))  # sharp on screens of two dots a pixel
        return html_image(png(np.asarray(small)), caption, width)

    def store_key(self, data: bytes, file: bytes) -> bytes:
        return decoding.store_key(data, file)

    def read(self, data: bytes) -> decoding.Pixels:
        """Decode a file, (H, W, 3), upright; a large JPEG at reduced size, if `draft` allows it."""
        return decoding.decode(data, short_side=self.short_side)

    def prepare(self, raw: decoding.Pixels) -> Batch:
        return {"pixels": self.averaged(self(raw))}

    @property
    def test_views(self) -> int:
        return self.averaged.count

    def averaging(self, views: Any, count: int = 0) -> "ImageInput":
        own = AveragedViews() if count == 1 else AveragedViews.of(views, count)
        return replace(self, averaged=own)

    def finding(self, sizes: NDArray[np.int64], longest: int) -> "ImageInput":
        """Return the letterboxed input in the proportions of pictures of these sizes."""
        kind: Any = input_class("letterboxed image")
        own: ImageInput = kind.like(self, sizes, longest)
        return own

    def in_graph(self, nodes: "Nodes", *, prepares: bool = True) -> "InGraph":
        from headstart.modalities.images.prepared_graph import picture_in_graph

        return picture_in_graph(nodes, self, prepares)

    def graph_inputs(self, raw: decoding.Pixels) -> Batch:
        return {"pixels": raw[None]}

    def examples_in(self, inputs: Batch) -> list[Batch]:
        pictures = [self.prepare(pixels) for pixels in inputs["pixels"]]
        return pictures + [self.prepared(square) for square in inputs.get("prepared", ())]

    def prepared(self, square: NDArray[np.uint8]) -> Batch:
        """Return what `prepare` does of the pixels that this square is made of."""
        return {"pixels": self.averaged(square)}

    def known_inputs(self) -> list[Batch]:
        from headstart.modalities.images.exported import known_inputs

        return known_inputs(given(self.golden()))

    def export_facts(self) -> dict[str, Any]:
        names = ("size", "resize", "interpolation", "fit")
        own = {name: getattr(self, name) for name in names}
        fill = [round(255 * m) for m in self.mean]
        sides = [self.blank(1)["pixels"].shape[i] for i in (2, 1)]
        facts = {"kind": self.kind, "sides": sides, "fill": fill, "short_side": self.short_side}
        return facts | own

    def standalone(self, engine: str) -> str:
        from headstart.modalities.images.exported import standalone

        return standalone(engine)

    def first_layer(self) -> "nn.Module":
        from headstart.modalities.images.entry import Normalise

        return Normalise(self.mean, self.std, self.bgr)

    def constants(self) -> tuple[Any, ...]:
        order = ("bgr",) if self.bgr else ()  # added only if set: older fingerprints stay valid
        return self.mean, self.std, *order

    def blank(self, n: int) -> Batch:
        return {"pixels": np.zeros((n, self.size, self.size, 3), np.uint8)}

    def golden(self) -> Batch:
        """Return three ramps of different slope, made by integer arithmetic."""
        down, right = np.indices((self.size, self.size))
        channels = (3 * right + down, 5 * down + 2 * right, 7 * (right ^ down))
        return {"pixels": np.stack([c % 256 for c in channels], axis=2).astype(np.uint8)[None]}

    def why_not(self, file: Path) -> str:
        return formats.why_not_decoded(file)

    def known_set(self, folder: Path) -> "Dataset | None":
        """Read a folder that holds CIFAR-10, the Oxford-IIIT pets or one of `public_sets`."""
        from headstart.modalities.images.archives import read_archive
        from headstart.modalities.images.public_sets import read_public_set

        return read_archive(folder) or read_public_set(folder)

    def surveyor(self) -> "PictureSurveyor":
        from headstart.modalities.images.survey import PictureSurveyor

        return PictureSurveyor()

    def describe(self) -> str:
        views = f", mean of {self.test_views} views" if self.test_views > 1 else ""
        return f"{self.size} px ({self.fit}{views})"

    def fingerprint(self) -> str:
        """Return a fingerprint of all that decides the square of a file, code versions included.

        mean, std and bgr are left out: the network applies them after the square.
        """
        return fingerprint(
            decoding.VERSION,
            VERSION,
            self.size,
            self.resize,
            self.interpolation,
            self.fit,
            self.mean if self.fit == "pad" else None,
            self.draft,
            *([self.averaged] if self.test_views > 1 else []),
        )

    @property
    def short_side(self) -> int | None:
        """The shorter side, in pixels, that `decode` must leave of a JPEG; None without draft."""
        if not self.draft:
            return None
        return self.resize if self.fit == "crop" else self.size

    def __call__(self, pixels: decoding.Pixels) -> NDArray[np.uint8]:
        """Return the square (size, size, 3) of pixels (H, W, 3), both uint8 RGB."""
        image = Image.fromarray(_middle(pixels) if self.fit == "crop" else pixels)
        how = Image.Resampling[self.interpolation.upper()]
        if self.fit == "squash":
            return np.asarray(image.resize((self.size, self.size), how))
        if self.fit == "pad":
            return self._padded(image, how)
        # rounded as in torchvision's Resize and CenterCrop, with which backbones were trained
        width, height = (self.resize * side // min(image.size) for side in image.size)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        resized = image.resize((width, height), how)
        return np.asarray(resized)[top : top + self.size, left : left + self.size]

    def _padded(self, image: Image.Image, how: Image.Resampling) -> NDArray[np.uint8]:
        width, height = (max(1, round(self.size * n / max(image.size))) for n in image.size)
        square = np.empty((self.size, self.size, 3), np.uint8)
        square[:] = [round(255 * m) for m in self.mean]
        left, top = (self.size - width) // 2, (self.size - height) // 2
        square[top : top + height, left : left + width] = np.asarray(
            image.resize((width, height), how)
        )
        return square


def of_pictures(input: Input[Any], what: str = "This is for") -> ImageInput:
    """Return the input if it is of pictures, or raise SpecError.

    what: start of the message, such as "headstart ideal draws".
    """
    if not isinstance(input, ImageInput):
        raise SpecError(f"{what} pictures; this model's input is {input.noun}.")
    return input


INPUTS.add(ImageInput.kind, ImageInput)


def _middle(pixels: decoding.Pixels) -> decoding.Pixels:
    height, width = pixels.shape[:2]
    longest = LONGEST * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return np.ascontiguousarray(pixels[top : top + longest, left : left + longest])
