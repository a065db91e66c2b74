"""The first layer of an image network: normalisation of uint8 pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) float32, minus mean, divided by std.

    mean, std: of each channel, on the scale 0..1. bgr: the output channels are reversed.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr: bool) -> None:
        super().__init__()
        self.bgr = bgr
        deviation = torch.tensor(std)
        scale, shift = 1 / (255 * deviation), -torch.tensor(mean) / deviation
        self.scale = nn.Buffer(scale[:, None, None], persistent=False)
        self.shift = nn.Buffer(shift[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2).to(self.scale.dtype)
        x = x * self.scale + self.shift
        return x[:, [2, 1, 0]] if self.bgr else x
