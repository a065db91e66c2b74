"""Preparation of pictures for a network that finds places in them: padded, and undone exactly."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.inputs import FRAME, INPUTS, Batch
from headstart.base.errors import SpecError
from headstart.base.values import fingerprint
from headstart.modalities.images import decoding
from headstart.modalities.images.inputs import MOST_SIZE, ImageInput, Interpolation

if TYPE_CHECKING:
    from headstart.backbones.in_graph import InGraph
    from headstart.base.onnx_nodes import Nodes

LONGEST = 512  # pixels of the longer side of the network's input, usually
STEP = 32  # the largest stride of a network: sides are its multiples
ROW = 6  # numbers of a detection: xmin, ymin, xmax, ymax, score, class
LETTERBOX_VERSION = 1  # raise it when the same pixels would give another rectangle


@dataclass(frozen=True)
class Placing:
    """Where an upright picture lies in the rectangle: its resized sides and its top left corner.

    >>> Placing.of((100, 50), (64, 64))
    Placing(size=(100, 50), width=64, height=32, left=0, top=16)
    """

    size: tuple[int, int]  # of the upright picture: width, height
    width: int
    height: int
    left: int
    top: int

    @classmethod
    def of(cls, size: tuple[int, int], into: tuple[int, int]) -> "Placing":
        scale = min(into[0] / size[0], into[1] / size[1])
        width, height = (max(1, min(b, round(scale * a))) for a, b in zip(size, into, strict=True))
        return cls(size, width, height, (into[0] - width) // 2, (into[1] - height) // 2)

    def numbers(self) -> NDArray[np.float64]:
        """(6,): left, top, upright pixels per pixel of the rectangle in x and in y, the size."""
        scale = self.size[0] / self.width, self.size[1] / self.height
        return np.array([self.left, self.top, *scale, *self.size], np.float64)

    def into(self, corners: NDArray[Any]) -> NDArray[np.float64]:
        """Return boxes (M, 4) of the upright picture as they lie in the rectangle."""
        left, top, x, y, *_ = self.numbers().tolist()
        return np.asarray(corners, np.float64) / [x, y, x, y] + [left, top, left, top]


def out_of(corners: NDArray[Any], frame: NDArray[Any]) -> NDArray[np.float64]:
    """Return boxes (N, K, 4) of rectangles in upright pixels, cut at the pictures' edges.

    frame: (N, 6), of each picture, as `Placing.numbers` gives them.

    >>> placing = Placing.of((100, 50), (64, 64))
    >>> boxes = np.array([[10.0, 20.0, 30.0, 40.0]])
    >>> out_of(placing.into(boxes)[None], placing.numbers()[None]).round(6).tolist()
    [[[10.0, 20.0, 30.0, 40.0]]]
    """
    begin, scale, size = (np.tile(frame[:, None, i : i + 2], 2) for i in (0, 2, 4))
    return np.asarray(np.clip((corners.astype(np.float64) - begin) * scale, 0, size))


@dataclass(frozen=True)
class LetterboxInput(ImageInput):
    """How a picture becomes a rectangle whose sides are multiples of 32: padded, never cut.

    width, height: of the rectangle, pixels. answers: whether what the network gives for an example
    are detections, rows of ROW numbers in pixels of the rectangle, which are brought back into
    upright pixels. mean, std, interpolation, bgr: as in
    `ImageInput`; size and resize are the longer side.
    """

    kind: ClassVar[str] = "letterboxed image"
    examples: ClassVar[str] = ImageInput.kind

    draft: bool = False  # boxes count the pixels of the file
    width: int = 512
    height: int = 384
    answers: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = self.width, self.height
        if any(n % STEP or not STEP <= n <= MOST_SIZE for n in sides):
            raise SpecError(
                f"The sides of the rectangle are multiples of {STEP} pixels up to {MOST_SIZE:,}; "
                f"got {self.width} x {self.height}."
            )

    @classmethod
    def like(
        cls, input: ImageInput, sizes: NDArray[np.int64], longest: int = 0
    ) -> "LetterboxInput":
        """Return the input for pictures of these sizes (N, 2), in a network's own colours.

        longest: of its sides, pixels; 0 for LONGEST.
        """
        width, height = sides_for(sizes, longest or LONGEST)
        how: Interpolation = input.interpolation
        own = cls(mean=input.mean, std=input.std, interpolation=how, bgr=input.bgr, fit="pad")
        long = max(width, height)
        return replace(own, width=width, height=height, size=long, resize=long)

    def changed(self, **settings: Any) -> "LetterboxInput":
        """Return the input itself: its size is chosen with the data."""
        return self

    @property
    def short_side(self) -> int | None:
        return None

    def placing(self, width: int, height: int) -> Placing:
        return Placing.of((width, height), (self.width, self.height))

    def prepare(self, raw: decoding.Pixels) -> Batch:
        placing = self.placing(raw.shape[1], raw.shape[0])
        return {"pixels": self(raw)[None], FRAME: placing.numbers()[None]}

    def in_graph(self, nodes: "Nodes", *, prepares: bool = True) -> "InGraph":
        from headstart.modalities.images.prepared_graph import letterbox_in_graph

        return letterbox_in_graph(nodes, self, prepares)

    def prepared(self, square: NDArray[np.uint8]) -> Batch:
        frame = np.array([0, 0, 1, 1, self.width, self.height], np.float64)
        return {"pixels": square[None], FRAME: frame[None]}

    def __call__(self, pixels: decoding.Pixels) -> NDArray[np.uint8]:
        """Return the rectangle (height, width, 3) of pixels (H, W, 3), both uint8 RGB."""
        own = self.placing(pixels.shape[1], pixels.shape[0])
        how = Image.Resampling[self.interpolation.upper()]
        whole = self.bare()
        resized = np.asarray(Image.fromarray(pixels).resize((own.width, own.height), how))
        whole[own.top : own.top + own.height, own.left : own.left + own.width] = resized
        return whole

    def bare(self) -> NDArray[np.uint8]:
        """Return a rectangle of the mean colour."""
        whole = np.empty((self.height, self.width, 3), np.uint8)
        whole[:] = [round(255 * m) for m in self.mean]
        return whole

    def settled(self, x: NDArray[Any], batch: Batch) -> NDArray[Any]:
        """Bring detections (N, K * ROW) of examples with a frame back into upright pixels."""
        if not self.answers or FRAME not in batch:
            return x
        rows = x.reshape(len(x), -1, ROW).astype(np.float64)
        rows[..., :4] = out_of(rows[..., :4], batch[FRAME])
        return rows.reshape(x.shape).astype(np.float32)

    def blank(self, n: int) -> Batch:
        return {"pixels": np.zeros((n, self.height, self.width, 3), np.uint8)}

    def golden(self) -> Batch:
        down, right = np.indices((self.height, self.width))
        channels = (3 * right + down, 5 * down + 2 * right, 7 * (right ^ down))
        return {"pixels": np.stack([c % 256 for c in channels], axis=2).astype(np.uint8)[None]}

    def describe(self) -> str:
        return f"{self.width} x {self.height} px (padded)"

    def fingerprint(self) -> str:
        return fingerprint(
            decoding.VERSION,
            LETTERBOX_VERSION,
            self.width,
            self.height,
            self.interpolation,
            self.mean,
            self.answers,
        )


INPUTS.add(LetterboxInput.kind, LetterboxInput)


def sides_for(sizes: NDArray[np.int64], longest: int) -> tuple[int, int]:
    """Return width and height for pictures of these sizes (N, 2), the longer side near `longest`.

    The proportions are those of the median picture.

    >>> sides_for(np.array([[640, 480]]), 512)
    (512, 384)
    """
    known = sizes[(sizes > 0).all(axis=1)]
    ratio = float(np.median(known[:, 0] / known[:, 1])) if len(known) else 1.0
    long = max(STEP, round(longest / STEP) * STEP)
    short = max(STEP, min(long, round(long * min(ratio, 1 / ratio) / STEP) * STEP))
    return (long, short) if ratio >= 1 else (short, long)
