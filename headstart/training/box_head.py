"""The head that finds boxes: from activations of three strides to a heatmap and distances, and from
these to detections, as modules that train in PyTorch and are exported whole.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.base.runtime import seeded
from headstart.targets.box_loss import STRIDE, centres
from headstart.targets.boxes import FOUND, LEAST_SCORE, OVERLAP

WIDTH = 64  # channels of the pyramid (Lin et al. 2017, Feature pyramid networks)
GROUPS = 8  # of the group norms
RARE = 0.01  # probability of a box at a place before training
REACH = (-4.0, 6.0)  # limits of the logarithm of a distance, in places
AROUND = 2  # places to each side of a peak whose boxes are averaged with its own
LIKE = 0.6  # overlap with a peak's own box from which on a box counts, rising to 1 at 1


class BoxHead(nn.Module):
    """Rows of activations (N, D) of `Levels.shapes` -> (N, (C + 4) * h * w): heatmap, distances.

    kinds: C, the number of classes of boxes. The activations are standardised by `mean` and `scale`
    of each channel, which are constants.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int]], kinds: int, seed: int) -> None:
        super().__init__()
        self.shapes, self.kinds = tuple(shapes), kinds
        channels = [c for c, _, _ in shapes]
        self.mean = nn.ParameterList([_constant(torch.zeros(c, 1, 1)) for c in channels])
        self.scale = nn.ParameterList([_constant(torch.ones(c, 1, 1)) for c in channels])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeded(seed).initial_seed())
            self.lateral = nn.ModuleList([nn.Conv2d(c, WIDTH, 1) for c in channels])
            self.tower = nn.Sequential(*_block(), *_block())
            self.heat = nn.Conv2d(WIDTH, kinds, 3, padding=1)
            self.sides = nn.Conv2d(WIDTH, 4, 3, padding=1)
            nn.init.normal_(self.heat.weight, std=0.01)
            nn.init.normal_(self.sides.weight, std=0.01)
        for layer, value in ((self.heat, -math.log(1 / RARE - 1)), (self.sides, math.log(4.0))):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, value)

    def standardise(self, rows: Tensor) -> None:
        """Set the constants from rows of activations of training examples."""
        for level, mean, scale in zip(self.levels(rows), self.mean, self.scale, strict=True):
            own = level.double().transpose(0, 1).flatten(1)
            deviation, middle = torch.std_mean(own, dim=1, correction=0)
            mean.data.copy_(middle.float()[:, None, None])
            scale.data.copy_((1 / deviation.clamp(min=1e-6)).float()[:, None, None])

    def levels(self, rows: Tensor) -> list[Tensor]:
        """Return the activations (N, C, h, w) of each stride."""
        flat = rows.split([c * h * w for c, h, w in self.shapes], dim=1)
        return [part.reshape(-1, *shape) for part, shape in zip(flat, self.shapes, strict=True)]

    def places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the heatmap's logits (N, C, h, w) and the distances (N, 4, h, w) in pixels."""
        x: Tensor | None = None
        levels = self.levels(rows)
        for i in reversed(range(len(levels))):
            own = self.lateral[i]((levels[i] - self.mean[i]) * self.scale[i])
            size = self.shapes[i][1:]
            x = own if x is None else own + F.interpolate(x, size=size, mode="nearest")
        found = self.tower(x)
        return self.heat(found), self.sides(found).clamp(*REACH).exp() * STRIDE

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([part.flatten(1) for part in self.places(rows)], dim=1)

    def learning(self) -> "BoxHead":
        """Return a copy whose weights learn; the constants stay as they are."""
        own = copy.deepcopy(self)
        constants = {id(value) for value in (*own.mean, *own.scale)}
        for parameter in own.parameters():
            parameter.requires_grad_(id(parameter) not in constants)
        return own


