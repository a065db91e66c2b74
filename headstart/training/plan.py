"""How a network is trained, whatever it is: the settings of one phase."""

from dataclasses import dataclass
from typing import Literal, get_args

from headstart.base.errors import SpecError
from headstart.base.values import check_seed
from headstart.heads.head import (
    MOST,
    ClassWeights,
    Keep,
    Optimizer,
    check_counts,
    check_rate,
    check_word,
)

Schedule = Literal["constant", "cosine"]
Norms = Literal["frozen", "trained"]
MOSTS = {"weight_decay": 1000, "mixup": 1000, "clip": MOST, "patience": MOST}


@dataclass(frozen=True)
class Plan:
    """One phase of training; the trained heads make one, and FineTune is one.

    epochs: passes over the training rows.
    batch_size: rows a step.
    optimizer: what moves the weights.
    lr: rate of the head; 0 is a tenth of the head's own in the first phase.
    schedule: constant, or half a cosine down to 0.
    warmup: share of the steps in which the rate rises from 0.
    layer_decay: each block learns this much slower than the one above it.
    weight_decay: pulls weights to 0, but not those of norms, nor biases.
    label_smoothing: share of every label that is spread over all classes.
    mixup: strength of blending pairs of examples; 0 is none.
    clip: largest norm of all gradients together; 0 is no limit.
    patience: epochs without a better one on validation before the end; 0 goes on.
    keep: the epoch that was best on validation, or the last.
    norms: whether thawed normalisation layers go on learning statistics.
    class_weights: balanced lets every class weigh alike.
    adversarial: train on the worst change of each picture within this share of the pixels' range,
        such as 2/255; 0 is none.
    adversarial_rise: share of the steps in which it rises from 0; all of it at once would wipe out
        what the network knows.
    adversarial_steps: of the search for the worst change; 1 is fast (Wong et al. 2020), 7 usual
        (Madry et al. 2018).
    seed: another seed gives another order of rows.
    """

    epochs: int = 10
    batch_size: int = 32
    optimizer: Optimizer = "adamw"
    lr: float = 0.0
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    mixup: float = 0.0
    clip: float = 0.0
    patience: int = 0
    keep: Keep = "best"
    norms: Norms = "frozen"
    class_weights: ClassWeights = "none"
    adversarial: float = 0.0
    adversarial_rise: float = 0.6
    adversarial_steps: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(
            epochs=self.epochs,
            batch_size=self.batch_size,
            adversarial_steps=self.adversarial_steps,
        )
        check_seed(self.seed)
        if self.lr != 0:
            check_rate("lr", self.lr)
        check_word("optimizer", self.optimizer, get_args(Optimizer))
        check_word("schedule", self.schedule, get_args(Schedule))
        check_word("keep", self.keep, get_args(Keep))
        check_word("norms", self.norms, get_args(Norms))
        check_word("class weighting", self.class_weights, get_args(ClassWeights))
        if not 0 < self.layer_decay <= 1:
            raise SpecError(f"layer_decay is above 0 and up to 1; got {self.layer_decay}.")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is from 0 to below 1; got {getattr(self, name)}.")
        for name, most in MOSTS.items():
            if not 0 <= getattr(self, name) <= most:
                raise SpecError(f"{name} is 0 or more, up to {most:,}; got {getattr(self, name)}.")
        if not 0 <= self.adversarial_rise <= 1:
            raise SpecError(f"adversarial_rise is from 0 to 1; got {self.adversarial_rise}.")
        if self.adversarial and not 1 - 1e-9 <= self.adversarial * 255 <= 255:
            raise SpecError(
                f"adversarial is a share of the pixels' range, 0 or from 1/255 (a file holds whole "
                f"levels) to 1; got {self.adversarial:.3g}. Usual are 2/255 to 8/255."
            )
