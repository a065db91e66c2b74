"""The settings of one training phase of any network."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from headstart.base.errors import SpecError
from headstart.base.values import check_seed, later
from headstart.heads.head import (
    MOST,
    ClassWeights,
    Keep,
    Optimizer,
    Resample,
    check_class_weights,
    check_counts,
    check_rate,
    check_resample,
    check_word,
)
from headstart.heads.specs import PyramidSpec, TrainedSpec

Schedule = Literal["constant", "cosine"]
Norms = Literal["frozen", "trained"]
MOSTS = {"weight_decay": 1000, "mixup": 1000, "clip": MOST, "patience": MOST}


@dataclass(frozen=True)
class Plan:
    """One training phase; the heads trained by epochs build one, FineTune subclasses it."""

    epochs: Annotated[
        int, "passes over the training rows; of several stored views each pass draws one"
    ] = 10
    batch_size: Annotated[int, "rows per step"] = 32
    optimizer: Annotated[Optimizer, "optimizer of fine-tuning"] = "adamw"
    lr: Annotated[float, "learning rate; 0 is a tenth of the head's"] = 0.0
    schedule: Annotated[Schedule, "learning rate: constant, or falling to 0 by half a cosine"] = (
        "cosine"
    )
    warmup: Annotated[float, "share of the steps in which the learning rate rises from 0"] = 0.1
    layer_decay: Annotated[
        float, "learning rate of each block, as a share of the rate of the block above it"
    ] = 1.0
    weight_decay: Annotated[float, "strength of weight decay; norms and biases have none"] = 0.01
    label_smoothing: Annotated[float, "share of every label that is spread over all classes"] = 0.0
    mixup: Annotated[float, "strength of mixup, which blends pairs of examples; 0 is none"] = 0.0
    clip: Annotated[float, "largest norm of all gradients together; 0 is no limit"] = 0.0
    patience: Annotated[
        int, "epochs without improvement on validation before training stops; 0 never stops"
    ] = 0
    keep: Annotated[Keep, "keep the epoch that was best on validation, or the last"] = "best"
    norms: Annotated[Norms, "whether thawed normalisation layers go on learning statistics"] = (
        "frozen"
    )
    class_weights: Annotated[ClassWeights, "balanced lets all classes count alike"] = "none"
    resample: Annotated[
        Resample,
        "balanced draws rows so that all classes, or all rarest labels of a row, are met equally "
        "often in every epoch",
    ] = field(default="none", kw_only=True, metadata=later())
    ema: Annotated[
        float,
        "decay of the average of the weights over all steps, which is judged and kept in their "
        "place, such as 0.99; 0 keeps the weights themselves",
    ] = field(default=0.0, kw_only=True, metadata=later())
    average_last: Annotated[
        int,
        "instead, judge and keep the mean of the weights at the ends of this many last epochs; 0 "
        "is none",
    ] = field(default=0, kw_only=True, metadata=later())
    adversarial: Annotated[
        float,
        "train on the worst change of each picture within this share of the pixels' range, such as"
        " 2/255; 0 is none",
    ] = 0.0
    adversarial_rise: Annotated[
        float,
        "share of the steps in which --adversarial rises from 0; all of it at once would wipe out "
        "what the network knows",
    ] = 0.6
    adversarial_steps: Annotated[
        int,
        "steps of the search for the worst change; 1 is fast (Wong et al. 2020), 7 usual (Madry et"
        " al. 2018)",
    ] = 2
    seed: Annotated[int, "another seed gives another order of rows"] = 0

    def __post_init__(self) -> None:
        check_counts(
            epochs=self.epochs, batch_size=self.batch_size, adversarial_steps=self.adversarial_steps
        )
        check_seed(self.seed)
        if self.lr != 0:
            check_rate("lr", self.lr)
        check_word("optimizer", self.optimizer, get_args(Optimizer))
        check_word("schedule", self.schedule, get_args(Schedule))
        check_word("keep", self.keep, get_args(Keep))
        check_word("norms", self.norms, get_args(Norms))
        check_class_weights(self.class_weights)
        check_resample(self.resample, self.class_weights)
        if not 0 < self.layer_decay <= 1:
            raise SpecError(f"layer_decay is above 0 and up to 1; got {self.layer_decay}.")
        for name in ("warmup", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is from 0 to below 1; got {getattr(self, name)}.")
        for name, most in MOSTS.items():
            if not 0 <= getattr(self, name) <= most:
                raise SpecError(f"{name} is 0 or more, up to {most:,}; got {getattr(self, name)}.")
        if self.average_last != 0:
            check_counts(average_last=self.average_last)
        if self.average_last == 1 or (self.average_last and self.ema):
            raise SpecError(
                f"average_last is 0 or from 2 epochs on, and is no second average beside ema; got "
                f"average_last={self.average_last} and ema={self.ema}. Leave one of them out."
            )
        if not 0 <= self.adversarial_rise <= 1:
            raise SpecError(f"adversarial_rise is from 0 to 1; got {self.adversarial_rise}.")
        if self.adversarial and not 1 - 1e-9 <= self.adversarial * 255 <= 255:
            raise SpecError(
                f"adversarial is a share of the pixels' range, 0 or from 1/255 (a file holds whole "
                f"levels) to 1; got {self.adversarial:.3g}. Usual are 2/255 to 8/255."
            )


def head_plan(spec: TrainedSpec, seed: int) -> Plan:
    """Return the phase that trains a head by epochs, at a constant rate."""
    return Plan(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        optimizer=spec.optimizer,
        lr=spec.lr,
        schedule="constant",
        warmup=0.0,
        weight_decay=0.0,
        keep=spec.keep,
        class_weights=spec.class_weights,
        resample=spec.resample,
        seed=seed,
    )


def pyramid_plan(spec: PyramidSpec, seed: int) -> Plan:
    """Return the phase that trains a head on activations, at a rate that falls to 0."""
    own = {n: getattr(spec, n) for n in ("epochs", "batch_size", "optimizer", "lr", "keep")}
    more = {n: getattr(spec, n) for n in ("weight_decay", "ema", "clip")}
    return Plan(**own, **more, warmup=0.05, seed=seed)
