"""The settings of each family of heads: one spec per family."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self, get_args

from headstart.base.errors import SpecError
from headstart.base.runtime import memory_bytes
from headstart.base.values import later
from headstart.heads.head import (
    BLOCK,
    MOST,
    STATES,
    ClassWeights,
    Keep,
    Optimizer,
    Output,
    Resample,
    check_class_weights,
    check_counts,
    check_rate,
    check_resample,
    check_word,
    is_count,
)
from headstart.targets.target import POOLED, STRIDES

EPOCHS = "epochs of a linear or mlp head (10), or of pyramid (24)"
RATE = "learning rate of a linear or mlp head (0.001), or of pyramid (0.002)"
OPTIMIZER = "optimizer of a linear or mlp head (adam), or of pyramid (adamw)"
ROWS = "rows per step of a linear or mlp head (32), or of pyramid (8)"
KEPT = "keep the epoch that was best on validation, or the last"
HEAD_LR = 1e-3  # default rate of trained heads; the default rate of fine-tuning is a tenth of it
STRENGTHS = tuple(10.0 ** (e / 2) for e in range(4, -11, -1))  # 100 … 0.00001
L2 = (
    "strengths to try for logistic and ridge, on standardised columns and the mean loss of a "
    "row (scikit-learn's C is 1 / (N l2), for two classes 2 / (N l2))"
)

# Seconds of one core, measured on two slow cores. Logistic regression with all strengths: for each
# training row, feature and class (measured for products of 1 M to 1 G; of smaller products each
# takes twice as long). Nearest neighbours: for each stored row, judged row and feature.
LOGISTIC_S, NEAREST_S = 50e-9, 0.13e-9
JUDGED = 0.3  # rows of validation and test, as a share of the training rows


@dataclass(frozen=True)
class HeadSpec:
    """Settings that all heads share; each family adds its own.

    Raises SpecError or UnknownName for a setting out of range.
    """

    family: ClassVar[str]
    by_epochs: ClassVar[bool] = False  # whether the head is trained by epochs
    fine_tunes: ClassVar[bool] = True  # whether fine-tuning can start from it
    takes: ClassVar[tuple[str, ...]] = POOLED  # outputs of a backbone that it reads

    class_weights: Annotated[ClassWeights, "balanced lets all classes count alike"] = "none"

    def __post_init__(self) -> None:
        check_class_weights(self.class_weights)

    def width(self, outputs: int) -> int:
        """Return the number of raw outputs of a head for a target with `outputs`."""
        return outputs

    def check_room(self, features: int, classes: int = 2) -> None:
        """Raise SpecError if the head doesn't fit this machine's memory."""

    def seconds(self, rows: int, features: int, classes: int) -> float:
        """Return about how long fitting takes on one core; 0 for heads that take any number of
        rows and classes."""
        return 0.0

    def chosen(self, settings: Mapping[str, Any]) -> Self:
        """Return the spec with only the setting that was chosen, of those that it tries."""
        return self


@dataclass(frozen=True)
class SolvedSpec(HeadSpec):
    """Settings of linear heads fitted without epochs; the L2 strength is chosen on validation."""

    l2: Annotated[tuple[float, ...], L2] = STRENGTHS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.l2 or not all(0 < strength < math.inf for strength in self.l2):
            raise SpecError(f"l2 is a list of positive strengths to try; got {self.l2}.")

    def chosen(self, settings: Mapping[str, Any]) -> Self:
        return replace(self, l2=(float(settings["l2"]),))


@dataclass(frozen=True)
class LogisticSpec(SolvedSpec):
    """Multinomial logistic regression."""

    family: ClassVar[str] = "logistic"

    def seconds(self, rows: int, features: int, classes: int) -> float:
        return LOGISTIC_S * rows * features * classes


@dataclass(frozen=True, eq=False)
class UsualSpec(LogisticSpec):
    """The head that is used if none is named: logistic regression where the target has one.

    `families.head_for` finds another for other targets. Files and comparisons take it for a
    LogisticSpec.
    """

    SAVED_AS: ClassVar[str] = "LogisticSpec"

    def __eq__(self, other: object) -> bool:
        settings = self.class_weights, self.l2
        return isinstance(other, LogisticSpec) and settings == (other.class_weights, other.l2)

    __hash__ = LogisticSpec.__hash__


@dataclass(frozen=True)
class RidgeSpec(SolvedSpec):
    """Ridge regression on targets of 1 and -1."""

    family: ClassVar[str] = "ridge"


@dataclass(frozen=True)
class NearestSpec(HeadSpec):
    """Nearest neighbours; their number is chosen on validation."""

    family: ClassVar[str] = "nearest"
    fine_tunes: ClassVar[bool] = False
    neighbours: Annotated[tuple[int, ...], "numbers of neighbours to try for nearest"] = (
        *(1, 3, 5, 10, 20, 50, 100),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.neighbours or not all(is_count(k) for k in self.neighbours):
            raise SpecError(
                f"neighbours is a list of whole numbers from 1 up to {MOST:,}; got "
                f"{self.neighbours}."
            )

    def seconds(self, rows: int, features: int, classes: int) -> float:
        return NEAREST_S * rows * (JUDGED * rows) * features

    def chosen(self, settings: Mapping[str, Any]) -> Self:
        return replace(self, neighbours=(int(settings["neighbours"]),))


@dataclass(frozen=True)
class MeanSpec(HeadSpec):
    """The nearest mean of a class. class_weights: of the rows that its temperature is fitted on."""

    family: ClassVar[str] = "mean"


@dataclass(frozen=True)
class TrainedSpec(HeadSpec):
    """Settings of the heads trained by epochs."""

    by_epochs: ClassVar[bool] = True

    dropout: Annotated[float, "share of the head's inputs that are dropped in training"] = 0.0
    output: Annotated[
        Output, "one logit per class (softmax), or a single one for two classes (sigmoid)"
    ] = "softmax"
    epochs: Annotated[int, EPOCHS] = 10
    lr: Annotated[float, RATE] = HEAD_LR
    optimizer: Annotated[Optimizer, OPTIMIZER] = "adam"
    batch_size: Annotated[int, ROWS] = 32
    keep: Annotated[Keep, KEPT] = "best"
    resample: Annotated[
        Resample,
        "balanced draws rows so that all classes, or all rarest labels of a row, are met equally "
        "often in every epoch",
    ] = field(default="none", kw_only=True, metadata=later())

    def __post_init__(self) -> None:
        super().__post_init__()
        check_word("optimizer", self.optimizer, get_args(Optimizer))
        check_word("output", self.output, get_args(Output))
        check_word("epoch to keep", self.keep, get_args(Keep))
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is a share from 0 to below 1; got {self.dropout}.")
        check_counts(head_epochs=self.epochs, head_batch_size=self.batch_size)
        check_rate("head_lr", self.lr)
        check_resample(self.resample, self.class_weights)

    def width(self, outputs: int) -> int:
        """Return the number of raw outputs; raises SpecError for one logit of several outputs."""
        if self.output == "sigmoid" and outputs > 2:
            raise SpecError(
                f"One logit (output=sigmoid) tells two classes apart; there are {outputs}."
            )
        return 1 if self.output == "sigmoid" else outputs

    @property
    def layers(self) -> tuple[int, ...]:
        """The widths of the hidden layers."""
        return ()


@dataclass(frozen=True)
class LinearSpec(TrainedSpec):
    """One dense layer, trained by epochs as the tutorials do."""

    family: ClassVar[str] = "linear"


@dataclass(frozen=True)
class MlpSpec(TrainedSpec):
    """Dense layers with relu between them, trained by epochs."""

    family: ClassVar[str] = "mlp"
    hidden: Annotated[tuple[int, ...], "widths of the hidden layers of mlp"] = (1024,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden or not all(is_count(n) for n in self.hidden):
            raise SpecError(f"hidden is a list of widths from 1 up to {MOST:,}; got {self.hidden}.")

    @property
    def layers(self) -> tuple[int, ...]:
        return self.hidden

    def check_room(self, features: int, classes: int = 2) -> None:
        widths = (features, *self.hidden, classes)
        weights = sum(a * b for a, b in pairwise(widths))
        needed, there = 4 * STATES * weights + 8 * BLOCK * max(self.hidden), memory_bytes()
        if there and needed > there:
            raise SpecError(
                f"hidden must leave the head a size that can be trained here; {self.hidden} takes "
                f"{needed / 1e9:,.0f} GB, and this machine has {there / 1e9:,.0f}. Name smaller "
                f"widths."
            )


@dataclass(frozen=True)
class PyramidSpec(HeadSpec):
    """A feature pyramid on activations of three strides, which finds boxes; trained by epochs.

    Its last weights are kept, since those of the lowest loss on validation had a lower average
    precision, in each of three trainings on made pictures.
    """

    family: ClassVar[str] = "pyramid"
    by_epochs: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = STRIDES

    epochs: Annotated[int, EPOCHS] = 24
    lr: Annotated[float, RATE] = 2e-3
    optimizer: Annotated[Optimizer, OPTIMIZER] = "adamw"
    batch_size: Annotated[int, ROWS] = 8
    keep: Annotated[Keep, KEPT] = "last"
    weight_decay: Annotated[float, "strength of weight decay of a pyramid"] = 1e-4
    ema: Annotated[
        float,
        "decay of the average of a pyramid's weights over all steps, which is kept; 0 keeps the "
        "weights themselves",
    ] = 0.99
    clip: Annotated[float, "largest norm of a pyramid's gradients; 0 is no limit"] = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_word("optimizer", self.optimizer, get_args(Optimizer))
        check_word("epoch to keep", self.keep, get_args(Keep))
        check_counts(head_epochs=self.epochs, head_batch_size=self.batch_size)
        check_rate("head_lr", self.lr)
        if not 0 <= self.ema < 1:
            raise SpecError(f"head_ema is from 0 to below 1; got {self.ema}.")
        for name, most in {"weight_decay": 1000, "clip": MOST}.items():
            if not 0 <= getattr(self, name) <= most:
                raise SpecError(
                    f"head_{name} is 0 or more, up to {most:,}; got {getattr(self, name)}."
                )