class Leading(nn.Module):
    """The first columns of rows (N, M) -> (N, size): of rows with activations at a cut, too."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, rows: Tensor) -> Tensor:
        return rows[:, : self.size]


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def _block() -> tuple[nn.Module, ...]:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(GROUPS, WIDTH), nn.ReLU()


class Detector(nn.Module):
    """A network's trunk, the head, and detections: pixels -> (N, K * 6), K up to FOUND.

    A detection is xmin, ymin, xmax, ymax in pixels of the input, score and class; -1 for none.
    """

    def __init__(self, trunk: nn.Module, head: BoxHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        _, h, w = head.shapes[0]
        self.down: Tensor
        self.across: Tensor
        self.found = min(FOUND, head.kinds * h * w)
        self.edges = w * STRIDE, h * STRIDE
        x, y = centres(h, w)
        self.x, self.y = _constant(x.flatten()), _constant(y.flatten())
        step = torch.arange(-AROUND, AROUND + 1)
        down, across = torch.meshgrid(step, step, indexing="ij")
        self.register_buffer("down", down.flatten(), persistent=False)
        self.register_buffer("across", across.flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        heat, sides = self.head.places(self.trunk(x))
        return self.detections(heat, sides)

    def detections(self, heat: Tensor, sides: Tensor) -> Tensor:
        """Return the boxes at the peaks of a heatmap that are left by non-maximum suppression."""
        p = heat.sigmoid()
        p = p * (F.max_pool2d(p, 3, 1, 1) == p)
        scores, index = p.flatten(1).topk(self.found)
        places = self.x.shape[0]
        label = torch.div(index, places, rounding_mode="floor")
        boxes = self.averaged(heat.sigmoid(), sides, index, label)
        kinds = torch.arange(self.head.kinds, device=heat.device)[None, :, None]
        by_class = scores[:, None] * (label[:, None] == kinds)
        kept = torch.zeros_like(by_class)
        chosen = _Suppressed.apply(boxes, by_class, self.found)
        one = torch.ones_like(chosen[:, 0], dtype=kept.dtype)
        kept = kept.index_put((chosen[:, 0], chosen[:, 1], chosen[:, 2]), one).amax(dim=1)
        label = torch.where(kept > 0, label.to(boxes.dtype), torch.full_like(scores, -1.0))
        rows = torch.cat([boxes, (scores * kept)[..., None], label[..., None]], dim=2)
        return rows.flatten(1)

    def averaged(self, p: Tensor, sides: Tensor, index: Tensor, label: Tensor) -> Tensor:
        """Return boxes (N, K, 4) of peaks: means of the boxes of the places around, by score.

        index: (N, K) of the peaks in the flattened heatmap p. A box counts as far as it overlaps
        the peak's own (box voting: Gidaris and Komodakis 2015, Object detection via a multi-region
        and semantic segmentation-aware CNN model).
        """
        height, width = p.shape[-2:]
        place = index - label * (height * width)
        row = torch.div(place, width, rounding_mode="floor")
        rows = (row[..., None] + self.down).clamp(0, height - 1)
        columns = ((place - row * width)[..., None] + self.across).clamp(0, width - 1)
        near = rows * width + columns  # (N, K, M)
        boxes = self.boxes_at(sides, near.flatten(1)).unflatten(1, near.shape[1:])
        own = self.boxes_at(sides, place)[:, :, None]
        scores = p.flatten(1).gather(1, (label[..., None] * (height * width) + near).flatten(1))
        alike = ((_overlap(own, boxes) - LIKE) / (1 - LIKE)).clamp(min=0)
        weight = (scores.view_as(alike) * alike)[..., None]
        return (boxes * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1e-12)

    def boxes_at(self, sides: Tensor, place: Tensor) -> Tensor:
        """Return the boxes (N, K, 4) of places (N, K), within the input."""
        left, top, right, bottom = (
            sides.flatten(2).gather(2, place[:, None].expand(-1, 4, -1)).unbind(1)
        )
        x, y = self.x[place], self.y[place]
        w, h = self.edges
        ends = [(x - left).clamp(0, w), (y - top).clamp(0, h)]
        ends += [(x + right).clamp(0, w), (y + bottom).clamp(0, h)]
        return torch.stack(ends, dim=2)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes (..., 4), of more than no area."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low).clamp(min=0).prod(dim=-1)
    both = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1)
    return inter / (both - inter).clamp(min=1e-6)


class _Suppressed(torch.autograd.Function):
    """Non-maximum suppression within each class: boxes (N, K, 4), scores (N, C, K) -> (M, 3).

    Rows are example, class and box. It is ONNX's NonMaxSuppression in an exported graph. Scores up
    to LEAST_SCORE are none, in both.
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, most: int) -> Tensor:
        from torchvision.ops import nms

        found = [torch.zeros(0, 3, dtype=torch.int64, device=boxes.device)]
        for i, c in (scores > LEAST_SCORE).any(dim=2).nonzero().tolist():
            own = (scores[i, c] > LEAST_SCORE).nonzero()[:, 0]
            kept = own[nms(boxes[i, own], scores[i, c, own], OVERLAP)]
            found.append(torch.stack([torch.full_like(kept, i), torch.full_like(kept, c), kept], 1))
        return torch.cat(found)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, most: int) -> Any:
        def constant(value: Any, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor([value], dtype=dtype))

        limits = constant(most, torch.int64), constant(OVERLAP, torch.float32)
        least = constant(LEAST_SCORE, torch.float32)
        return g.op("NonMaxSuppression", boxes, scores, *limits, least)
