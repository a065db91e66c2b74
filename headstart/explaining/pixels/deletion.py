"""Deletion curves: how an answer falls as a map's most important pixels are hidden.

An answer is a number from 0 to 1, such as the score of a class (`Target.degree`).

Petsiuk, Das, Saenko 2018, RISE, section 4.3 ('deletion'). Hidden pixels show a strong blur of the
input square, not the paper's grey: the edges of grey holes would change a score.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.explaining.pixels.attribution import Attribution
from headstart.explaining.pixels.grad_model import Squares
from headstart.explaining.pixels.probed_model import ProbedModel
from headstart.explaining.saved import Areas, Curves, DeletionCurves

STEPS = 20  # of a curve; each hides the same number of pixels
DRAWN = 3  # random orders, whose scores are averaged
BLUR = 8  # the square's side over the sigma of the blur
CURVES = ("ours", "random", "centre")

Order = NDArray[np.float32]  # (S, S): the highest is hidden first


@dataclass(frozen=True, eq=False)
class Deletion:
    """Scores of a class or another answer at growing fractions of hidden pixels, (steps + 1,).

    ours: in the order of the map, most important first. random: the mean over random orders as
    coarse as the map. centre: from the middle outwards.
    """

    fractions: NDArray[np.float32]
    ours: NDArray[np.float32]
    random: NDArray[np.float32]
    centre: NDArray[np.float32]

    def area(self, name: str) -> float:
        """Return the area under a curve, 0 to 1; lower means that evidence is hidden sooner."""
        return area_under(getattr(self, name))

    def saved(self) -> DeletionCurves:
        """Return the areas and the curves, rounded to 4 digits."""
        areas = Areas(*(round(self.area(name), 4) for name in CURVES))
        curves = Curves(*(_rounded(getattr(self, name)) for name in CURVES))
        return DeletionCurves(areas, _rounded(self.fractions), curves)


def deletion(
    probed: ProbedModel,
    square: NDArray[np.uint8],
    found: Attribution,
    *,
    steps: int = STEPS,
    drawn: int = DRAWN,
    seed: int = 0,
) -> Deletion:
    """Return the curves of an input (S, S, 3) and its map; drawn: how many random orders."""
    side, places = len(square), min(len(found.values), len(square) // 4)
    orders = [found.over(side), _from_centre(side), *_random(side, places, drawn, seed)]
    curves = np.stack([curve(probed, square, order, found.number, steps) for order in orders])
    fractions = np.linspace(0, 1, steps + 1, dtype=np.float32)
    return Deletion(fractions, curves[0], curves[2:].mean(axis=0), curves[1])


def curve(
    probed: ProbedModel, square: NDArray[np.uint8], order: Order, number: int, steps: int = STEPS
) -> NDArray[np.float32]:  # (steps + 1,)
    """Return the score of a topic at each step of hiding the square in this order."""
    return probed.forward.degrees(hidings(square, order, steps), number)


def area_under(scores: NDArray[np.float32]) -> float:
    """Return the area under a curve with evenly spaced points from 0 to 1 (trapezoidal rule)."""
    return float((scores[1:] + scores[:-1]).mean() / 2)


def hidings(square: NDArray[np.uint8], order: Order, steps: int = STEPS) -> Squares:
    """Return the square (S, S, 3) at each step of hiding its pixels: (steps + 1, S, S, 3)."""
    first = np.argsort(-order, axis=None, kind="stable")
    shown, hidden = square.reshape(-1, 3), _blurred(square).reshape(-1, 3)
    stages = np.repeat(shown[None], steps + 1, axis=0)
    for step, stage in enumerate(stages):
        gone = first[: round(step / steps * len(first))]
        stage[gone] = hidden[gone]
    return stages.reshape(-1, *square.shape)


def _rounded(values: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _from_centre(side: int) -> Order:
    away = np.abs(np.arange(side, dtype=np.float32) - (side - 1) / 2)
    return -np.hypot(away[:, None], away[None, :])


def _random(side: int, places: int, drawn: int, seed: int) -> list[Order]:
    """Return noise maps with `places` values per side, enlarged like an attribution map."""
    rng = np.random.default_rng(seed)
    maps = rng.random((drawn, places, places), dtype=np.float32)
    return [Attribution(values, 0, "places", "").over(side) for values in maps]


def _blurred(square: NDArray[np.uint8]) -> NDArray[np.uint8]:  # (S, S, 3)
    """Return the square, blurred so much that no object can be recognised."""
    from PIL import Image, ImageFilter

    blur = ImageFilter.GaussianBlur(len(square) / BLUR)
    return np.asarray(Image.fromarray(square).filter(blur))
