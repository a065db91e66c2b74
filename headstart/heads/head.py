"""What every head is, what may be asked of one, and the arithmetic that all of them share."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.errors import Mismatch, SpecError, UnknownName

Floats = NDArray[np.floating[Any]]
Kind = Literal["logistic", "ridge", "nearest"]
ClassWeights = Literal["none", "balanced"]
BLOCK = 4096  # rows worked on at once, which bounds the memory of a pass over a table
LEAST = float(np.finfo(np.float32).eps)  # the least probability a log loss counts with


class Head(Protocol):
    """Features of a row in, probabilities of its classes out."""

    kind: ClassVar[str]

    @property
    def features(self) -> int: ...  # D
    @property
    def classes(self) -> int: ...  # C
    @property
    def parameters(self) -> int: ...
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
    """Every choice about a head that can change the result; raises UnknownName and SpecError.

    head: logistic regression, ridge regression or k nearest neighbours.
    class_weights: balanced lets every class weigh alike.
    l2: strengths to try for "logistic" and "ridge", on standardised columns and the mean loss of a
        row (scikit-learn's C is 1 / (N l2), for two classes 2 / (N l2)).
    neighbours: numbers to try for "nearest".
    """

    head: Kind = "logistic"
    class_weights: ClassWeights = "none"
    l2: tuple[float, ...] = tuple(10.0 ** (e / 2) for e in range(4, -11, -1))  # 100 … 0.00001
    neighbours: tuple[int, ...] = (1, 3, 5, 10, 20, 50, 100)

    def __post_init__(self) -> None:
        if self.head not in get_args(Kind):
            raise UnknownName("head", str(self.head), get_args(Kind))
        if self.class_weights not in get_args(ClassWeights):
            raise UnknownName("class weighting", str(self.class_weights), get_args(ClassWeights))
        if not self.l2 or not all(0 < l2 < math.inf for l2 in self.l2):
            raise SpecError(f"l2 is a list of positive strengths to try; got {self.l2}.")
        if not self.neighbours or not all(_is_count(k) for k in self.neighbours):
            raise SpecError(
                f"neighbours is a list of whole numbers from 1 up; got {self.neighbours}."
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


def softmax(logits: Floats) -> NDArray[np.float64]:  # (N, C) -> (N, C)
    exps = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def log_loss_of(scores: Floats, y: NDArray[np.int64], weights: Floats) -> float:
    """The weighted mean of -log of each row's probability for its own class, in nats."""
    losses = -np.log(np.maximum(scores[np.arange(len(y)), y].astype(np.float64), LEAST))
    return float(np.average(losses, weights=weights))


def weight_of_classes(how: ClassWeights, y: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """(C,) "balanced" lets each class that has rows weigh alike; the mean over rows is 1."""
    counts = np.bincount(y, minlength=classes)
    if how == "none":
        return np.ones(classes)
    return np.where(counts > 0, len(y) / ((counts > 0).sum() * np.maximum(counts, 1)), 1.0)


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
    return isinstance(k, int) and not isinstance(k, bool) and k >= 1
