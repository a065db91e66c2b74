"""Single-label classification."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.cells import NUMBER
from headstart.base.display import CONTROLS, display
from headstart.base.errors import DataError, Mismatch, UnknownName
from headstart.base.onnx_nodes import whole
from headstart.targets import metrics, saved
from headstart.targets.class_metrics import auroc_metric
from headstart.targets.focal import FocalTarget, focal
from headstart.targets.one_name import UNKNOWN as UNKNOWN
from headstart.targets.one_name import OneName
from headstart.targets.tallies import Tallies
from headstart.targets.target import (
    POSITIVE,
    Array,
    Baseline,
    Labels,
    Link,
    Mean,
    Metric,
    Outputs,
    Row,
    Share,
    Table,
    Target,
)
from headstart.targets.temperature import fit_temperature, scaled

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.base.onnx_nodes import Nodes

UNLABELLED = "?"  # the class of files without labels
RESERVED = {  # names that no class may have -> why
    "unknown": "predictions say of a picture that the model does not know",
    UNLABELLED: "stands for a label that is not known",
}
SCORE = "score:"  # prefix of the scores' columns, so that a class may be called "path"


@dataclass(frozen=True)
class ClassTarget(FocalTarget, OneName):
    """One class of `names` per row; labels are (N,) int64 indices into `names`, -1 if unknown.

    Answers are {"scores": (N, C) float32}, whose rows sum to 1, and {"answers": (N,) int64} too
    where the answer is not always the class of the highest score; scores of shape (N, 0) mean that
    only answers are known. majority: the class with the most training rows, "" if unknown. focal:
    gamma of the focal loss, None for cross-entropy; no part of a saved model.
    """

    names: tuple[str, ...]
    majority: str = ""
    focal: float | None = field(default=None, compare=False)
    kind: ClassVar[str] = "class"
    name_noun: ClassVar[str] = "class"
    reads: ClassVar[tuple[str, ...]] = ("label",)
    instead: ClassVar[tuple[str, ...]] = ("labels", "value")
    counts_right: ClassVar[bool] = True
    merit_name: ClassVar[str] = "accuracy"
    gain_name: ClassVar[str] = "accuracy gained"
    names_topics: ClassVar[bool] = True
    takes_soft: ClassVar[bool] = True
    link: ClassVar[Link | None] = "softmax"
    loss_name: ClassVar[str] = "log_loss"
    shown: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "auroc",
        "log_loss",
    )

    def __post_init__(self) -> None:
        if self.majority and self.majority not in self.names:
            raise UnknownName("class", self.majority, self.names)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "ClassTarget":
        return cls(tuple(sorted({row["label"] for row in rows})))

    def fitted(self, y: Labels) -> "ClassTarget":
        return replace(self, majority=self.most_frequent(y))

    def labels(self, values: Sequence[Any]) -> NDArray[np.int64]:
        if len(values) and not 0 <= min(values) <= max(values) < len(self.names):
            raise DataError(f"Labels count from 0 to {len(self.names) - 1}, one for each class.")
        if odd := next((name for name in self.names if CONTROLS.search(name)), None):
            raise DataError(
                f"The name of a class must be printable, and '{display(odd)}' holds control "
                f"characters. Rename its folder or its label."
            )
        return np.array(values, dtype=np.int64)

    def present(self, values: Sequence[int]) -> tuple["ClassTarget", tuple[int, ...]]:
        used = sorted(set(values))
        number = {old: new for new, old in enumerate(used)}
        names = tuple(self.names[c] for c in used)
        return replace(self, names=names), tuple(number[value] for value in values)

    def check_names(self) -> None:
        check_class_names(self.names)

    def choice(self, y: Labels) -> str:
        """Return a phrase for names that are all numbers."""
        if not self.names or not all(NUMBER.fullmatch(name) for name in self.names):
            return ""
        return f"classes: {len(self.names)} labels, all numbers; for a number say --target number"

    def translate(self, y: Labels, target: Target) -> NDArray[np.int64]:
        there = [self._places.get(name, UNKNOWN) for name in class_names(target)]
        return np.array([*there, UNKNOWN], np.int64)[y]

    @property
    def outputs(self) -> int:
        return len(self.names)

    def accepts(self, width: int) -> bool:
        """Accept one logit per class, or for two classes one logit of the second."""
        return width == len(self.names) or (width == 1 and len(self.names) == 2)

    def loss(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        """Return (N,) cross-entropies of logits (N, C), or of logits (N, 1) of the second class.

        Or focal losses.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, pad

        if self.focal is not None:
            logits = pad(raw, (1, 0)) if raw.shape[1] == 1 else raw
            return focal(log_softmax(logits, dim=1), soft, self.focal).sum(dim=1)
        if raw.shape[1] == 1:
            return binary_cross_entropy_with_logits(raw[:, 0], soft[:, 1], reduction="none")
        return -(soft * log_softmax(raw, dim=1)).sum(dim=1)

    def regression(self, y: Labels) -> NDArray[np.float64]:
        return (y[:, None] == np.arange(len(self.names))).astype(np.float64)

    def right(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        called = (raw[:, 0] > 0).long() if raw.shape[1] == 1 else raw.argmax(1)
        return called == soft.argmax(1)

    def activate(self, raw: Array) -> Outputs:
        """Return softmax scores of logits (N, C), or of logits (N, 1) of the second class."""
        logits = np.hstack([np.zeros_like(raw), raw]) if raw.shape[1] == 1 else raw
        return {"scores": metrics.softmax(logits, np.float32)}

    def in_graph(self, nodes: "Nodes", raw: str, temperature: float) -> Mapping[str, str]:
        """Add the softmax, scaled as `temperature.scaled` does."""
        if self.names and len(self.names) == 2:  # perhaps one logit, of the second class
            first = nodes("Slice", raw, whole(0), whole(1), whole(1))
            both = nodes("Concat", nodes("Mul", first, np.float64(0)), raw, axis=1)
            raw = nodes("Slice", both, whole(-2), whole(3), whole(1))
        scores = nodes.cast(nodes("Softmax", raw, axis=1), np.float32)
        if temperature != 1.0:
            least = np.float32(np.finfo(np.float32).tiny)
            logs = nodes("Log", nodes.cast(nodes("Max", scores, least), np.float64))
            share = nodes("Softmax", nodes("Div", logs, np.float64(temperature)), axis=1)
            scores = nodes.cast(share, np.float32)
        return {"scores": scores}

    def check(self, answers: Outputs, y: Labels) -> None:
        n, c = len(y), len(self.names)
        scores, given = answers["scores"], answers.get("answers")
        shapes = {(n, c)} if given is None else {(n, c), (n, 0)}
        if scores.shape not in shapes or y.shape != (n,):
            raise Mismatch(
                f"Predictions hold one label per row and one score per class, for {n} rows and {c} "
                f"classes; got labels {y.shape} and scores {scores.shape}."
            )
        if scores.dtype != np.float32 or y.dtype != np.int64:
            raise Mismatch(
                f"Scores are float32 and labels int64; got {scores.dtype} and {y.dtype}. Convert "
                f"them with .astype."
            )
        if len(set(self.names)) < c:
            raise Mismatch(f"Every class has a name of its own; got {self.names}.")
        if n and not UNKNOWN <= y.min() <= y.max() < c:
            raise Mismatch(f"A label is from 0 to {c - 1}, or -1 if unknown; got {y}.")
        if given is not None:
            check_answers(given, n, c)
        if scored(answers):
            check_probabilities(scores)

    def columns(self, answers: Outputs) -> Mapping[str, Array]:
        names = np.array(self.names, object)[predicted(answers)]
        scores = answers["scores"].T if scored(answers) else ()
        return {"predicted": names} | {
            SCORE + name: column for name, column in zip(self.names, scores, strict=False)
        }

    def row_scores(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) 1 where the class is right, 0 where it is wrong."""
        return (predicted(answers) == y).astype(np.float64)

    def merit(self, answers: Outputs, y: Labels) -> tuple[float, ...]:
        """Return accuracy and, for ties, minus the log loss."""
        return metrics.accuracy(answers["scores"], y), -metrics.log_loss(answers["scores"], y)

    def metrics(self, answers: Outputs, y: Labels) -> Mapping[str, Metric | None]:
        right = int((predicted(answers) == y).sum())
        table = Tallies.of(predicted(answers), y, len(self.names))
        named = scored(answers) and len(y) > 0
        losses = metrics.log_losses(answers["scores"], y) if named else None
        return {
            "accuracy": Share(right / len(y), len(y)) if len(y) else None,
            "balanced_accuracy": table.balanced_accuracy(),
            "macro_f1": table.macro_f1(),
            "log_loss": Mean(losses, POSITIVE) if losses is not None else None,
            "auroc": auroc_metric(answers["scores"], y) if named else None,
        }

    def agrees(self, other: Target) -> bool:
        return self.names == class_names(other)

    @property
    def noun(self) -> str:
        return "classes"

    @property
    def described(self) -> str:
        return f"the classes {', '.join(self.names)}, in this order"

    def baseline(self, y: Labels) -> Baseline | None:
        if not self.majority:
            return None
        return Baseline("majority", self.majority, "accuracy", self.share_of(self.majority, y))

    def tables(self, answers: Outputs, y: Labels) -> tuple[Table, ...]:
        table = Tallies.of(predicted(answers), y, len(self.names))
        each = tuple((n, *own) for n, own in zip(self.names, table.class_cells(), strict=True))
        titles = ("class", "n", "precision", "recall", "F1")
        per_class = Table("per_class", "Class by class", titles, each, (*titles[:-1], "f1"))
        if table.many:
            return per_class, _confused(table, self.names)
        cells = tuple(tuple(row) for row in table.matrix.tolist())
        return per_class, Table("confusion", "Confusion matrix", self.names, cells)

    def temperature(self, answers: Outputs, y: Labels) -> float:
        return fit_temperature(answers["scores"], y)

    def scaled(self, answers: Outputs, temperature: float) -> Outputs:
        return {**answers, "scores": scaled(answers["scores"], temperature)}

    def confidence(self, answers: Outputs) -> NDArray[np.float64]:
        return answers["scores"].max(axis=1).astype(np.float64)

    def conformity(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) 1 - the score of the true class (Sadinle, Lei, Wasserman 2019)."""
        own: NDArray[np.float64] = answers["scores"][np.arange(len(y)), y].astype(np.float64)
        return 1.0 - own

    def region(self, answers: Outputs, limit: float | Array) -> Mapping[str, Array]:
        """Return (N, C) whether each class is in the prediction set, which may be empty."""
        return {"not_ruled_out": 1.0 - answers["scores"].astype(np.float64) <= limit}

    # ------------------------------------------------------------ explanation
    def topics(self) -> tuple[str, ...]:
        return self.names

    def topic(self, answers: Outputs) -> NDArray[np.int64]:
        return predicted(answers)

    def evidence(self, raw: "Tensor", topic: "int | Tensor") -> "Tensor":
        """Return (N,) log odds of the class; one logit is that of the second of two classes."""
        import torch

        logits = raw if raw.shape[1] > 1 else torch.cat([torch.zeros_like(raw), raw], dim=1)
        return log_odds(logits, torch.as_tensor(topic, device=raw.device).expand(len(raw)))

    def degree(self, answers: Outputs, topic: int) -> NDArray[np.float64]:
        return np.asarray(answers["scores"][:, topic], np.float64)

    # ------------------------------------------------------------ files
    def heading(self) -> dict[str, Any]:
        return {"classes": list(self.names)}

    def settings(self) -> dict[str, Any]:
        return {"names": list(self.names), "majority": self.majority}

    @classmethod
    def load(cls, settings: Mapping[str, Any]) -> "ClassTarget":
        saved.check_keys(settings, {"names", "majority"}, set())
        return cls(saved.names(settings["names"]), saved.text(settings["majority"], "majority"))


def _confused(table: Tallies, names: Sequence[str]) -> Table:
    """Return the cells of a confusion matrix that hold mistakes, the largest first."""
    rows = tuple(
        (names[table.label[k]], names[table.predicted[k]], int(table.n[k]))
        for k in table.mistakes.tolist()
    )
    return Table("confused", "Confused classes", ("class", "predicted", "n"), rows)


def log_odds(logits: "Tensor", numbers: "Tensor") -> "Tensor":  # (N, C), (N,) -> (N,)
    """Return the log odds of each row's class; adding a constant to all logits changes nothing."""
    own = logits.gather(1, numbers[:, None])[:, 0]
    others = logits.scatter(1, numbers[:, None], -math.inf)
    return own - others.logsumexp(dim=1)


def check_class_names(
    names: Sequence[str], reserved: Mapping[str, str] = RESERVED, what: str = "class"
) -> None:
    """Raise DataError for a name that is reserved (`reserved` says why) or occurs twice."""
    for name in names:
        if name in reserved:
            raise DataError(
                f"A {what} must not be called {name!r}, which {reserved[name]}: give it another "
                f"name, such as 'other'."
            )
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise DataError(f"Every {what} must have a name of its own; {twice[0]!r} is there twice.")


def names_of_scores(columns: Collection[str]) -> tuple[str, ...]:
    """Return the names in the columns of scores, score:NAME; raises DataError without any."""
    names = tuple(name.removeprefix(SCORE) for name in columns if name.startswith(SCORE))
    if not names:
        raise DataError(
            "A file of predictions of labels or grades has a column score:NAME for each of them; "
            "there is none."
        )
    return names


def names_beyond(names: Sequence[str], other: Target) -> tuple[str, ...]:
    """Return the names of another target's labels that are not in `names`."""
    return tuple(name for name in getattr(other, "names", ()) if name not in names)


def class_names(target: Target) -> tuple[str, ...]:
    """Return the names of a target's classes; () if the target has no classes."""
    return target.names if isinstance(target, ClassTarget) else ()


def as_target(target: Target | tuple[str, ...]) -> Target:
    """Return a target unchanged, or a ClassTarget of class names."""
    return ClassTarget(target) if isinstance(target, tuple) else target


def scored(answers: Outputs) -> bool:
    """Return whether there are probabilities, which log loss and AUROC need."""
    return "answers" not in answers or answers["scores"].shape[1] > 0


def predicted(answers: Outputs) -> NDArray[np.int64]:
    """Return (N,) answers, or else classes of the highest score; ties go to the first class."""
    if "answers" in answers:
        return answers["answers"]
    scores = answers["scores"]
    return scores.argmax(axis=1) if len(scores) else np.zeros(0, np.int64)


def check_probabilities(scores: Array) -> None:
    if (row := improbable(scores)) is not None:
        raise Mismatch(
            f"The scores of a row are probabilities and sum to 1; row {row} has {scores[row]}."
        )


def improbable(scores: Array) -> int | None:
    """Return the first row that is not probabilities summing to 1 (NaN included), or None."""
    sums = scores.sum(axis=1, dtype=np.float64)
    wrong = ~(np.abs(sums - 1.0) < 1e-3) | ~(scores >= 0).all(axis=1)
    return int(wrong.argmax()) if wrong.any() else None


def check_answers(answers: Array, n: int, classes: int) -> None:
    if answers.shape != (n,) or answers.dtype != np.int64:
        raise Mismatch(
            f"There is one answer per row, an int64; got {answers.shape} of {answers.dtype} for "
            f"{n} rows."
        )
    if n and not 0 <= answers.min() <= answers.max() < classes:
        raise Mismatch(f"An answer is a class, from 0 to {classes - 1}; got {answers}.")
