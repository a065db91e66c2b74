"""The protocol of heads, their fitted results, and checks and arithmetic that all heads share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch, SpecError, UnknownName
from headstart.targets.classes import as_target
from headstart.targets.metrics import ClassWeights as ClassWeights
from headstart.targets.metrics import softmax as softmax
from headstart.targets.metrics import weight_of_classes as weight_of_classes
from headstart.targets.supervision import PLAIN, Supervision
from headstart.targets.target import Labels, Outputs, Target

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.floating[Any]]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
Keep = Literal["best", "last"]
Output = Literal["softmax", "sigmoid"]
Resample = Literal["none", "balanced"]
BLOCK = 4096  # rows per matrix product, which bounds the memory of a pass over a table
MOST = 1_000_000  # limit of epochs, batch size, widths, …: a larger number was mistyped
MOST_RATE = 1e9  # a rate that is merely too high raises Diverged in training
STATES = 4  # values held per trained weight: weight, gradient, two moments
LEAST = float(np.finfo(np.float32).eps)  # lower bound of probabilities in a log loss


class Head(Protocol):
    """A classifier or regressor on feature vectors."""

    kind: ClassVar[str]

    @property
    def features(self) -> int: ...  # D
    @property
    def classes(self) -> int: ...  # C
    @property
    def outputs(self) -> int: ...  # K; 1 means the log odds of two classes
    @property
    def parameters(self) -> int: ...
    def raw(self, x: Floats) -> NDArray[np.float64]: ...  # (N, D) -> (N, K), for the target
    def scores(self, x: Floats) -> NDArray[np.float32]: ...  # (N, D) -> (N, C), rows sum to 1
    def tensors(self) -> dict[str, NDArray[Any]]: ...  # saved in a bundle
    def settings(self) -> dict[str, float]: ...  # saved with the tensors


class Unclassed:
    """The part of a head whose answers are no classes."""

    @property
    def classes(self) -> int:
        return 0


@runtime_checkable
class TunableHead(Head, Protocol):
    """A head that fine-tuning can turn into a module, train, and turn back into a head."""

    def as_module(self) -> "nn.Module": ...  # (N, D) -> (N, K), equal to `raw`
    def from_module(self, module: "nn.Module") -> Head: ...  # the head that it became


class LabelledRows(Protocol):
    """Labelled rows, such as a Dataset."""

    @property
    def y(self) -> Labels: ...  # as the target encodes them; for classes (N,) int64
    @property
    def target(self) -> Target: ...
    @property
    def groups(self) -> tuple[str, ...]: ...  # rows with the same name share a fold; () for none
    @property
    def supervision(self) -> Supervision: ...  # how the rows count in the loss


class FeatureRows(LabelledRows, Protocol):
    """Labelled feature rows, such as a FeatureTable."""

    @property
    def x(self) -> NDArray[np.float32]: ...  # (N, D)


@dataclass(frozen=True, eq=False)
class Rows:
    """Feature rows held in plain arrays. target: class names are turned into a ClassTarget.

    rotated: whether the columns are those of a `basis.Rotation`, in which heads are solved as they
    are.
    """

    x: NDArray[np.float32]  # (N, D)
    y: Labels
    target: Any  # a Target
    groups: tuple[str, ...] = ()
    rotated: bool = False
    supervision: Supervision = PLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", as_target(self.target))


def some_of(rows: FeatureRows, chosen: NDArray[Any]) -> Rows:
    """Return some rows, by their numbers or a mask, without their groups."""
    own = rows.supervision[chosen]
    return Rows(
        rows.x[chosen], rows.y[chosen], rows.target, rotated=is_rotated(rows), supervision=own
    )


@dataclass(frozen=True, eq=False)
class RowView:
    """Some rows of an array (N, D), which may be memory-mapped: read only where they are indexed.

    >>> RowView(np.array([[1.0], [2.0], [3.0]]), np.array([2, 0]))[:1]
    array([[3.]])
    """

    x: Floats
    numbers: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.x.shape[1:])

    @property
    def ndim(self) -> int:
        return self.x.ndim

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Floats:
        return np.asarray(self.x[self.numbers[rows]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


def view_of(rows: FeatureRows, chosen: NDArray[np.bool_]) -> FeatureRows:
    """Return the rows of a mask as `some_of` does, their features read only where indexed."""
    if chosen.all():
        return rows
    kept = np.flatnonzero(chosen)
    x: Any = RowView(rows.x, kept)
    own = rows.supervision[kept]
    return Rows(x, rows.y[kept], rows.target, rotated=is_rotated(rows), supervision=own)


def counted(rows: FeatureRows) -> FeatureRows:
    """Return the rows whose case weight is above 0, the only ones that a head learns from."""
    learned = rows.supervision.learned
    if learned is None:
        return rows
    kept = np.flatnonzero(learned)
    groups = tuple(rows.groups[row] for row in kept) if rows.groups else ()
    return replace(some_of(rows, kept), groups=groups)


def loss_weights(
    rows: FeatureRows, how: ClassWeights, train: FeatureRows | None = None
) -> NDArray[np.float64]:
    """Return (N,) weights of rows in the loss of a solved head: of their classes, times their own.

    how: the class weights. train: the training rows, whose weights have a mean of 1; None for
    `rows`. Ones, if all rows to be judged have a case weight of 0.
    """
    given, own = rows if train is None else train, rows.supervision.weights
    weights = rows.target.row_weights(how, rows.y, given.y, **given.supervision.case)
    if own is None or not own.any():
        return weights
    return weights * own / (own.mean() if train is None else 1.0)


def is_rotated(rows: FeatureRows) -> bool:
    return isinstance(rows, Rows) and rows.rotated


def check_word(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise UnknownName(what, str(word), known)


def check_class_weights(how: ClassWeights) -> None:
    """Raise UnknownName for an unknown word, SpecError for invalid weights."""
    if not isinstance(how, Mapping):
        check_word("class weighting", how, ("none", "balanced"))
    elif not how or not all(_is_weight(weight) for weight in how.values()):
        raise SpecError(
            f"class_weights is none, balanced, or a weight above 0 for each class named, as in "
            f"{{'rare': 2}}; got {dict(how)}."
        )


def check_resample(how: Resample, class_weights: ClassWeights) -> None:
    """Raise UnknownName for an unknown word, SpecError for what would balance twice."""
    check_word("resampling", how, get_args(Resample))
    if how == class_weights == "balanced":
        raise SpecError(
            "Balanced class weights and balanced resampling both let rare rows count more: leave "
            "one of them out."
        )


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value <= MOST


def check_counts(**counts: int) -> None:
    """Raise SpecError unless each value is an integer from 1 to MOST."""
    for name, count in counts.items():
        if not is_count(count):
            raise SpecError(f"{name} is a whole number from 1 up to {MOST:,}; got {count}.")


def check_rate(name: str, rate: float) -> None:
    if not 0 < rate <= MOST_RATE:
        raise SpecError(
            f"{name} is a learning rate above 0, such as 0.001, and up to {MOST_RATE:g}; got "
            f"{rate}."
        )


@dataclass(frozen=True, eq=False)
class Trial:
    """A head fitted with one setting, and its answers on the rows by which a setting is chosen."""

    settings: dict[str, float]  # the tried one first: l2 or neighbours
    head: Head
    answers: Outputs  # of M rows

    @property
    def tried(self) -> float:
        return next(iter(self.settings.values()))


@dataclass(frozen=True, eq=False)
class Fitted:
    """The chosen head, its settings and the reason for them, and one entry per setting tried.

    target: with its decisions, such as thresholds, chosen; None for the target as it was.
    """

    head: Head
    chosen: dict[str, Any]
    path: tuple[dict[str, Any], ...]
    target: Target | None = None


def probabilities(raw: Floats) -> NDArray[np.float32]:
    """Turn a head's outputs (N, K) into probabilities (N, C); K = 1: log odds of two classes."""
    logits = np.hstack([np.zeros_like(raw), raw]) if raw.shape[1] == 1 else raw
    return softmax(logits).astype(np.float32)


