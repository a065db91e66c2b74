"""What every head is, what may be asked of one, and the arithmetic that all of them share."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch, SpecError, UnknownName
from headstart.base.runtime import memory_bytes
from headstart.base.values import check_seed
from headstart.targets.metrics import softmax as softmax
from headstart.targets.metrics import weight_of_classes as weight_of_classes

Floats = NDArray[np.floating[Any]]
Kind = Literal["logistic", "ridge", "nearest", "linear", "mlp"]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
Keep = Literal["best", "last"]
Output = Literal["softmax", "sigmoid"]
ClassWeights = Literal["none", "balanced"]
BLOCK = 4096  # rows worked on at once, which bounds the memory of a pass over a table
MOST = 1_000_000  # of epochs, rows a step, widths, …: beyond it a number was mistyped
MOST_RATE = 1e9  # one that is merely too high is told of when training diverges
STATES = 4  # numbers that training holds for each weight: itself, its gradient, two moments
LEAST = float(np.finfo(np.float32).eps)  # the least probability a log loss counts with


class Head(Protocol):
    """Features of a row in, probabilities of its classes out."""

    kind: ClassVar[str]

    @property
    def features(self) -> int: ...  # D
    @property
    def classes(self) -> int: ...  # C
    @property
    def outputs(self) -> int: ...  # K, which is 1 for the log odds of two classes
    @property
    def parameters(self) -> int: ...
    def raw(self, x: Floats) -> NDArray[np.float64]: ...  # (N, D) -> (N, K), as a target reads it
    def scores(self, x: Floats) -> NDArray[np.float32]: ...  # (N, D) -> (N, C), rows sum to 1
    def tensors(self) -> dict[str, NDArray[Any]]: ...  # what a bundle saves
    def settings(self) -> dict[str, float]: ...  # and what it saves beside them


class Table(Protocol):
    """Labelled rows of features; a FeatureTable is one."""

    @property
    def x(self) -> NDArray[np.float32]: ...  # (N, D)
    @property
    def y(self) -> NDArray[np.int64]: ...  # (N,)
    @property
    def classes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a Table."""

    x: NDArray[np.float32]  # (N, D)
    y: NDArray[np.int64]  # (N,)
    classes: tuple[str, ...]


@dataclass(frozen=True)
class HeadSpec:
    """Every choice about a head that can change the result; raises UnknownName and SpecError."""

    head: Annotated[
        Kind,
        "logistic, ridge and nearest are solved, linear and mlp trained by epochs; ridge is ridge"
        " regression, nearest the nearest neighbours; the strength of what is solved is chosen on"
        " validation",
    ] = "logistic"
    class_weights: Annotated[ClassWeights, "balanced lets all classes count alike"] = "none"
    l2: Annotated[
        tuple[float, ...],
        "strengths to try for logistic and ridge, on standardised columns and the mean loss of a "
        "row (scikit-learn's C is 1 / (N l2), for two classes 2 / (N l2))",
    ] = tuple(10.0 ** (e / 2) for e in range(4, -11, -1))  # 100 … 0.00001
    neighbours: Annotated[
        tuple[int, ...],
        "numbers of neighbours to try for nearest",
    ] = (1, 3, 5, 10, 20, 50, 100)
    hidden: Annotated[tuple[int, ...], "widths of the hidden layers of mlp"] = (1024,)
    dropout: Annotated[float, "share of the head's inputs that are dropped in training"] = 0.0
    output: Annotated[
        Output,
        "one logit per class (softmax), or a single one for two classes (sigmoid)",
    ] = "softmax"
    head_epochs: Annotated[int, "epochs of a linear or mlp head"] = 10
    head_lr: Annotated[float, "learning rate of a linear or mlp head"] = 1e-3
    head_optimizer: Annotated[Optimizer, "optimizer of a linear or mlp head"] = "adam"
    head_batch_size: Annotated[int, "rows per step of a linear or mlp head"] = 32
    head_keep: Annotated[Keep, "keep the epoch that was best on validation, or the last"] = "best"
    seed: Annotated[int, "random seed; of the split, the start and the order of rows"] = 0

    @property
    def by_epochs(self) -> bool:
        """Whether the head is trained, rather than solved."""
        return self.head in ("linear", "mlp")

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_word("head", self.head, get_args(Kind))
        check_word("class weighting", self.class_weights, get_args(ClassWeights))
        if not self.l2 or not all(0 < l2 < math.inf for l2 in self.l2):
            raise SpecError(f"l2 is a list of positive strengths to try; got {self.l2}.")
        if not self.neighbours or not all(_is_count(k) for k in self.neighbours):
            raise SpecError(
                f"neighbours is a list of whole numbers from 1 up to {MOST:,}; got "
                f"{self.neighbours}."
            )
        self._check_training()

    def check_classes(self, classes: int) -> None:
        """Raises SpecError if this head can't tell so many classes apart."""
        if self.output == "sigmoid" and classes != 2:
            raise SpecError(
                f"One logit (output=sigmoid) tells two classes apart; there are {classes}."
            )

    def check_room(self, features: int, classes: int = 2) -> None:
        """Raises SpecError if this machine has no memory for the hidden layers of "mlp"."""
        if self.head != "mlp":
            return
        widths = (features, *self.hidden, classes)
        weights = sum(a * b for a, b in pairwise(widths))
        needed, there = 4 * STATES * weights + 8 * BLOCK * max(self.hidden), memory_bytes()
        if there and needed > there:
            raise SpecError(
                f"hidden must leave the head a size that can be trained here; {self.hidden} takes "
                f"{needed / 1e9:,.0f} GB, and this machine has {there / 1e9:,.0f}. Name smaller "
                f"widths."
            )

    def _check_training(self) -> None:
        """Raises UnknownName or SpecError for what trains a head by epochs."""
        check_word("optimizer", self.head_optimizer, get_args(Optimizer))
        check_word("output", self.output, get_args(Output))
        check_word("epoch to keep", self.head_keep, get_args(Keep))
        if self.output == "sigmoid" and not self.by_epochs:
            raise SpecError(
                f"One logit (output=sigmoid) is for heads trained by epochs; {self.head!r} is "
                f"solved. Add --head linear, or leave --output out."
            )
        if not all(_is_count(n) for n in self.hidden) or (self.head == "mlp" and not self.hidden):
            raise SpecError(f"hidden is a list of widths from 1 up to {MOST:,}; got {self.hidden}.")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is a share from 0 to below 1; got {self.dropout}.")
        check_counts(head_epochs=self.head_epochs, head_batch_size=self.head_batch_size)
        check_rate("head_lr", self.head_lr)


