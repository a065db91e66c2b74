"""Averages of the weights during training, which are judged and kept in place of the weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from headstart.training.network import Network, snapshot
from headstart.training.plan import Plan

Tensors = Mapping[str, Tensor]


@dataclass(eq=False)
class Averages:
    """The average of the weights of training: none, exponential, or of the last epochs.

    ema: its decay (Polyak and Juditsky 1992; the weights of early steps fade). last: the number of
    epochs whose final weights are averaged (Izmailov et al. 2018, Averaging weights leads to wider
    optima and better generalization). kept: of an exponential average, the average; of epochs,
    their weights, oldest first. Running statistics of norms that are trained are averaged as the
    weights are; counters take their latest value. Those of frozen norms never change.

    >>> Averages.of(Plan(ema=0.9)).decay(0), Averages.of(Plan(ema=0.9)).decay(1000)
    (0.1, 0.9)
    """

    ema: float = 0.0
    last: int = 0
    kept: list[dict[str, Tensor]] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan) -> "Averages":
        return cls(plan.ema, plan.average_last)

    def begin(self, learned: Tensors) -> None:
        """Start the exponential average at the weights before training."""
        self.kept = [snapshot(dict(learned))] if self.ema else []

    def after_step(self, learned: Tensors, step: int) -> None:
        """Add the weights after a step; step: the number of the steps before."""
        if not self.ema:
            return
        own, share = self.kept[0], 1 - self.decay(step)
        for name, tensor in learned.items():
            if tensor.is_floating_point():
                own[name].lerp_(tensor, share)
            else:
                own[name].copy_(tensor)

    def decay(self, step: int) -> float:
        """Return the decay in a step: lower in the first ones, when the start is worth little."""
        return min(self.ema, (1 + step) / (10 + step))

    def after_epoch(self, learned: Tensors) -> None:
        """Add the weights at the end of an epoch."""
        if self.last:
            self.kept = [*self.kept, snapshot(dict(learned))][-self.last :]

    @contextmanager
    def inside(self, network: Network) -> Iterator[None]:
        """Give the network the averages for a while, such as to judge them."""
        if not self.kept:
            yield
            return
        own = snapshot(network.learned())
        self.load_into(network)
        try:
            yield
        finally:
            network.load(own)

    def load_into(self, network: Network) -> None:
        """Give the network the averages, if there are any."""
        if self.kept:
            network.load(mean_of(self.kept))

    def number(self, epochs: int) -> int:
        """Return how many sets of weights are kept after some epochs."""
        return 1 if self.ema else min(self.last, epochs)

    def restore(self, kept: list[dict[str, Tensor]], learned: Tensors) -> None:
        """Go on from the weights of a checkpoint, laid out as in the network: a sum of products
        may be rounded otherwise in another memory order."""
        self.kept = [
            {name: torch.empty_like(learned[name]).copy_(t) for name, t in one.items()}
            for one in kept
        ]


def mean_of(kept: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of sets of weights; of counters, the latest."""
    mean = snapshot(kept[-1])
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            for other in kept[:-1]:
                tensor.add_(other[name])
            tensor.div_(len(kept))
    return mean
