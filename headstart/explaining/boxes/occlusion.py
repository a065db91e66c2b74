"""Occlusion maps of one detection: how far its score falls where a spot is hidden."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.explaining.boxes.opened import BATCH, OpenedDetector
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import overlaps

Doubles = NDArray[np.float64]
SPOTS = 9  # along the longer side of what is hidden: a third of the box each
AROUND = 1.0  # sides of the box, on each side of it, that are hidden too
LEAST = 6.0  # pixels between two spots, below which the network sees no difference
SAME = 0.5  # overlap from which on a detection of the class is the same one


@dataclass(frozen=True, eq=False)
class Occlusion:
    """How far the score of a detection falls where a spot is hidden, in a rectangle.

    values: (H, W) float32; below 0 where the score rises. spot: pixels from one spot to the next,
    which is the standard deviation of each.
    """

    values: NDArray[np.float32]
    spot: float


def occlusion(
    opened: OpenedDetector, pixels: NDArray[np.uint8], corners: Doubles, label: int, score: float
) -> Occlusion:
    """Hide soft spots in and around a box of a rectangle (H, W, 3), one after the other.

    Measured is the best score of a detection of the class that overlaps the box by SAME, 0 without
    one (Zeiler, Fergus 2014, section 4.2; of detections: Petsiuk et al. 2021, D-RISE). A spot takes
    the median colour, and has soft edges, since a hard edge adds a shape.
    """
    xs, ys, spot = _middles(corners, pixels.shape[1], pixels.shape[0])
    bells = _bells(ys, pixels.shape[0], spot), _bells(xs, pixels.shape[1], spot)
    scores = list[float]()
    for some in _batches(pixels, *bells):
        scores += [_score(one, corners, label) for one in opened.detections(some)]
    falls = score - np.array(scores).reshape(len(ys), len(xs))
    tall, wide = bells
    weight = tall.sum(axis=0)[:, None] * wide.sum(axis=0)[None]
    values = (tall.T @ falls @ wide) / np.maximum(weight, 1.0)
    return Occlusion(values.astype(np.float32), spot)


def _middles(corners: Doubles, width: int, height: int) -> tuple[Doubles, Doubles, float]:
    """Return the middles of the spots in x and in y, and their distance."""
    a, b, c, d = np.asarray(corners, np.float64).tolist()
    more = AROUND * max(c - a, d - b)
    spans = (max(0.0, a - more), min(width, c + more)), (max(0.0, b - more), min(height, d + more))
    spot = max(LEAST, max(high - low for low, high in spans) / SPOTS)

    def along(low: float, high: float) -> Doubles:
        count = max(1, round((high - low) / spot))
        return low + (np.arange(count) + 0.5) * (high - low) / count

    return along(*spans[0]), along(*spans[1]), spot


def _bells(middles: Doubles, side: int, spot: float) -> Doubles:  # -> (spots, side)
    away = np.arange(side)[None] + 0.5 - middles[:, None]
    return np.asarray(np.exp(-0.5 * (away / spot) ** 2))


def _batches(
    pixels: NDArray[np.uint8], tall: Doubles, wide: Doubles
) -> Iterator[NDArray[np.uint8]]:
    """Yield rectangles with one spot hidden each, row by row, a few at a time."""
    whole = pixels.astype(np.float64)
    blank = np.median(whole.reshape(-1, 3), axis=0) - whole
    masks = [(y, x) for y in tall for x in wide]
    for begin in range(0, len(masks), BATCH):
        some = [whole + (y[:, None] * x[None])[..., None] * blank for y, x in masks[begin:][:BATCH]]
        yield np.rint(np.stack(some)).astype(np.uint8)


def _score(found: Detections, corners: Doubles, label: int) -> float:
    own = found.labels == label
    same = overlaps(found.corners[own], np.asarray(corners)[None])[:, 0] >= SAME
    return float(found.scores[own][same].max(initial=0.0))
