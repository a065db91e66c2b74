"""What is asked of an example: the protocol that every kind of answer follows, and its values.

N examples, K raw outputs of a head. Raw outputs and answers are arrays by name, first axis N.
Nothing here knows what an example looks like, and nothing here makes intervals or HTML.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import SpecError
from headstart.targets.metrics import ClassWeights

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
Outputs = Mapping[str, Array]  # {"logits": (N, K)} of a head, {"scores": (N, C)} answered
Row = Mapping[str, str]  # what the data says of one example, by column: {"label": "cat"}
Labels = Any  # y of N rows: an array with first axis N, or a value with len() and y[rows]


@dataclass(frozen=True)
class Share:
    """A number that a share gives; its interval is Wilson's.

    share: from 0 to 1. n: rows it rests on. size: rows of which a plain share would be as
    uncertain, if not n. scale: a growing function that gives the value of the share, and of each
    end of its interval.
    """

    share: float
    n: int
    size: float | None = None
    scale: Callable[[float], float] = float

    @property
    def value(self) -> float:
        return self.scale(self.share)


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of one number per row (N,), N > 0; its interval is a bootstrap of the rows."""

    rows: NDArray[np.float64]

    @property
    def value(self) -> float:
        return float(self.rows.mean())

    @property
    def n(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Plain:
    """A number of n rows for which no interval is made."""

    value: float
    n: int


Metric = Share | Mean | Plain


@dataclass(frozen=True)
class Table:
    """A table of an evaluation, beside its metrics.

    name: of its place in evaluation.json. columns: their titles. keys: their names in
    evaluation.json, where each row is then an object named by its first cell; without keys the rows
    are lists there.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Baseline:
    """What one constant answer gets, the one that training rows suggest.

    kind: what that answer is ("majority"). answer: as text. name: of the metric.
    """

    kind: str
    answer: str
    name: str
    metric: Any  # as the target gives it, a Metric; as it is judged, an Estimate


class Target(Protocol):
    """What a model answers. A subclass states what its kind needs; the rest has defaults here."""

    kind: ClassVar[str]  # "class", "count"; saved with a model
    reads: ClassVar[tuple[str, ...]]  # columns of a manifest; the first one holds the label

    counts_right: ClassVar[bool] = False  # whether `right` tells; "accuracy" in histories then
    merit_name: ClassVar[str] = "score"  # of the first number of `merit`
    shown: ClassVar[tuple[str, ...]] = ()  # metrics in the order of printing, if it is another

    # ------------------------------------------------------------ labels
    @classmethod
    def detect(cls, columns: Collection[str]) -> bool:
        """Whether data with these columns asks this."""
        return set(cls.reads) <= set(columns)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """The target of a data set: the names of its classes, nothing that depends on a split."""
        return cls()

    def fitted(self, y: Labels) -> Self:
        """The same with what training rows alone may say: the commonest class, a number's scale."""
        return self

    def encode(self, row: Row) -> Any:
        """A row's label as a plain value, such as 2; DataError says what is wrong with it."""
        ...

    def labels(self, values: Sequence[Any]) -> Labels:
        """Encoded labels as the array that loss and metrics read; DataError for a wrong one."""
        ...

    def present(self, values: Sequence[Any]) -> "tuple[Target, tuple[Any, ...]]":
        """The same asked of these encoded labels alone, and the labels for it: classes that have
        no rows are left out."""
        return self, tuple(values)

    def check_names(self) -> None:
        """Raise DataError for names that answers need for something else."""
        return None

    def decode(self, y: Labels) -> list[str]:
        """The labels as the data writes them; "" where unknown."""
        return ["" if not known else str(v) for v, known in zip(y, self.known(y), strict=True)]

    def parse(self, cells: Sequence[str]) -> Labels:
        """The labels that `decode` wrote."""
        y, told = self.unknown(len(cells)), [i for i, cell in enumerate(cells) if cell]
        if told:
            y[told] = self.labels([self.encode({self.reads[0]: cells[i]}) for i in told])
        return y

    def known(self, y: Labels) -> NDArray[np.bool_]:
        """(N,) where a label is known."""
        return np.ones(len(y), bool)

    def unknown(self, n: int) -> Labels:
        """Labels of n rows of which nothing is known."""
        ...

    def translate(self, y: Labels, target: "Target") -> Labels:
        """Labels that `target` encoded, as this target encodes them; unknown where it cannot."""
        return y if self.agrees(target) else self.unknown(len(y))

    def strata(self, y: Labels) -> NDArray[np.int64]:
        """(N,) groups whose shares splits and folds keep."""
        return np.zeros(len(y), np.int64)

    @property
    def stratum_names(self) -> tuple[str, ...]:
        """Names of the strata, if each of them needs rows in every part; else none."""
        return ()

    # ------------------------------------------------------------ learning
    @property
    def outputs(self) -> int:
        """K, the width of a head's raw output."""
        return 1

    def accepts(self, width: int) -> bool:
        """Whether a head with so many raw outputs can answer this."""
        return width == self.outputs

    def soft(self, y: Labels, smoothing: float = 0.0) -> "Tensor":
        """Labels as floats, first axis N, which may be blended with each other (mixup)."""
        import torch

        if smoothing:
            raise SpecError(f"Label smoothing is for classes, not for a {self.kind}. Leave it out.")
        return torch.as_tensor(y).float()

    def loss(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        """(N,) losses of raw outputs (N, K), before weights."""
        ...

    def right(self, raw: "Tensor", soft: "Tensor") -> "Tensor | None":
        """(N,) which answers are right; None where answers are not simply right or wrong."""
        return None

    def balance(self, how: ClassWeights, y: Labels) -> Array:
        """What `weights` needs to know of all training rows for this way of weighing them."""
        if how != "none":
            raise SpecError(
                f"Class weights are for classes, not for a {self.kind}; leave them out."
            )
        return np.ones(1)

    def weights(self, soft: "Tensor", balance: "Tensor") -> "Tensor":
        """(N,) how much each row counts in the loss."""
        import torch

        return torch.ones(len(soft))

    # ------------------------------------------------------------ answers
    def activate(self, raw: Array) -> Outputs:
        """Answers to raw outputs (N, K)."""
        ...

    def check(self, answers: Outputs, y: Labels) -> None:
        """Raise Mismatch for arrays that cannot be answers and labels of the same rows."""
        return None

    def columns(self, answers: Outputs) -> Mapping[str, Array]:
        """Columns of predictions.csv beside path and label: (N,) numbers or texts each."""
        return answers

    def answers(self, columns: Mapping[str, Sequence[str]]) -> Outputs:
        """The answers that `columns` wrote; DataError for anything else."""
        return {name: np.array(cells, np.float32) for name, cells in columns.items()}

    # ------------------------------------------------------------ judging
    def row_scores(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """(N,) how good each answer is, higher is better; runs are compared by their means."""
        ...

    def merit(self, answers: Outputs, y: Labels) -> tuple[float, ...]:
        """What candidates are compared by on validation, in turn; higher is better."""
        return (float(self.row_scores(answers, y).mean()),)

    def metrics(self, answers: Outputs, y: Labels) -> Mapping[str, Metric | None]:
        """Numbers by name; None where these rows cannot tell."""
        ...

    def agrees(self, other: "Target") -> bool:
        """Whether answers to the one can be compared with answers to the other."""
        return self.kind == other.kind

    @property
    def described(self) -> str:
        """What is asked, in a phrase."""
        return f"a {self.kind}"

    def baseline(self, y: Labels) -> Baseline | None:
        """What the constant answer that `fitted` found would get."""
        return None

    def tables(self, answers: Outputs, y: Labels) -> tuple[Table, ...]:
        """What is shown beside the metrics: confusion, residuals."""
        return ()

    # ------------------------------------------------------------ doubt
    def temperature(self, answers: Outputs, y: Labels) -> float:
        """What to scale answers by, so that their confidence is honest; 1 leaves them."""
        return 1.0

    def scaled(self, answers: Outputs, temperature: float) -> Outputs:
        return answers

    def confidence(self, answers: Outputs) -> NDArray[np.float64] | None:
        """(N,) how sure each answer is, from 0 to 1; None where answers do not say."""
        return None

    def conformity(self, answers: Outputs, y: Labels) -> NDArray[np.float64] | None:
        """(N,) how unlike the truth each answer is; None where there is no such number."""
        return None

    def region(self, answers: Outputs, limit: float) -> Mapping[str, Array]:
        """What is not ruled out at a limit of `conformity`, as columns."""
        return {}

    # ------------------------------------------------------------ files
    def heading(self) -> dict[str, Any]:
        """How an evaluation of its answers begins in evaluation.json."""
        return {"target": {"kind": self.kind, **self.settings()}}

    def settings(self) -> dict[str, Any]:
        """What `load` makes the same target from, ready for JSON."""
        return {}

    @classmethod
    def load(cls, settings: Mapping[str, Any]) -> Self:
        """Raises Mismatch for settings that are not such a target's."""
        return cls(**settings)
