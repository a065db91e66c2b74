"""The protocol of a target (what a model predicts), and the values it returns.

N is the number of examples, K the width of a head's raw output. Answers (predictions) are arrays by
name, first axis N. A target knows nothing of the examples' content, of intervals or of HTML.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import SpecError
from headstart.base.values import Record
from headstart.targets.metrics import ClassWeights
from headstart.targets.plan import TargetPlan
from headstart.targets.residuals import ResidualLoss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from headstart.base.onnx_nodes import Nodes

Array = NDArray[Any]
Link = Literal["softmax", "sigmoid", "cumulative", "identity"]
Outputs = Mapping[str, Array]  # {"logits": (N, K)} of a head, {"scores": (N, C)} of a target
Row = Mapping[str, str]  # one example's cells by column: {"label": "cat"}
Labels = Any  # y of N rows: an array with first axis N, or a value with len() and y[rows]
POOLED = ("pooled",)  # outputs of a backbone that heads read: one row of features per example
STRIDES = ("stride8", "stride16", "stride32")  # or activations, which tell where things are
Range = tuple[float, float]  # the least and the largest value that a metric can have
ANY, POSITIVE, UNIT = (-math.inf, math.inf), (0.0, math.inf), (0.0, 1.0)


@dataclass(frozen=True)
class Share:
    """A metric with Wilson's interval.

    share: from 0 to 1. n: the number of rows. size: the effective sample size, if not n.
    scale: an increasing function from the share, and from each end of its interval, to the value.
    """

    share: float
    n: int
    size: float | None = None
    scale: Callable[[float], float] = float

    @property
    def value(self) -> float:
        return self.scale(self.share)

    @property
    def within(self) -> Range:
        return self.scale(0.0), self.scale(1.0)


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of one number per row (N,), N > 0, with an interval by bootstrap of the rows.

    within: the least and the largest value that it can have.
    """

    rows: NDArray[np.float64]
    within: Range = ANY

    @property
    def value(self) -> float:
        return float(self.rows.mean())

    @property
    def n(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Plain:
    """A metric of n rows without an interval."""

    value: float
    n: int
    within: ClassVar[Range] = ANY


@dataclass(frozen=True, eq=False)
class Resampled:
    """A statistic of n rows, such as R² or F1, with an interval by bootstrap of the rows.

    of: from row numbers (M,), with repetitions, to the statistic of these rows; NaN if undefined.
    within: the least and the largest value that it can have.
    """

    n: int
    of: Callable[[NDArray[np.int64]], float]
    within: Range = ANY

    @property
    def value(self) -> float:
        return self.of(np.arange(self.n))


Metric = Share | Mean | Plain | Resampled

CHART_POINTS = 2000  # more would make a report large, and no chart clearer


@dataclass(frozen=True)
class Chart(Record):
    """A chart of a report. x, y: the titles of the axes.

    points: (x, y), at most CHART_POINTS; of more, the points at even steps are kept, and those that
    are not finite are left out. bars: one bar per point. line: the points joined in their order.
    diagonal: whether to draw the line y = x.
    """

    name: str
    title: str
    x: str
    y: str
    kind: Literal["points", "bars", "line"]
    points: tuple[tuple[float, float], ...]
    diagonal: bool = False

    def __post_init__(self) -> None:
        finite = [(x, y) for x, y in self.points if math.isfinite(x) and math.isfinite(y)]
        n, most = len(finite), min(len(finite), CHART_POINTS)
        kept = (finite[i * n // most] for i in range(most))
        object.__setattr__(self, "points", tuple((float(x), float(y)) for x, y in kept))


def resampled(
    n: int, of: Callable[[NDArray[np.int64]], float], within: Range = ANY
) -> Resampled | None:
    """Return a statistic of n rows, None if they do not determine it."""
    metric = Resampled(n, of, within)
    return metric if n and math.isfinite(metric.value) else None


@dataclass(frozen=True)
class Table:
    """A table of an evaluation.

    name: its key in evaluation.json. columns: their titles. keys: the columns' names in
    evaluation.json, where each row is an object under its first cell; without keys it is a list.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    keys: tuple[str, ...] = ()


class Noticed(NamedTuple):
    """Something remarkable in labels: the row, None for all; the kind of remark; the reason.

    text, facts: the name of the reason in a report's words, and its values by name.
    """

    row: int | None
    kind: str
    reason: str
    text: str = ""
    facts: tuple[tuple[str, str | int | float], ...] = ()


@dataclass(frozen=True)
class Baseline:
    """The metric `name` of one answer for all rows, such as the "majority" of training rows."""

    kind: str
    answer: str
    name: str
    metric: Any  # a Metric from the target, an Estimate in an evaluation


class Target(Protocol):
    """What a model predicts. A subclass implements the methods without a default."""

    kind: ClassVar[str]  # "class", "count"; saved with a model
    reads: ClassVar[tuple[str, ...]]  # columns of a manifest; the first one holds the label
    # Other columns that may hold the label, if the first is missing and the kind is asked for.
    instead: ClassVar[tuple[str, ...]] = ()
    blank: ClassVar[bool] = False  # whether an empty cell is a label
    losses: ClassVar[tuple[str, ...]] = ()  # names that `TargetPlan.loss` may have

    no_search: ClassVar[str] = ""  # why heads on pooled features say nothing; "" if they do
    takes: ClassVar[tuple[str, ...]] = POOLED  # outputs of a backbone that its heads read
    # The keys of each item that `listed` returns, such as label and score; () for a target whose
    # answer is a single thing.
    listing: ClassVar[tuple[str, ...]] = ()
    resamples: ClassVar[int] = 0  # of a bootstrap of metrics; 0 for the usual number
    counts_right: ClassVar[bool] = False  # whether `right` returns a tensor: histories' "accuracy"
    # How raw outputs (N, K) become answers: a softmax over K classes, K independent sigmoids,
    # sigmoid(raw[:, k]) = P(grade > k) with one slope for all k, or the value itself. None: only
    # heads trained by epochs, and families that name the target's kind, can predict it.
    link: ClassVar[Link | None] = None
    loss_name: ClassVar[str] = "loss"  # of `row_losses`
    decides: ClassVar[bool] = False  # whether `decided` chooses anything, such as thresholds
    merit_name: ClassVar[str] = "score"  # of the first number of `merit`
    gain_name: ClassVar[str] = "score gained"  # of a difference of `row_scores`
    shown: ClassVar[tuple[str, ...]] = ()  # metrics in the order of printing; () as computed
    ordered: ClassVar[bool] = False  # whether the groups of `census` have an order
    region_names: ClassVar[tuple[str, ...]] = ()  # columns of `region_columns`, such as low, high
    region_noun: ClassVar[str] = "set"  # of what `region` gives: "interval"
    # Whether `topics` are names, of which a user may choose one to explain.
    names_topics: ClassVar[bool] = False
    # Whether the loss can learn probabilities of the labels, of which `smoothed` is the tensor.
    takes_soft: ClassVar[bool] = False
    size_noun: ClassVar[str] = "size"  # of what `region_size` gives: "width"

    # ------------------------------------------------------------ labels
    @classmethod
    def detect(cls, columns: Collection[str]) -> bool:
        """Return whether data with these columns can have this target."""
        return set(cls.reads) <= set(columns)

    @classmethod
    def spread(cls, columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Return the columns that hold the labels of a table together, one per label; () if none.

        columns: the cells of a table's columns without a known meaning.
        """
        return ()

    @classmethod
    def cells(cls, labels: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """Return the cells of labels in memory by column, a mapping for each row."""
        return [{cls.reads[0]: label} for label in labels]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """Return the target of a data set, such as its class names, independent of any split."""
        return cls()

    def planned(self, plan: TargetPlan) -> Self:
        """Return a copy with the user's settings; SpecError for one that this kind does not have.

        The default has no settings.
        """
        if plan.ordered:
            raise SpecError(f"--ordered is for grades, not for {self.noun}. Leave it out.")
        if plan.loss and plan.loss not in self.losses:
            known = f"it is {' or '.join(self.losses)}" if self.losses else "there is only one"
            raise SpecError(f"For {self.noun} --loss {plan.loss} is not known: {known}.")
        return self

    def choice(self, y: Labels) -> str:
        """Return how the labels were read, and the flag for another reading; "" if obvious."""
        return f"{self.noun}: {len(y):,} rows"

    def fitted(self, y: Labels) -> Self:
        """Return a copy with statistics of the training labels `y`: the majority, a scale."""
        return self

    def encode(self, row: Row) -> Any:
        """Return a row's label as a plain value, such as 2; raises DataError for a wrong one."""
        ...

    def labels(self, values: Sequence[Any]) -> Labels:
        """Return encoded labels as the array for loss and metrics; DataError for a wrong one."""
        ...

    def present(self, values: Sequence[Any]) -> "tuple[Target, tuple[Any, ...]]":
        """Return the target without the classes that no label in `values` has, and its labels."""
        return self, tuple(values)

    def plain(self, labels: Sequence[Any]) -> tuple[Any, ...]:
        """Return encoded labels as plain values, of which a fingerprint can be made."""
        return tuple(labels)

    def check_names(self) -> None:
        """Raise DataError for reserved names, and for a name that occurs twice."""
        return None

    def decode(self, y: Labels) -> list[str]:
        """Return the labels as the data writes them, "" if unknown."""
        return ["" if not known else str(v) for v, known in zip(y, self.known(y), strict=True)]

    def brief(self, y: Labels) -> list[str]:
        """Return the labels for messages and captions; by default as `decode` does."""
        return self.decode(y)

    def caption(self, cell: str) -> str:
        """Return a text of `decode` as it stands below an example: by default as it is."""
        return cell

    def parse(self, cells: Sequence[str]) -> Labels:
        """Return the labels from the texts of `decode`."""
        y, labelled = self.unknown(len(cells)), [i for i, cell in enumerate(cells) if cell]
        if labelled:
            y[labelled] = self.labels([self.encode({self.reads[0]: cells[i]}) for i in labelled])
        return y

    def known(self, y: Labels) -> NDArray[np.bool_]:
        """Return (N,) whether each label is known."""
        return np.ones(len(y), bool)

    def unknown(self, n: int) -> Labels:
        """Return n unknown labels."""
        ...

    def translate(self, y: Labels, target: "Target") -> Labels:
        """Return labels encoded by `target` re-encoded by this one, unknown where it cannot."""
        return y if self.agrees(target) else self.unknown(len(y))

    def strata(self, y: Labels) -> NDArray[np.int64]:
        """Return (N,) strata, whose shares splits and folds keep."""
        return np.zeros(len(y), np.int64)

    def census(self, y: Labels) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
        """Return the names of groups of labels, such as ranges of a number, and (N, G) membership.

        For tables that count rows; a row may be in several groups. No groups by default.
        """
        return (), np.zeros((len(y), 0), bool)

    def unlike(self, a: Any, b: Any) -> bool:
        """Return whether nearly the same examples should not have these encoded labels."""
        return bool(a != b)

    def remarks(self, y: Labels) -> Iterable[tuple[int | None, str, str] | Noticed]:
        """Return what is remarkable in labels: row, or None for all; kind of remark; the reason.

        A `Noticed` also names the reason in a report's words.
        """
        return ()

    def about_test(self, y: Labels) -> str:
        """Return a warning on what the labels of a test part are too few to measure; "" if none."""
        return ""

    @property
    def stratum_names(self) -> tuple[str, ...]:
        """The names of the strata if each needs rows in every part, else ()."""
        return ()

    # ------------------------------------------------------------ learning
    @property
    def outputs(self) -> int:
        """K, the width of a head's raw output."""
        return 1

    def accepts(self, width: int) -> bool:
        """Return whether a head with `width` raw outputs fits this target."""
        return width == self.outputs

    def soft(self, y: Labels, smoothing: float = 0.0) -> "Tensor":
        """Return labels as floats, first axis N, which mixup can blend."""
        import torch

        if smoothing:
            raise SpecError(f"Label smoothing is for classes, not for a {self.kind}. Leave it out.")
        return torch.as_tensor(y).float()

    def smoothed(self, soft: "Tensor", smoothing: float) -> "Tensor":
        """Return probabilities of the labels, (N, K), smoothed as `soft` smooths labels."""
        raise SpecError(f"Probabilities of labels are for classes, not for {self.noun}.")

    def loss(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        """Return (N,) unweighted losses of raw outputs (N, K)."""
        ...

    def raw_losses(self, raw: NDArray[np.float64], y: Labels) -> NDArray[np.float64]:
        """Return (N,) losses of a solved head's raw outputs (N, K): those of `loss`.

        By default of `loss` itself; the built-in targets do without PyTorch.
        """
        import torch

        losses = self.loss(torch.from_numpy(raw), self.soft(y))
        return losses.double().numpy()

    def learning(self, asked: "Target") -> Self:
        """Return this target, fitted before, with the loss that `asked` has."""
        return self

    @property
    def learning_key(self) -> tuple[Any, ...]:
        """What decides training beside the rows and their labels, as plain values for fingerprints.

        By default the kind. It is () where labels of this form are of no other kind and the loss is
        the usual one.
        """
        return (self.kind,)

    @property
    def solvable(self) -> bool:
        """Whether heads with a closed form or a convex loss minimise what `loss` asks for."""
        return self.link is not None

    @property
    def residual_loss(self) -> ResidualLoss | None:
        """The loss of the residuals of `regression`, if it is another than the squared one."""
        return None

    def regression(self, y: Labels) -> NDArray[np.float64]:
        """Return what a solved head regresses on, (N, K).

        By link: one-hot classes; 0 or 1 for each label; whether the grade is above k; the
        standardised number.
        """
        raise SpecError(f"A {self.kind} is learned by epochs: name --head linear or mlp.")

    def tie(self, last: "nn.Linear") -> None:
        """Keep what must stay equal in the last layer of a head that is trained by epochs.

        With the link "cumulative": make the rows of the weight equal and the biases descend, and
        register a hook that averages the rows' gradients, so that every optimizer keeps them equal.
        """
        return None

    def right(self, raw: "Tensor", soft: "Tensor") -> "Tensor | None":
        """Return (N,) whether each answer is right; None if answers can be partly right."""
        return None

    def balance(self, how: ClassWeights, y: Labels, case: Array | None = None) -> Array:
        """Return the values that `weights` needs of all training labels, such as class weights.

        case: (N,) case weights of these rows, passed only if there are any.
        """
        if how != "none":
            raise SpecError(
                f"Class weights are for classes, not for a {self.kind}; leave them out."
            )
        return np.ones(1)

    def weights(self, soft: "Tensor", balance: "Tensor") -> "Tensor":
        """Return (N,) weights of the rows in the loss."""
        import torch

        return torch.ones(len(soft))

    def row_weights(
        self,
        how: ClassWeights,
        y: Labels,
        train: Labels | None = None,
        case: Array | None = None,
    ) -> NDArray[np.float64]:
        """Return (N,) weights of rows with labels `y` in the fit of a solved head.

        train: all training labels, over which the weights have a mean of 1; None for `y`. case:
        case weights of the training rows, by which that mean is weighted, passed only if there are
        any; they are no factor of the result.
        """
        self.balance(how, y if train is None else train)  # raises SpecError for other than "none"
        return np.ones(len(y))

    def row_losses(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) losses of answers, lower is better; solved heads are chosen by the mean."""
        return -self.row_scores(answers, y)

    def decided(self, answers: Outputs, y: Labels) -> Self:
        """Return a copy whose decisions, such as a threshold per label, are chosen on these rows.

        answers: of rows that the head was not fitted on.
        """
        return self

    # ------------------------------------------------------------ answers
    def activate(self, raw: Array) -> Outputs:
        """Convert raw outputs (N, K) to answers, such as probabilities."""
        ...

    def check(self, answers: Outputs, y: Labels) -> None:
        """Raise Mismatch unless the arrays are answers and labels of the same rows."""
        return None

    def summary(self, answers: Outputs) -> Mapping[str, Array]:
        """Return arrays made of answers, first axis N, nearly the same on every processor."""
        return answers

    def listed(self, answers: Outputs, row: int) -> list[dict[str, Any]]:
        """Return the things that a row's answer consists of, as JSON values; [] if it is one."""
        return []

    def answer_at(self, answers: Outputs, row: int) -> Any:
        """Return the answer to a row as it is shown below an example: the first of `columns`."""
        return next(iter(self.columns(answers).values()))[row]

    def columns(self, answers: Outputs) -> Mapping[str, Array]:
        """Return the columns of predictions.csv after path and label, (N,) numbers or texts."""
        return answers

    def written(self, answers: Outputs) -> Mapping[str, Array]:
        """Return the columns from which `answers` restores all: by default those of `columns`."""
        return self.columns(answers)

    def answers(self, columns: Mapping[str, Sequence[str]]) -> Outputs:
        """Return the answers that `written` wrote; raises DataError for anything else."""
        return {name: np.array(cells, np.float32) for name, cells in columns.items()}

    # ------------------------------------------------------------ export
    def in_graph(self, nodes: "Nodes", raw: str, temperature: float) -> Mapping[str, str]:
        """Add what follows a head to an exported graph; returns the values of its outputs by name.

        raw: (N, K) float64. temperature: by which answers are `scaled`. Raises SpecError for a kind
        that can't be exported.
        """
        raise SpecError(f"`headstart export` does not know the answers of {self.noun}.")

    def of_graph(self, outputs: Outputs) -> Outputs:
        """Return the answers in the outputs of an exported graph."""
        return outputs

    def comparable(self, answers: Outputs) -> Mapping[str, Array]:
        """Return numbers of about size 1, first axis N, by which two engines are compared."""
        return {n: a for n, a in self.summary(answers).items() if a.dtype != np.bool_}

    def export_facts(self) -> dict[str, Any]:
        """Return the facts that a program needs to read an exported graph's outputs, as JSON."""
        return {"kind": self.kind, **self.settings()}

    def answers_changed(self, before: Outputs, after: Outputs) -> NDArray[np.bool_]:
        """Return (N,) which rows `after` answers otherwise than `before` does."""
        predicted = (self.columns(answers)["predicted"] for answers in (before, after))
        return np.array([one != other for one, other in zip(*predicted, strict=True)], bool)

    # ------------------------------------------------------------ evaluation
    def row_scores(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) scores of the answers, higher is better; runs are compared by the means."""
        ...

    def merit(self, answers: Outputs, y: Labels) -> tuple[float, ...]:
        """Return a sort key for models on validation, a tuple of numbers; the highest key wins."""
        return (float(self.row_scores(answers, y).mean()),)

    def metrics(self, answers: Outputs, y: Labels) -> Mapping[str, Metric | None]:
        """Return metrics by name, None where undefined for these rows."""
        ...

    def lacks(self, other: "Target") -> tuple[str, ...]:
        """Return the names of labels that `other` has and this target does not."""
        return ()

    def agrees(self, other: "Target") -> bool:
        """Return whether predictions for the two targets can be compared."""
        return self.kind == other.kind

    @property
    def noun(self) -> str:
        """What is predicted, as a phrase: "several labels"."""
        return f"a {self.kind}"

    @property
    def described(self) -> str:
        """The target with its settings, as a phrase for messages."""
        return f"a {self.kind}"

    def baseline(self, y: Labels) -> Baseline | None:
        """Return the metric of the constant answer that `fitted` found."""
        return None

    def tables(self, answers: Outputs, y: Labels) -> tuple[Table, ...]:
        """Return tables to show beside the metrics: confusion, residuals."""
        return ()

    def charts(self, answers: Outputs, y: Labels) -> tuple[Chart, ...]:
        """Return charts for the report, such as predicted against true values."""
        return ()

    # ------------------------------------------------------------ uncertainty
    def temperature(self, answers: Outputs, y: Labels) -> float:
        """Return the temperature that calibrates the answers; 1 leaves them unchanged."""
        return 1.0

    def scaled(self, answers: Outputs, temperature: float) -> Outputs:
        return answers

    def confidence(self, answers: Outputs) -> NDArray[np.float64] | None:
        """Return (N,) confidences from 0 to 1, or None."""
        return None

    def conformity(self, answers: Outputs, y: Labels) -> NDArray[np.float64] | None:
        """Return conformal scores, higher for answers further from the labels, or None.

        (N,), or (N, L) for L questions per row, each with a limit of its own; NaN if unknown.
        """
        return None

    def region(self, answers: Outputs, limit: float | Array) -> Mapping[str, Array]:
        """Return each row's set of labels with a `conformity` up to `limit`, as named arrays.

        limit: one number, or (L,) for a `conformity` of (N, L).
        """
        return {}

    def region_columns(self, region: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the columns `region_names` of a region: (N,) numbers, or tuples of names."""
        return {name: region[name] for name in self.region_names}

    def covered(self, region: Mapping[str, Array], y: Labels) -> Array | None:
        """Return whether each region holds the label, in the shape of `conformity`, as floats.

        NaN for unknown labels; None without regions.
        """
        return None

    def region_size(self, region: Mapping[str, Array]) -> NDArray[np.float64] | None:
        """Return (N,) the size of each region, such as a number of labels or a width, or None."""
        return None

    # ------------------------------------------------------------ explanation
    def topics(self) -> tuple[str, ...]:
        """Return what an answer is explained about: one of the labels, or the only quantity."""
        return (self.kind,)

    def topic(self, answers: Outputs) -> NDArray[np.int64]:
        """Return (N,) the number in `topics` that each answer is explained about by default."""
        return np.zeros(len(next(iter(answers.values()))), np.int64)

    def evidence(self, raw: "Tensor", topic: "int | Tensor") -> "Tensor":
        """Return (N,) the quantity that an explanation divides among the parts of an example.

        raw: (N, K) outputs of a head, through which gradients go. topic: one number in `topics`,
        or (N,) one per row. The default takes the only output.
        """
        return raw[:, 0]

    def degree(self, answers: Outputs, topic: int) -> NDArray[np.float64]:
        """Return (N,) from 0 to 1 what `evidence` means in the answers, for deletion curves.

        A probability, or the place on the scale of the training rows.
        """
        return np.asarray(next(iter(answers.values())), np.float64)

    # ------------------------------------------------------------ files
    def heading(self) -> dict[str, Any]:
        """Return the first entries of evaluation.json."""
        return {"target": {"kind": self.kind, **self.settings()}}

    def settings(self) -> dict[str, Any]:
        """Return the settings for `load`, ready for JSON."""
        return {}

    @classmethod
    def of_columns(cls, columns: Collection[str]) -> Self:
        """Return the target of a file of predictions with these columns, as far as they show it."""
        return cls()

    @classmethod
    def load(cls, settings: Mapping[str, Any]) -> Self:
        """Return the target of `settings`; raises Mismatch for wrong ones."""
        return cls(**settings)


def check_searched(target: Target) -> None:
    """Raise SpecError if heads on pooled features can't stand for a model of a target."""
    if target.no_search:
        raise SpecError(target.no_search)
