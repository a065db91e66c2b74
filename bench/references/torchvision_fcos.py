"""torchvision's FCOS on the frozen activations of a network, trained for so many seconds.

Tian et al. 2019, FCOS: fully convolutional one-stage object detection. Its own pyramid, heads,
losses and sizes; AdamW, batches of 4, mirrored at random, the rate falling by half a cosine. It is
given the rectangles that Headstart gives its network, and recomputes the frozen layers for each
batch, as its users do.
"""

import math
import time
from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from headstart.backbones.strides import Levels
from headstart.modalities.images.letterbox import LetterboxInput
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import BoxLabels, ExampleBoxes

WIDTH, BATCH, RATE, WARMUP, CLIP = 256, 4, 5e-4, 0.1, 10.0
LEAST_SCORE, MOST = 0.001, 300  # no other cut-off before average precision


class Pyramid(nn.Module):
    """A frozen network's activations of three strides, and FCOS' five levels of them."""

    out_channels = WIDTH

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.shapes, self.trunk = levels.shapes, levels.trunk
        more = LastLevelP6P7(WIDTH, WIDTH)
        self.pyramid = FeaturePyramidNetwork([c for c, _, _ in levels.shapes], WIDTH, more)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        with torch.no_grad():
            flat = self.trunk(x).split([math.prod(shape) for shape in self.shapes], dim=1)
        maps = [part.reshape(-1, *s) for part, s in zip(flat, self.shapes, strict=True)]
        found: OrderedDict[str, Tensor] = self.pyramid(OrderedDict(enumerate(maps)))
        return found


def new_fcos(levels: Levels, input: LetterboxInput, classes: int) -> FCOS:
    return FCOS(
        Pyramid(levels),
        classes,
        min_size=min(input.height, input.width),
        max_size=max(input.height, input.width),
        image_mean=list(input.mean),
        image_std=list(input.std),
        score_thresh=LEAST_SCORE,
        detections_per_img=MOST,
    )


def train_fcos(
    model: FCOS, pixels: NDArray[np.uint8], y: BoxLabels, seconds: float, seed: int = 0
) -> tuple[float, float]:
    """Train for so many seconds on rectangles (N, H, W, 3) and their boxes.

    Returns the epochs that there was time for, and the seconds.
    """
    torch.manual_seed(seed)
    rng, began, done = np.random.default_rng(seed), time.perf_counter(), 0
    model.train()
    model.backbone.trunk.eval()
    learned = [p for n, p in model.named_parameters() if not n.startswith("backbone.trunk")]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=1e-4)
    while (passed := (time.perf_counter() - began) / seconds) < 1:
        rate = min(1.0, (passed + 1e-3) / WARMUP) * 0.5 * (1 + math.cos(math.pi * passed))
        optimizer.param_groups[0]["lr"] = RATE * rate
        if done % len(pixels) < BATCH:
            order = rng.permutation(len(pixels))
        picked = np.take(order, range(done, done + BATCH), mode="wrap").tolist()
        given = [_mirrored(pixels[i], y[i], bool(rng.integers(2))) for i in picked]
        losses = model([x for x, _ in given], [boxes for _, boxes in given])
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(learned, CLIP)
        optimizer.step()
        done += BATCH
    return done / len(pixels), time.perf_counter() - began


def _mirrored(
    pixels: NDArray[np.uint8], own: ExampleBoxes, mirrored: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    corners = np.array(own.corners[~own.ignored], np.float32)
    if mirrored:
        pixels = pixels[:, ::-1]
        corners[:, [0, 2]] = pixels.shape[1] - corners[:, [2, 0]]
    boxes = torch.from_numpy(corners)
    labels = torch.from_numpy(np.array(own.labels[~own.ignored]))
    return _tensor(pixels), {"boxes": boxes, "labels": labels}


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255


@torch.inference_mode()
def detect(model: FCOS, pixels: NDArray[np.uint8]) -> list[Detections]:
    """The detections in rectangles, in their pixels."""
    model.eval()
    found = [model([_tensor(one)])[0] for one in pixels]
    return [Detections(f["boxes"].numpy(), f["scores"].numpy(), f["labels"].numpy()) for f in found]