def check_word(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise UnknownName(what, str(word), known)


def check_counts(**counts: int) -> None:
    """Raises SpecError unless each is a whole number from 1 to MOST."""
    for name, count in counts.items():
        if not _is_count(count):
            raise SpecError(f"{name} is a whole number from 1 up to {MOST:,}; got {count}.")


def check_rate(name: str, rate: float) -> None:
    if not 0 < rate <= MOST_RATE:
        raise SpecError(
            f"{name} is a learning rate above 0, such as 0.001, and up to {MOST_RATE:g}; got "
            f"{rate}."
        )


@dataclass(frozen=True, eq=False)
class Trial:
    """A head fitted with one setting, and what it said of the rows it is to be chosen by."""

    settings: dict[str, float]  # what was tried comes first: l2 or neighbours
    head: Head
    scores: NDArray[np.float32]  # (M, C)

    @property
    def tried(self) -> float:
        return next(iter(self.settings.values()))


@dataclass(frozen=True, eq=False)
class Fitted:
    """The chosen head; what was chosen and how; and one entry for each setting tried."""

    head: Head
    chosen: dict[str, Any]
    path: tuple[dict[str, Any], ...]


def log_loss_of(scores: Floats, y: NDArray[np.int64], weights: Floats) -> float:
    """The weighted mean of -log of each row's probability for its own class, in nats."""
    losses = -np.log(np.maximum(scores[np.arange(len(y)), y].astype(np.float64), LEAST))
    return float(np.average(losses, weights=weights))


def blocks(rows: int, size: int = BLOCK) -> Iterator[slice]:
    """
    >>> list(blocks(5, size=3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def check_width(x: Floats, features: int) -> None:
    """Raises Mismatch unless `x` is (N, features)."""
    if x.ndim != 2 or x.shape[1] != features:
        raise Mismatch(
            f"This head reads {features} features a row but was given an array of shape "
            f"{x.shape}. Was it fitted on another backbone?"
        )


def check_finite(values: Floats, what: str) -> None:
    """Raises Mismatch, with `what` these numbers are, for NaN or infinity among them."""
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.argwhere(~finite)
        raise Mismatch(
            f"{what} must be finite numbers, but {len(bad)} of {values.size} are NaN or infinite "
            f"(the first in row {bad[0][0]}). Look at what made them: a damaged weight file or "
            f"half precision that overflowed."
        )


def check_tensors(
    tensors: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[str, ...]]
) -> None:
    """Raises Mismatch unless these very tensors came, with sizes that agree wherever letters do."""
    if tensors.keys() != shapes.keys():
        raise Mismatch(f"This head is saved as {sorted(shapes)}; got {sorted(tensors)}.")
    sizes: dict[str, int] = {}
    for name, letters in shapes.items():
        shape = tensors[name].shape
        fits = len(shape) == len(letters) and 0 not in shape
        if not fits or any(
            sizes.setdefault(a, n) != n for a, n in zip(letters, shape, strict=True)
        ):
            raise Mismatch(f"{name} is of shape ({', '.join(letters)}); got {shape} with {sizes}.")
        check_finite(tensors[name], f"The saved {name} of a head")


def _is_count(k: Any) -> bool:
    return isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= MOST
