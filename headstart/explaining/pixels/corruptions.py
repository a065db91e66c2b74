"""Everyday damage to pictures at five strengths: noise, blur, weather, compression.

The strengths are those of Hendrycks and Dietterich 2019, Benchmarking neural network robustness to
common corruptions and perturbations. Lengths in pixels, given there for a side of 224, are scaled
to the input's side. Fog is drawn differently here, and is white even over a dark picture.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.base.errors import SpecError, UnknownName
from headstart.base.store import digest

STRENGTHS = (1, 2, 3, 4, 5)
SIDE = 224  # pixels; the strengths were chosen for squares of this side
Square = NDArray[np.uint8]  # (S, S, 3), RGB: an input of a network
Light = NDArray[np.floating[Any]]  # (S, S, 3) or (S, S), 0 to 1
Numbers = tuple[float, ...]
Change = Callable[[Light, Numbers, np.random.Generator], Light]


@dataclass(frozen=True)
class Corruption:
    """family: noise, blur, weather or digital. change: (light, numbers of a strength, generator) ->
    light, which may leave 0 to 1. numbers: of each strength, mildest first.
    """

    family: str
    change: Change
    numbers: Sequence[Numbers]


def corrupt(square: Square, name: str, strength: int, seed: int = 0) -> Square:
    """Return a network's input (S, S, 3) uint8 with this corruption.

    The noise depends on the pixels and the seed alone: it is the same at every strength and at any
    position in a dataset. Raises UnknownName, or SpecError for a strength that is not 1 to 5.
    """
    if name not in CORRUPTIONS:
        raise UnknownName("corruption", name, CORRUPTIONS)
    if strength not in STRENGTHS:
        raise SpecError(f"A corruption has a strength from 1 to 5; got {strength}.")
    made, square = CORRUPTIONS[name], np.ascontiguousarray(square)
    picture = int.from_bytes(digest(square.tobytes()), "big")
    rng = np.random.default_rng([seed, picture, list(CORRUPTIONS).index(name)])
    light = made.change(square.astype(np.float32) / 255, made.numbers[strength - 1], rng)
    return _square(light)


def _square(light: Light) -> Square:
    return np.rint(light.clip(0, 1) * 255).astype(np.uint8)


def _gaussian_noise(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    return x + numbers[0] * rng.standard_normal(x.shape, np.float32)


def _shot_noise(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    """Add the noise of a camera that counts numbers[0] photons in a white pixel."""
    return (rng.poisson(x * numbers[0]) / numbers[0]).astype(np.float32)


def _defocus_blur(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    radius = numbers[0] * len(x) / SIDE
    across, down = _plane(radius + 1)
    disk = (radius + 0.5 - np.hypot(across, down)).clip(0, 1)
    return _convolved(x, disk / disk.sum())


def _motion_blur(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    return _smeared(x, numbers[0], numbers[1], rng.uniform(-45, 45))


def _fog(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    thick, decay = numbers
    return (x + thick * _clouds(len(x), decay, rng)[..., None]) / (1 + thick)


def _snow(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    """Draw two layers of slanting flakes over a whitened picture."""
    mean, spread, size, least, length, sigma, kept = numbers
    side = min(len(x), math.ceil(SIDE / size))
    flakes = _enlarged(rng.normal(mean, spread, (side, side)).astype(np.float32), len(x))
    flakes = np.where(flakes < least, 0, flakes).clip(0, 1)
    falling = _smeared(flakes, length, sigma, rng.uniform(-135, -45))[..., None]
    white = np.maximum(x, 1.5 * _grey(x) + 0.5)
    return kept * x + (1 - kept) * white + falling + falling[::-1, ::-1]


def _brightness(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    """Raise the V of HSV by numbers[0]."""
    value = x.max(axis=2, keepdims=True)
    raised = (value + numbers[0]).clip(0, 1)
    return np.where(value > 0, x * raised / np.maximum(value, 1e-6), raised)


def _contrast(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return mean + numbers[0] * (x - mean)


def _jpeg(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    file = io.BytesIO()
    Image.fromarray(_square(x)).save(file, "JPEG", quality=int(numbers[0]))
    return np.asarray(Image.open(file), np.float32) / 255


def _pixelate(x: Light, numbers: Numbers, rng: np.random.Generator) -> Light:
    side = max(1, int(numbers[0] * len(x)))
    small = Image.fromarray(_square(x)).resize((side, side), Image.Resampling.BOX)
    large = small.resize((len(x), len(x)), Image.Resampling.BOX)
    return np.asarray(large, np.float32) / 255


def _plane(reach: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the column and the row of each pixel, from the centre to at least `reach`."""
    steps = np.arange(-math.ceil(reach), math.ceil(reach) + 1)
    across, down = np.meshgrid(steps, steps)
    return across, down


