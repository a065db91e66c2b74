"""How a network is trained, whatever it is: the settings of one phase."""

from dataclasses import dataclass
from typing import Literal, get_args

from headstart.errors import SpecError
from headstart.heads.head import (
    ClassWeights,
    Keep,
    Optimizer,
    check_counts,
    check_rate,
    check_word,
)

Schedule = Literal["constant", "cosine"]
Norms = Literal["frozen", "trained"]


@dataclass(frozen=True)
class Plan:
    """One phase of training; FineTune and the trained heads each make one.

    phase: its name in the history. first_epoch: how many epochs came before, so that they are
    numbered on. warmup: share of the steps in which the rate rises from 0. clip: the largest norm
    of all gradients together, 0 for no limit. patience: epochs without a better one on validation
    before the end, 0 for never. norms: whether normalisation layers go on learning statistics.
    """

    phase: str
    epochs: int
    first_epoch: int = 0
    batch_size: int = 32
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    schedule: Schedule = "constant"
    warmup: float = 0.0
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    clip: float = 0.0
    patience: int = 0
    keep: Keep = "best"
    norms: Norms = "frozen"
    class_weights: ClassWeights = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(epochs=self.epochs, batch_size=self.batch_size)
        check_rate("lr", self.lr)
        check_word("optimizer", self.optimizer, get_args(Optimizer))
        check_word("schedule", self.schedule, get_args(Schedule))
        check_word("keep", self.keep, get_args(Keep))
        check_word("norms", self.norms, get_args(Norms))
        if not 0 < self.layer_decay <= 1:
            raise SpecError(f"layer_decay is above 0 and up to 1; got {self.layer_decay}.")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is from 0 to below 1; got {getattr(self, name)}.")
        for name in ("weight_decay", "mixup", "clip", "patience"):
            if not getattr(self, name) >= 0:
                raise SpecError(f"{name} is 0 or more; got {getattr(self, name)}.")
