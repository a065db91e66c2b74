"""An attribution map: how much each part of the network's input raises an answer."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.explaining.pixels.method import Method

GRID = 28  # values per side of a saved map
LEVELS = 127  # of a saved map, on either side of 0


@dataclass(frozen=True, eq=False)
class Attribution:
    """The contribution of each position of the input to the evidence (`Target.evidence`), such as
    the log odds of a class; may be negative.

    values: (h, w) float32, rows from the top. number: of the topic. method: how the map was made,
    never "best". layer: name of the probed layer, or "pixels".
    """

    values: NDArray[np.float32]
    number: int
    method: Method
    layer: str

    def over(self, side: int) -> NDArray[np.float32]:
        """Return the map enlarged smoothly to the size of the network's input: (side, side)."""
        grid = torch.from_numpy(self.values)[None, None]
        if len(self.values) > side // 2:  # single pixels are too fine to see
            grid = _blurred(grid, side / 40)
        how: dict[str, Any] = {"mode": "bicubic", "align_corners": False}
        return nn.functional.interpolate(grid, (side, side), **how)[0, 0].numpy()

    def smoothed(self, share: float) -> "Attribution":
        """Return the map after a Gaussian blur; share: sigma, as a share of the map's side."""
        grid = torch.from_numpy(self.values)[None, None]
        values = _blurred(grid, share * len(self.values))[0, 0].numpy()
        return replace(self, values=values, layer=f"{self.layer}, smoothed")

    def quantised(self) -> tuple[tuple[int, ...], ...]:
        """Return the map (GRID, GRID) as integers; the largest magnitude becomes LEVELS."""
        grid = torch.from_numpy(self.over(max(GRID, len(self.values))))[None]
        small = nn.functional.adaptive_avg_pool2d(grid, GRID)[0].numpy()
        scaled = np.rint(small / max(float(np.abs(small).max()), 1e-12) * LEVELS).astype(int)
        return tuple(map(tuple, scaled.tolist()))


def _blurred(grid: Tensor, sigma: float) -> Tensor:  # (1, 1, h, w)
    from scipy.ndimage import gaussian_filter  # torchvision's takes seconds to import

    blurred = gaussian_filter(grid[0, 0].numpy(), sigma, mode="mirror", radius=round(2 * sigma))
    return torch.from_numpy(blurred)[None, None]
