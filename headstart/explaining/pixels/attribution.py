"""What speaks for a class, and where: a map over the square that the network was given."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.explaining.pixels.method import Method


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each place of the square adds to the log odds of a class; below 0, it speaks against it.

    values: (h, w) float32, rows from the top. method: how it was told, never "best". layer: where
    in the network, or "pixels".
    """

    values: NDArray[np.float32]
    number: int
    method: Method
    layer: str

    def over(self, side: int) -> NDArray[np.float32]:
        """The same, smooth, at the square's own size: (side, side)."""
        grid = torch.from_numpy(self.values)[None, None]
        if len(self.values) > side // 2:  # single pixels are too fine to be seen
            grid = _blurred(grid, side / 40)
        how: dict[str, Any] = {"mode": "bicubic", "align_corners": False}
        return nn.functional.interpolate(grid, (side, side), **how)[0, 0].numpy()

    def smoothed(self, share: float) -> "Attribution":
        """Each place as a mean of those around it; sigma is this share of the square's side."""
        grid = torch.from_numpy(self.values)[None, None]
        values = _blurred(grid, share * len(self.values))[0, 0].numpy()
        return replace(self, values=values, layer=f"{self.layer}, smoothed")


def _blurred(grid: Tensor, sigma: float) -> Tensor:  # (1, 1, h, w)
    from torchvision.transforms.functional import gaussian_blur

    size = 2 * round(2 * sigma) + 1
    return gaussian_blur(grid, [size, size], [sigma, sigma])
