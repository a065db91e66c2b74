"""What travels with an exported model of pictures: known pictures, and a program that predicts."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Batch, only_array

SIZES = ((217, 301), (97, 64), (1, 40), (700, 33))  # height and width of known pictures


def known_inputs(golden: Batch) -> list[Batch]:
    """Return made pictures of several sizes, and a prepared one, `golden`."""
    square = only_array(golden)
    none = np.zeros((0, 1, 1, 3), np.uint8)
    pictures = [{"pixels": _picture(*size)[None]} for size in SIZES]
    return [*pictures, {"pixels": none, "prepared": square[:1]}]


def _picture(height: int, width: int) -> NDArray[np.uint8]:
    """Return ramps under noise, made by integers alone: the same everywhere."""
    down, right = np.indices((height, width))
    noise = np.random.RandomState(height).randint(0, 60, (height, width, 3))
    channels = (3 * right + down, 5 * down + 2 * right, 7 * (right ^ down))
    ramps = np.stack([c % 196 for c in channels], axis=2)
    return (ramps + noise).astype(np.uint8)


def standalone(engine: str) -> str:
    """Return the text of predict.py."""
    return Path(__file__).with_name(f"predict_{engine}.txt").read_text(encoding="utf-8")
