"""A network whose features are means over test-time views, with gradients."""

from torch import Tensor, nn

from headstart.modalities.images.averaged import AveragedViews, Change


class AveragedNetwork(nn.Module):
    """pixels (N, S, S, 3) -> the mean (N, D) of the features of their views.

    Crops are resized by PyTorch here and by Pillow in predictions, which differ by rounding.
    """

    def __init__(self, network: nn.Module, views: AveragedViews) -> None:
        super().__init__()
        self.network, self.views = network, views

    def forward(self, pixels: Tensor) -> Tensor:
        changes = list(self.views.changes(pixels.shape[1]))
        total: Tensor = self.network(changed(pixels, changes[0]))
        for change in changes[1:]:
            total = total + self.network(changed(pixels, change))
        return total / len(changes)


def changed(pixels: Tensor, change: Change) -> Tensor:
    """Return a view of squares (N, S, S, 3), differentiable in them."""
    size, side = pixels.shape[1], change.side
    if side < size:
        rows, columns = slice(change.top, change.top + side), slice(change.left, change.left + side)
        cut = pixels[:, rows, columns].permute(0, 3, 1, 2).float()
        resized = nn.functional.interpolate(cut, (size, size), mode="bilinear", antialias=True)
        pixels = resized.permute(0, 2, 3, 1)
    turned = pixels.rot90(change.turns, (1, 2))
    return (turned.flip(2) if change.mirrored else turned).contiguous()
