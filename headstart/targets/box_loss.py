"""The loss of a head that says, at each place of a grid, which classes have a box there and how far
its four sides are: a heatmap (Zhou et al. 2019, Objects as points) and generalised IoU.

N is the number of examples, C of classes, M of boxes, (h, w) the grid of steps of STRIDE pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.targets.box_values import BoxLabels

STRIDE = 8  # pixels of the input per place of the grid
SPREAD = 0.09  # of a box's sides: the deviation of its bell in the heatmap (as TTFNet)
LEAST_SPREAD = 0.5  # places
NEAR = 0.3  # of the bell's height: places from there on learn the box's sides
# Weight of the sides beside the heatmap. With 1, 16 epochs on blood cells ended at an average
# precision of .470 on validation, .460 at an overlap of .75; with 4 at .499 and .542.
SIDES = 4.0
CLIP = 1e-4  # of probabilities in the logarithm
AT_ONCE = 2**23  # values of a map of each box that are computed together: 32 MB
PADDED, REAL, IGNORED = 0.0, 1.0, 2.0  # the last column of packed boxes


def packed_boxes(y: BoxLabels) -> Tensor:
    """Return the boxes of N examples as (N, M, 6): corners, class, and REAL, IGNORED or PADDED."""
    wide = int(np.diff(y.offsets).max(initial=0))
    out: NDArray[np.float32] = np.zeros((len(y), wide, 6), np.float32)
    place = np.arange(len(y.boxes)) - y.offsets[y.rows]
    own = np.where(y.boxes.ignored, IGNORED, REAL)
    out[y.rows, place] = np.column_stack([y.boxes.corners, y.boxes.labels, own])
    return torch.from_numpy(out)


def centres(h: int, w: int) -> tuple[Tensor, Tensor]:
    """Return x and y (h, w) of the middles of the grid's places, in pixels."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return x * STRIDE + STRIDE / 2, y * STRIDE + STRIDE / 2


def box_losses(heat: Tensor, sides: Tensor, boxes: Tensor, typical: float) -> Tensor:
    """Return (N,) losses.

    heat: (N, C, h, w) logits. sides: (N, 4, h, w) distances to the left, top, right and bottom, in
    pixels. boxes: of `packed_boxes`. typical: the mean number of boxes in an example, by which the
    sums are divided, so that an example counts as its boxes do.
    """
    _, _, h, w = heat.shape
    size = max(1, AT_ONCE // max(1, boxes.shape[1] * h * w))
    parts = zip(heat.split(size), sides.split(size), boxes.split(size), strict=True)
    return torch.cat([_losses(*part) for part in parts]) / max(typical, 1.0)


def _losses(heat: Tensor, sides: Tensor, boxes: Tensor) -> Tensor:
    """Return (N,) losses of some examples, not divided."""
    n, _, h, w = heat.shape
    x, y = (c.to(heat.device) for c in centres(h, w))
    if not boxes.shape[1]:  # no example has a box
        boxes = torch.zeros(n, 1, 6, device=heat.device)
    x0, y0, x1, y1, label, how = boxes.unbind(2)
    real = (how == REAL)[:, :, None, None]
    bell, own = _bells(x, y, boxes[:, :, :4], real)
    wanted = torch.zeros_like(heat)
    index = label.long()[:, :, None, None].expand_as(bell)
    wanted = wanted.scatter_reduce(1, index, bell, "amax")
    ignored = _inside(x, y, boxes[:, :, :4]) & (how == IGNORED)[:, :, None, None]
    counted = ~ignored.any(dim=1, keepdim=True)
    focal = _focal(heat, wanted, counted)
    return focal + SIDES * _of_sides(sides, x, y, boxes, bell, own)


def _inside(x: Tensor, y: Tensor, boxes: Tensor) -> Tensor:
    x0, y0, x1, y1 = (side[:, :, None, None] for side in boxes.unbind(2))
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def _bells(x: Tensor, y: Tensor, boxes: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return each box's bell (N, M, h, w), 1 at its middle, and the places that learn its sides."""
    h, w = x.shape
    x0, y0, x1, y1 = (side[:, :, None, None] for side in boxes.unbind(2))
    column = ((x0 + x1) / 2 / STRIDE).floor().clamp(0, w - 1)
    row = ((y0 + y1) / 2 / STRIDE).floor().clamp(0, h - 1)
    middle_x, middle_y = column * STRIDE + STRIDE / 2, row * STRIDE + STRIDE / 2
    wide = ((x1 - x0) * SPREAD).clamp(min=LEAST_SPREAD * STRIDE)
    high = ((y1 - y0) * SPREAD).clamp(min=LEAST_SPREAD * STRIDE)
    square = ((x - middle_x) / wide) ** 2 + ((y - middle_y) / high) ** 2
    bell = torch.exp(-square / 2) * real
    middle = (x == middle_x) & (y == middle_y)
    return bell, ((bell > NEAR) & _inside(x, y, boxes) | middle) & real


def _focal(heat: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """Return (N,) the focal loss of a heatmap whose bells are half right (Law and Deng 2018)."""
    p = heat.sigmoid().clamp(CLIP, 1 - CLIP)
    right = -((1 - p) ** 2) * p.log()
    wrong = -((1 - wanted) ** 4) * p**2 * (1 - p).log()
    return (torch.where(wanted == 1, right, wrong) * counted).sum(dim=(1, 2, 3))


def _of_sides(
    sides: Tensor, x: Tensor, y: Tensor, boxes: Tensor, bell: Tensor, own: Tensor
) -> Tensor:
    """Return (N,) sums over the boxes of 1 - generalised IoU (Rezatofighi et al. 2019).

    A place that two boxes share learns the smaller one; a box's places count by its bell, together
    as 1.
    """
    corners = boxes[:, :, :4]
    areas = (corners[:, :, 2] - corners[:, :, 0]) * (corners[:, :, 3] - corners[:, :, 1])
    least = torch.where(own, areas[:, :, None, None], torch.inf)
    smallest = least.argmin(dim=1)  # (N, h, w)
    taken = own.any(dim=1)
    weight = bell.gather(1, smallest[:, None])[:, 0] * taken
    n, m = boxes.shape[:2]
    flat = smallest.flatten(1)
    total = torch.zeros(n, m, device=sides.device).scatter_add(1, flat, weight.flatten(1))
    weight = weight / total.gather(1, flat).clamp(min=1e-9).view_as(weight)
    true = corners.gather(1, flat[..., None].expand(-1, -1, 4)).transpose(1, 2).view_as(sides)
    left, top, right, bottom = sides.unbind(1)
    found = torch.stack([x - left, y - top, x + right, y + bottom], 1)
    return ((1 - _generalised(found, true)) * weight).sum(dim=(1, 2))


def _generalised(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU of boxes (N, 4, h, w), -1 to 1, 0 for boxes without an area."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - inter
    low, high = torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:])
    hull = (high - low).prod(dim=1)
    return inter / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