def _smeared(x: Light, radius: float, sigma: float, degrees: float) -> Light:
    """Blur x in one direction by half of a Gaussian, as a moving camera does."""
    scale = len(x) / SIDE
    along = np.linspace(0, 2 * radius * scale, max(2, round(8 * radius * scale)))
    weights = np.exp(-(along**2) / (2 * (sigma * scale) ** 2))
    angle = math.radians(degrees)
    across, down = _plane(2 * radius * scale)
    kernel, middle = np.zeros(across.shape), len(across) // 2
    rows = np.rint(middle - along * math.sin(angle)).astype(int)
    columns = np.rint(middle + along * math.cos(angle)).astype(int)
    np.add.at(kernel, (rows, columns), weights)
    return _convolved(x, kernel / kernel.sum())


def _convolved(x: Light, kernel: NDArray[Any]) -> Light:
    """Convolve each channel with the kernel; the edges mirror the picture."""
    reach = len(kernel) // 2
    edges = [(reach, reach), (reach, reach), (0, 0)][: x.ndim]
    wide = np.pad(x, edges, mode="symmetric")
    height, width = wide.shape[:2]
    turned = np.fft.rfft2(kernel, (height, width)).reshape(height, -1, *[1] * (x.ndim - 2))
    mixed = np.fft.irfft2(np.fft.rfft2(wide, axes=(0, 1)) * turned, (height, width), axes=(0, 1))
    return mixed[2 * reach :, 2 * reach :].astype(np.float32)


def _clouds(side: int, decay: float, rng: np.random.Generator) -> Light:
    """Return fractal noise (side, side), 0 to 1; each octave is weaker by a factor of `decay`."""
    total = np.zeros((side, side), np.float32)
    for octave in range(1, math.ceil(math.log2(max(2, side))) + 1):
        coarse = rng.uniform(-1, 1, (2**octave, 2**octave)).astype(np.float32)
        total += _enlarged(coarse, side) / decay**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _enlarged(noise: Light, side: int) -> Light:
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


def _grey(x: Light) -> Light:
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's mode L
    return (x @ weights)[..., None]


def _one(*numbers: float) -> tuple[Numbers, ...]:
    return tuple((number,) for number in numbers)


CORRUPTIONS = {
    "gaussian_noise": Corruption("noise", _gaussian_noise, _one(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption("noise", _shot_noise, _one(60, 25, 12, 5, 3)),
    "defocus_blur": Corruption("blur", _defocus_blur, _one(3, 4, 6, 8, 10)),
    "motion_blur": Corruption(
        "blur", _motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    ),
    "snow": Corruption(
        "weather",
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "fog": Corruption("weather", _fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": Corruption("weather", _brightness, _one(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption("digital", _contrast, _one(0.4, 0.3, 0.2, 0.1, 0.05)),
    "jpeg_compression": Corruption("digital", _jpeg, _one(25, 18, 15, 10, 7)),
    "pixelate": Corruption("digital", _pixelate, _one(0.6, 0.5, 0.4, 0.3, 0.25)),
}