def blocks(rows: int, size: int = BLOCK) -> Iterator[slice]:
    """
    >>> list(blocks(5, size=3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def check_width(x: Floats, features: int) -> None:
    """Raise Mismatch unless `x` is (N, features)."""
    if x.ndim != 2 or x.shape[1] != features:
        raise Mismatch(
            f"This head reads {features} features a row but was given an array of shape "
            f"{x.shape}. Was it fitted on another backbone?"
        )


def check_finite(values: Floats, what: str) -> None:
    """Raise Mismatch if `values` hold NaN or infinity; `what`: their name in the message."""
    bad, first = 0, -1
    for rows in blocks(len(values)):
        finite = np.isfinite(values[rows])
        if not finite.all():
            wrong = np.argwhere(~finite)
            first = first if bad else rows.start + int(wrong[0][0])
            bad += len(wrong)
    if bad:
        raise Mismatch(
            f"{what} must be finite numbers, but {bad} of {values.size} are NaN or infinite "
            f"(the first in row {first}). Look at what made them: a damaged weight file or "
            f"half precision that overflowed."
        )


def check_tensors(
    tensors: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[str, ...]]
) -> None:
    """Raise Mismatch unless the names match and equal letters in `shapes` mean equal sizes."""
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


def check_types(tensors: Mapping[str, NDArray[Any]], **others: Any) -> None:
    """Raise Mismatch unless saved tensors are float32, but for those of `others` by name."""
    for name, array in tensors.items():
        wanted = np.dtype(others.get(name, np.float32))
        if array.dtype != wanted:
            raise Mismatch(f"The saved {name} of a head is {wanted}; got {array.dtype}.")


def check_no_settings(settings: Mapping[str, Any]) -> None:
    """Raise Mismatch for settings of a head that has none."""
    if settings:
        raise Mismatch(f"This head has no settings; got {dict(settings)!r:.80}.")


def is_count(k: Any) -> bool:
    return isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= MOST
