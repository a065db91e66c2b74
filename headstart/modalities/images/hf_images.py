"""Preparation of images as the file preprocessor_config.json of transformers describes it."""

import math
from collections.abc import Mapping
from typing import Any

from headstart.base.errors import SpecError
from headstart.modalities.images.inputs import Fit, ImageInput, Interpolation

FILTERS: tuple[Interpolation, ...] = ("nearest", "lanczos", "bilinear", "bicubic")  # Pillow's
WHOLE = 384  # ConvNeXt is given whole pictures from this side on, and crops below


def image_input(plain: Mapping[str, Any], own: int) -> ImageInput:
    """Return the input that a preprocessor_config.json describes. own: side for the network."""
    plain = _given(plain)
    size, resize, fit = _sizes(plain, own)
    normal = plain.get("do_normalize", True)
    return ImageInput(
        size=size,
        resize=max(size, resize),
        mean=tuple(plain.get("image_mean") or (0.5,) * 3) if normal else (0.0,) * 3,
        std=tuple(plain.get("image_std") or (0.5,) * 3) if normal else (1.0,) * 3,
        interpolation=FILTERS[int(plain.get("resample", 2))],
        fit=fit,
    )


def _given(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those that are null, at any depth: null means the usual value."""
    return {
        name: _given(value) if isinstance(value, Mapping) else value
        for name, value in plain.items()
        if value is not None
    }


def _sizes(plain: Mapping[str, Any], own: int) -> tuple[int, int, Fit]:
    """Return the side of the square, the shorter side before a crop, and how a picture fits."""
    asked = plain.get("size", own)
    crop = _side(plain.get("crop_size", own), own)
    share = plain.get("crop_pct")
    if isinstance(asked, Mapping) and "shortest_edge" in asked:
        shorter = int(asked["shortest_edge"])
        if not share or plain.get("do_center_crop"):
            return crop, shorter, "crop"
        if shorter >= WHOLE:
            return shorter, shorter, "squash"
        return shorter, math.floor(shorter / share), "crop"
    side = _side(asked, own)
    return (crop, side, "crop") if plain.get("do_center_crop") else (side, side, "squash")


def _side(size: Any, own: int) -> int:
    """Return the side of a square; raises SpecError for an oblong."""
    if isinstance(size, int):
        return size
    sides = set(size.values()) if isinstance(size, Mapping) else set(size)
    if len(sides) > 1:
        raise SpecError(f"Networks for images are given squares; this one is given {size}.")
    return int(next(iter(sides), 0) or own)
