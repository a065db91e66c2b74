"""Seconds of an epoch of a head for boxes: activations stored, or computed for each batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.strides import Levels, levels_of
from headstart.base.runtime import Runtime
from headstart.data.content import prepared
from headstart.data.dataset import Dataset
from headstart.features.engine_table import FrozenPart, candidates, open_engine
from headstart.features.engines import TorchEngine
from headstart.features.extract import FeatureTable, Tap, extract
from headstart.modalities.images.letterbox import LetterboxInput
from headstart.targets.box_values import BoxLabels
from headstart.targets.boxes import BoxesTarget
from headstart.training.box_feed import PlacedRows
from headstart.training.box_head import BoxHead
from headstart.training.feeds import Feed, RowNumbers
from headstart.training.loop import seconds_of_step
from headstart.training.network import Network
from headstart.training.plan import Plan

BATCH = 8
RECOMPUTING = "computed in PyTorch"


@dataclass(frozen=True, eq=False)
class Rectangles:
    """Pictures as the network is given them, in memory, and their boxes there.

    backbone: with the input of these rectangles. pixels: (N, H, W, 3).
    """

    backbone: Backbone
    data: Dataset
    pixels: NDArray[np.uint8]

    @classmethod
    def of(cls, backbone: Backbone, data: Dataset, size: int, like: Dataset) -> "Rectangles":
        """Return the rectangles of `data`, in the proportions of the pictures of `like`."""
        assert isinstance(like.y, BoxLabels)
        input = backbone.card.input.finding(like.y.sizes, size)
        own = replace(backbone, card=replace(backbone.card, input=input))
        pixels = [prepared(input, file)["pixels"] for file in data.files]
        return cls(own, data, np.concatenate(pixels))

    @property
    def input(self) -> LetterboxInput:
        found = self.backbone.card.input
        assert isinstance(found, LetterboxInput)
        return found

    @property
    def boxes(self) -> BoxLabels:
        """The boxes of the upright pictures, as they lie in the rectangles."""
        each = (self.data.y[i] for i in range(len(self.data)))
        return BoxLabels.of(
            [replace(own, corners=self.input.placing(*own.size).into(own.corners)) for own in each]
        )


@dataclass(frozen=True, eq=False)
class Recomputed(Feed):
    """Rows whose activations are computed for every batch."""

    table: FeatureTable
    pixels: NDArray[np.uint8]
    compute: Callable[[dict[str, Any]], tuple[NDArray[np.float32], ...]]

    @property
    def labelled(self) -> FeatureTable:
        return self.table

    def batch(self, rows: RowNumbers, epoch: int) -> torch.Tensor:
        return torch.from_numpy(self.compute({"pixels": self.pixels[rows]})[1])


def epoch_seconds(own: Rectangles, store: hs.Store, rows: int) -> list[dict[str, object]]:
    """Return seconds of an epoch of so many rows, by where the activations come from."""
    levels, runtime = levels_of(own.backbone), Runtime(device="cpu").resolved()
    torch.set_num_threads(runtime.threads)
    table = _stored(own, levels, store)
    both = levels.both
    feeds: dict[str, Feed] = {"stored": PlacedRows((table,), cut=True)}
    plain = TorchEngine(own.backbone, "cpu", both, precision="float32", threads=runtime.threads)
    feeds[RECOMPUTING] = Recomputed(table, own.pixels, plain)
    for choice in candidates(own.backbone, runtime):
        engine = open_engine(FrozenPart(own.backbone, runtime, both), choice)
        engine({"pixels": own.pixels[:BATCH]})  # compiled, and checked
        feeds[f"computed by {choice.name}"] = Recomputed(table, own.pixels, engine)
    seconds = {name: _of_epoch(feed, levels, rows) for name, feed in feeds.items()}
    return [
        {
            "activations": name,
            "seconds of an epoch": round(s, 2),
            "ms a picture": round(1000 * s / rows, 1),
            "times stored": round(s / seconds["stored"], 2),
        }
        for name, s in seconds.items()
    ]


def _stored(own: Rectangles, levels: Levels, store: hs.Store) -> FeatureTable:
    tap = Tap(f"levels {levels.name}", (levels.size,), levels.both, "float16")
    table = extract(own.backbone, own.data, store=store, tap=tap)
    target = own.data.target.fitted(own.data.y)
    assert isinstance(target, BoxesTarget)
    canvas = own.input.width, own.input.height
    return replace(table, y=own.boxes, target=replace(target, canvas=canvas))


def _of_epoch(feed: Feed, levels: Levels, rows: int) -> float:
    target = feed.target
    assert isinstance(target, BoxesTarget)
    network = Network(torch.nn.Identity(), BoxHead(levels.shapes, len(target.names), 0), ())
    plan = Plan(epochs=1, batch_size=BATCH, lr=1e-3, clip=10.0)
    return seconds_of_step(network, plan, feed) * -(-rows // BATCH)
