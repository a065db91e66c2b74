"""Preprocessing with gradients: from a whole picture to the network's input square.

The forward pass calls `ImageInput`, so the squares are bitwise the same. `ImageInput` resizes one
axis after the other, rounding and clipping each time; the backward pass goes through the resize
weights as if nothing were rounded or clipped (Bengio et al. 2013, "straight through").
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from headstart.base.errors import DataError
from headstart.modalities.images.decoding import Pixels
from headstart.modalities.images.inputs import LONGEST, ImageInput

MOST = 32_768  # pixels of a side: 64 million in a picture no longer than 16 times its width
BLOCK = 512  # rows of the identity matrix that are resized at once

Weights = NDArray[np.float32]  # (S, side): weight of each picture row in each row of the square


@dataclass(frozen=True, eq=False)
class Squaring:
    """The function from changes of one picture to the network's input square.

    In a picture much larger than the square, blocks of `block` x `block` pixels change together,
    about as many as the resize averages, so that the work does not grow with the picture.

    down, across: resize weights (S, h) of rows of blocks and (S, w) of columns. rows, columns: the
    pixels that affect the square; the others can't change the prediction.
    """

    preprocess: ImageInput
    picture: Pixels
    down: Tensor
    across: Tensor
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    block: int = 1

    @cached_property
    def seen(self) -> Pixels:  # (h, w, 3)
        """The mean of each block that affects the square."""
        part = self.picture[np.ix_(self.rows, self.columns)]
        sums = _by_blocks(_by_blocks(part, self.block, 0), self.block, 1)
        counts = np.ones((len(self.rows), 1)), np.ones((1, len(self.columns)))
        tall, wide = (_by_blocks(c, self.block, axis) for axis, c in enumerate(counts))
        return np.rint(sums / (tall * wide)[..., None]).astype(np.uint8)

    def whole(self, seen: Pixels) -> Pixels:  # (h, w, 3) -> (H, W, 3)
        """Return the picture with these block means: each pixel changes as much as its block."""
        change = seen.astype(np.int16) - self.seen
        change = change.repeat(self.block, 0)[: len(self.rows)]
        change = change.repeat(self.block, 1)[:, : len(self.columns)]
        picture, place = self.picture.copy(), np.ix_(self.rows, self.columns)
        change += picture[place]
        picture[place] = change.clip(0, 255, out=change)
        return picture

    def __call__(self, seen: Tensor) -> Tensor:  # (N, h, w, 3) -> (N, S, S, 3)
        """Return the squares of pictures with these block means: whole levels, 0 to 255."""
        squares: Tensor = _Squared.apply(seen, self)
        return squares


def squaring(preprocess: ImageInput, picture: Pixels, largest: int = MOST) -> Squaring:
    """Return the Squaring of a picture; largest: limit of a block's side, pixels. Raises DataError
    if more than MOST pixels of a side are resized."""
    both = weights(preprocess, picture.shape[:2])
    rows, columns = (np.flatnonzero(w.any(axis=0)) for w in both)
    block = max(1, min(largest, len(rows) // preprocess.size, len(columns) // preprocess.size))
    down, across = (
        torch.from_numpy(_by_blocks(w[:, place], block, 1))
        for w, place in zip(both, (rows, columns), strict=True)
    )
    return Squaring(preprocess, picture, down, across, rows, columns, block)


def _by_blocks(values: NDArray[Any], block: int, axis: int) -> NDArray[Any]:
    """Return the sums of each `block` neighbours along the axis; the last block may be shorter."""
    kind = np.int32 if values.dtype == np.uint8 else values.dtype
    starts = np.arange(0, values.shape[axis], block)
    return np.add.reduceat(values, starts, axis=axis, dtype=kind)


def weights(preprocess: ImageInput, shape: tuple[int, ...]) -> tuple[Weights, Weights]:
    """Return the resize weights of rows (S, H) and columns (S, W): square = rows @ picture @
    columns.T, apart from rounding and the padding of `pad`, which has weight 0."""
    height, width = shape
    how = Image.Resampling[preprocess.interpolation.upper()]
    ways = _way(preprocess, height, width), _way(preprocess, width, height)
    down, across = (_weights(way, preprocess.size, how) for way in ways)
    return down, across


class _Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, seen: Tensor, one: Squaring) -> Tensor:
        ctx.one = one
        parts = seen.detach().cpu().to(torch.uint8).numpy()
        squares = np.stack([one.preprocess(one.whole(part)) for part in parts])
        return torch.from_numpy(squares).to(seen.device, torch.float32)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        down, across = ctx.one.down.to(slope.device), ctx.one.across.to(slope.device)
        back = down.T @ (slope.permute(0, 3, 1, 2) @ across)  # (N, 3, h, w)
        return back.permute(0, 2, 3, 1), None


@dataclass(frozen=True)
class _Way:
    """One axis: `length` pixels from `start` are resized to `resized`; pixel n of the square is
    pixel n + shift of the result, or padding."""

    start: int
    length: int
    side: int
    resized: int
    shift: int


def _way(preprocess: ImageInput, side: int, other: int) -> _Way:
    """Return how `ImageInput` crops and resizes one side of a picture; other: its other side."""
    size = preprocess.size
    if preprocess.fit == "squash":
        return _Way(0, side, side, size, 0)
    if preprocess.fit == "pad":
        resized = max(1, round(size * side / max(side, other)))
        return _Way(0, side, side, resized, -((size - resized) // 2))
    shorter = min(side, other)
    length = min(side, LONGEST * shorter)
    resized = preprocess.resize * length // shorter
    return _Way((side - length) // 2, length, side, resized, round((resized - size) / 2))


def _weights(way: _Way, size: int, how: Image.Resampling) -> Weights:
    """Measure the weights of Pillow's resize, by resizing an identity matrix."""
    if way.length > MOST:
        raise DataError(
            f"it is {way.length:,} pixels long; gradients are found for up to {MOST:,}. Cut it."
        )
    low, high = max(0, -way.shift), min(size, way.resized - way.shift)
    found = np.zeros((size, way.side), np.float32)
    for first in range(0, way.length, BLOCK):
        ones = np.eye(min(BLOCK, way.length - first), way.length, first, dtype=np.float32)
        resized = np.asarray(Image.fromarray(ones).resize((way.resized, len(ones)), how))
        place = way.start + first
        shown = resized[:, low + way.shift : high + way.shift]
        found[low:high, place : place + len(ones)] = shown.T
    return found
