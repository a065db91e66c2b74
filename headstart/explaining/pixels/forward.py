"""A GradModel run by the fastest engine, for work that needs no gradients."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones.inputs import Batch
from headstart.base.runtime import ON_CPU, Runtime
from headstart.explaining.pixels.grad_model import GradModel
from headstart.features.engine_table import FrozenPart, open_engine
from headstart.features.engines import Engine, Features
from headstart.targets.target import Outputs


@dataclass(frozen=True, eq=False)
class Forward:
    """Features, logits and scores of a stream of squares, (S, S, 3) uint8 each."""

    model: GradModel
    runtime: Runtime = ON_CPU

    @cached_property
    def engine(self) -> Engine:
        """The engine, opened on first use: exporting a graph takes seconds.

        On an accelerator the network itself runs, in float32, as it does for gradients.
        """
        model = self.model
        if model.device != "cpu":
            return _OnDevice(model)
        return open_engine(FrozenPart(model.backbone, self.runtime.resolved(), given=model.graph))

    def features(self, squares: Iterable[NDArray[np.uint8]]) -> Features:  # -> (N, D)
        views = self.model.input.averaged
        if views.count == 1 or self.model.device != "cpu":  # there the network averages
            return self._features_of(squares)
        x = self._features_of(view for square in squares for view in views(square))
        return x.reshape(-1, views.count, x.shape[1]).mean(axis=1)

    def _features_of(self, squares: Iterable[NDArray[np.uint8]]) -> Features:
        batches = _batched(squares, self.engine.batch)
        return np.concatenate([self.engine({"pixels": batch})[0] for batch in batches])

    @torch.inference_mode()
    def logits_of(self, features: Features) -> Tensor:  # (N, D) -> (N, C)
        logits: Tensor = self.model.head(torch.from_numpy(features).to(self.model.device))
        return logits.cpu()

    def logits(self, squares: Iterable[NDArray[np.uint8]]) -> Tensor:  # -> (N, C)
        return self.logits_of(self.features(squares))

    def scores(self, squares: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:  # -> (N, C)
        """Return probabilities."""
        return torch.softmax(self.logits(squares) / self.model.temperature, dim=1).numpy()

    def answers(self, squares: Iterable[NDArray[np.uint8]]) -> Outputs:
        return self.model.answers(self.logits(squares))

    def degrees(
        self, squares: Iterable[NDArray[np.uint8]], number: int
    ) -> NDArray[np.float32]:  # -> (N,)
        """Return how much the model answers of a topic, 0 to 1: a class's score, for example."""
        return self.model.target.degree(self.answers(squares), number).astype(np.float32)


@dataclass(eq=False)
class _OnDevice:
    """Runs the network of a GradModel where it is."""

    model: GradModel
    batch: int = 64

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> tuple[Features, ...]:
        pixels = torch.from_numpy(batch["pixels"]).to(self.model.device)
        return (self.model.network(pixels).float().cpu().numpy(),)


def _batched(squares: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield batches (up to `size`, S, S, 3)."""
    rest = iter(squares)
    while batch := list(islice(rest, size)):
        yield np.stack(batch)
