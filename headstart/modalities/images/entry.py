"""The first layer of a network for pictures: from whole levels to normalised channels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(N, H, W, 3) uint8, RGB -> (N, 3, H, W) float32, less the mean and divided by std.

    mean, std: a channel's, on the scale 0..1. bgr: channels come out the other way round.
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
