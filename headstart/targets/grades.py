"""One of several grades that have an order, such as low, middle, high."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.cells import NUMBER, as_text
from headstart.base.errors import DataError, Mismatch, SpecError, UnknownName
from headstart.base.onnx_nodes import whole
from headstart.targets import saved
from headstart.targets.class_metrics import class_cells
from headstart.targets.classes import (
    SCORE,
    check_answers,
    check_class_names,
    check_probabilities,
    names_beyond,
    names_of_scores,
)
from headstart.targets.grade_metrics import median_grades, quadratic_kappa, reach
from headstart.targets.labels import named_rows
from headstart.targets.metrics import confusion
from headstart.targets.one_name import UNKNOWN, OneName
from headstart.targets.plan import TargetPlan
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
    resampled,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from headstart.base.onnx_nodes import Nodes

SHOWN = 40  # characters of a name in a message
APART = 1e-6  # least distance of two raw outputs in the loss, where the grade between is not 0


@dataclass(frozen=True)
class GradesTarget(OneName):
    """One of `names`, the lowest grade first; labels are (N,) int64 from 0, -1 if unknown.

    Raw outputs (N, C - 1) are the log odds of a grade above 0, above 1, …: proportional odds
    (McCullagh 1980). Answers are {"scores": (N, C) float32}, whose rows sum to 1; the grade that is
    predicted is their median, which has the smallest expected distance. Predictions of others may
    have {"answers": (N,) int64} too, the grades that they predict. commonest: the grade with
    the most training rows, "" if unknown.
    """

    names: tuple[str, ...]
    commonest: str = ""
    kind: ClassVar[str] = "grades"
    name_noun: ClassVar[str] = "grade"
    reads: ClassVar[tuple[str, ...]] = ("label",)
    instead: ClassVar[tuple[str, ...]] = ("value",)
    link: ClassVar[Link | None] = "cumulative"
    loss_name: ClassVar[str] = "log_loss"
    merit_name: ClassVar[str] = "quadratic_kappa"
    gain_name: ClassVar[str] = "grades saved"
    ordered: ClassVar[bool] = True
    region_names: ClassVar[tuple[str, ...]] = ("not_ruled_out",)
    size_noun: ClassVar[str] = "grades"
    shown: ClassVar[tuple[str, ...]] = (
        "quadratic_kappa",
        "mae",
        "accuracy",
        "within_one",
        "log_loss",
    )

    def __post_init__(self) -> None:
        if self.commonest and self.commonest not in self.names:
            raise UnknownName("grade", self.commonest, self.names)

    # ------------------------------------------------------------ labels
    @classmethod
    def detect(cls, columns: Collection[str]) -> bool:
        """Return False: a column `label` holds classes unless grades are asked for."""
        return False

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "GradesTarget":
        """Return the grades in the order of their numbers, or, until it is given, by name."""
        names = sorted({row["label"] for row in rows})
        return cls(tuple(sorted(names, key=float) if _numbered(names) else names))

    def planned(self, plan: TargetPlan) -> "GradesTarget":
        """Return the grades in the plan's order, which must name those of the data exactly.

        Without an order they must be numbers.
        """
        super().planned(replace(plan, ordered=""))
        if not plan.grades:
            if _numbered(self.names):
                return self
            shown = ",".join(name[:SHOWN] for name in self.names[:3])
            raise SpecError(f"Grades need an order, the lowest first, such as --ordered {shown}.")
        if unknown := next((name for name in self.names if name not in plan.grades), None):
            raise DataError(
                f"--ordered names every grade of the data, the lowest first; a row has "
                f"{unknown[:SHOWN]!r}, which is none of {', '.join(plan.grades)}."
            )
        if missing := next((name for name in plan.grades if name not in self.names), None):
            raise DataError(
                f"Every grade of --ordered must be the label of a row, and {missing!r} is none of "
                f"{', '.join(self.names)}."
            )
        if twice := next((n for n, times in Counter(plan.grades).items() if times > 1), None):
            raise DataError(f"--ordered names each grade once; {twice!r} is there twice.")
        return replace(self, names=plan.grades)

    def labels(self, values: Sequence[int]) -> NDArray[np.int64]:
        if len(values) and not 0 <= min(values) <= max(values) < len(self.names):
            raise DataError(f"Grades count from 0 to {len(self.names) - 1}.")
        return np.array(values, dtype=np.int64)

    def present(self, values: Sequence[int]) -> tuple["GradesTarget", tuple[int, ...]]:
        used = sorted(set(values))
        place = {old: new for new, old in enumerate(used)}
        names = tuple(self.names[c] for c in used)
        return GradesTarget(names), tuple(place[value] for value in values)

    def check_names(self) -> None:
        check_class_names(self.names, what="grade")

    def translate(self, y: Labels, target: Target) -> NDArray[np.int64]:
        """Return grades by their names, unknown where this target has no such grade."""
        if y.ndim != 1 or y.dtype != np.int64:
            return self.unknown(len(y))
        there = [self._places.get(name, UNKNOWN) for name in getattr(target, "names", ())]
        return np.array([*there, UNKNOWN], np.int64)[y]

    def census(self, y: Labels) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
        return self.names, y[:, None] == np.arange(len(self.names))

    @property
    def noun(self) -> str:
        return "grades"

    @property
    def described(self) -> str:
        return f"the grades {' < '.join(self.names)}"

    def choice(self, y: Labels) -> str:
        order = " < ".join(self.names)
        return f"grades: {len(y):,} rows, {order}; for classes say --target class"

    # ------------------------------------------------------------ learning
    def fitted(self, y: Labels) -> "GradesTarget":
        return replace(self, commonest=self.most_frequent(y))

    @property
    def outputs(self) -> int:
        return len(self.names) - 1

    def loss(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        """Return (N,) cross-entropies; raw outputs that cross are sorted.

        sigmoid(u) - sigmoid(v) is sigmoid(u) sigmoid(-v) (1 - exp(v - u)), whose logarithm is
        accurate where the difference is not.
        """
        import torch
        from torch.nn.functional import logsigmoid, pad

        above = raw.sort(dim=1, descending=True).values  # log odds of more than grade k
        step = above.diff(dim=1).clamp(max=-APART)
        between = pad(torch.log(-torch.expm1(step)), (1, 1))
        logs = pad(logsigmoid(above), (1, 0)) + pad(logsigmoid(-above), (0, 1)) + between
        return -(soft * logs).sum(dim=1)

    def raw_losses(self, raw: NDArray[np.float64], y: Labels) -> NDArray[np.float64]:
        """Return (N,) cross-entropies; see `loss`."""
        above = -np.sort(-raw, axis=1)
        ends = ((0, 0), (1, 0)), ((0, 0), (0, 1)), ((0, 0), (1, 1))
        between = np.log(-np.expm1(np.minimum(np.diff(above, axis=1), -APART)))
        parts = -np.logaddexp(0, -above), -np.logaddexp(0, above), between
        logs = sum(np.pad(part, end) for part, end in zip(parts, ends, strict=True))
        losses: NDArray[np.float64] = -np.asarray(logs)[np.arange(len(y)), y]
        return losses

    def tie(self, last: "nn.Linear") -> None:
        import torch

        with torch.no_grad():
            last.weight.copy_(last.weight.mean(dim=0, keepdim=True).expand_as(last.weight))
            if not (last.bias.diff() < 0).all():
                shares = torch.arange(1, len(self.names)) / len(self.names)
                last.bias.copy_(torch.logit(1 - shares))
        last.weight.register_hook(lambda slope: slope.mean(0, keepdim=True).expand_as(slope))

    def regression(self, y: Labels) -> NDArray[np.float64]:
        return np.asarray(y[:, None] > np.arange(self.outputs), np.float64)

    # ------------------------------------------------------------ answers
    def activate(self, raw: Array) -> Outputs:
        """Return the probabilities of the grades; raw outputs that cross are sorted."""
        from scipy.special import expit

        above = expit(-np.sort(-raw.astype(np.float64), axis=1))
        ends = np.ones((len(raw), 1)), np.zeros((len(raw), 1))
        return {"scores": -np.diff(np.hstack([ends[0], above, ends[1]])).astype(np.float32)}

    def in_graph(self, nodes: "Nodes", raw: str, temperature: float) -> Mapping[str, str]:
        falling = nodes.several(2, "TopK", raw, whole(self.outputs), axis=1)[0]
        none = nodes("Mul", nodes("Slice", raw, whole(0), whole(1), whole(1)), np.float64(0))
        above = nodes("Concat", nodes("Sigmoid", falling), none, axis=1)
        one = nodes("Add", none, np.float64(1))
        over = nodes("Concat", one, nodes("Sigmoid", falling), axis=1)
        return {"scores": nodes.cast(nodes("Sub", over, above), np.float32)}

    def check(self, answers: Outputs, y: Labels) -> None:
        scores, shape = answers["scores"], (len(y), len(self.names))
        if scores.shape != shape or y.shape != shape[:1]:
            raise Mismatch(
                f"Predictions hold one grade per row and one score per grade, for {len(y)} rows "
                f"and {len(self.names)} grades; got {y.shape} and {scores.shape}."
            )
        if scores.dtype != np.float32 or y.dtype != np.int64:
            raise Mismatch(
                f"Scores are float32 and grades int64; got {scores.dtype} and {y.dtype}."
            )
        check_probabilities(scores)
        if (given := answers.get("answers")) is not None:
            check_answers(given, *shape)

    def columns(self, answers: Outputs) -> Mapping[str, Array]:
        given = np.array(self.names, object)[predicted_grades(answers)]
        scores = zip(self.names, answers["scores"].T, strict=True)
        return {"predicted": given} | {SCORE + name: column for name, column in scores}

    def answers(self, columns: Mapping[str, Sequence[str]]) -> Outputs:
        wanted = [SCORE + name for name in self.names]
        if missing := next((name for name in wanted if name not in columns), None):
            raise DataError(f"Predictions of grades have a column {missing!r}; there is none.")
        try:
            scores = [[float(cell) for cell in columns[name]] for name in wanted]
        except ValueError as error:
            raise DataError(f"A score is a number from 0 to 1: {error}.") from error
        found = {"scores": np.array(scores, np.float32).T.reshape(-1, len(self.names))}
        cells = [as_text(cell) for cell in columns.get("predicted", ())]
        if "" in cells:
            row = cells.index("") + 1
            raise DataError(f"The column predicted names a grade in each row; row {row} is empty.")
        given = self.parse(cells)
        if len(given) and (given != median_grades(found["scores"])).any():
            found["answers"] = given
        return found

    # ------------------------------------------------------------ evaluation
    def row_scores(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) minus the distances in grades, whose mean is minus MAE."""
        return -np.abs(predicted_grades(answers) - y).astype(np.float64)

    def merit(self, answers: Outputs, y: Labels) -> tuple[float, ...]:
        """Return the quadratic kappa, 0 if undefined, and, for ties, minus the log loss."""
        kappa = self.metrics(answers, y)["quadratic_kappa"]
        loss = float(self.row_losses(answers, y).mean()) if len(y) else 0.0
        return (kappa.value if kappa else 0.0), -loss

    def metrics(self, answers: Outputs, y: Labels) -> Mapping[str, Metric | None]:
        n, given = len(y), predicted_grades(answers)
        away = np.abs(given - y)
        return {
            "quadratic_kappa": resampled(n, quadratic_kappa(given, y), (-1.0, 1.0)),
            "mae": Mean(away.astype(np.float64), POSITIVE) if n else None,
            "accuracy": Share(float((away == 0).mean()), n) if n else None,
            "within_one": Share(float((away <= 1).mean()), n) if n else None,
            "log_loss": Mean(self.row_losses(answers, y), POSITIVE) if n else None,
        }

    def lacks(self, other: Target) -> tuple[str, ...]:
        return names_beyond(self.names, other)

    def agrees(self, other: Target) -> bool:
        return isinstance(other, GradesTarget) and self.names == other.names

    def baseline(self, y: Labels) -> Baseline | None:
        if not self.commonest:
            return None
        return Baseline("commonest", self.commonest, "accuracy", self.share_of(self.commonest, y))

    def tables(self, answers: Outputs, y: Labels) -> tuple[Table, ...]:
        given = predicted_grades(answers)
        table = confusion(given, y, len(self.names))
        titles = ("grade", "n", "precision", "recall", "F1", "MAE")
        away = np.abs(given - y).astype(np.float64)
        rows = tuple(
            (name, *class_cells(table, c), Mean(own, POSITIVE) if len(own) else None)
            for c, name in enumerate(self.names)
            for own in [away[y == c]]
        )
        cells = tuple(tuple(map(int, row)) for row in table)
        keys = (*titles[:4], "f1", "mae")
        return (
            Table("per_grade", "Grade by grade", titles, rows, keys),
            Table("confusion", "Confusion matrix", self.names, cells),
        )

    # ------------------------------------------------------------ uncertainty
    def confidence(self, answers: Outputs) -> NDArray[np.float64]:
        """Return (N,) the probability of the grade that is predicted."""
        scores = answers["scores"].astype(np.float64)
        return np.asarray(scores[np.arange(len(scores)), predicted_grades(answers)])

    def conformity(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) the probability of the run of grades that reaches the label (`reach`)."""
        return np.asarray(reach(answers["scores"])[np.arange(len(y)), y])

    def region(self, answers: Outputs, limit: float | Array) -> Mapping[str, Array]:
        """Return (N, C) a run of grades without gaps that holds the one that is predicted."""
        found = reach(answers["scores"]) <= limit
        found[np.arange(len(found)), predicted_grades(answers)] = True
        return {"not_ruled_out": found}

    def region_columns(self, region: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"not_ruled_out": named_rows(self.names, region["not_ruled_out"])}

    # ------------------------------------------------------------ explanation
    def topics(self) -> tuple[str, ...]:
        return ("grade",)

    def evidence(self, raw: "Tensor", topic: "int | Tensor") -> "Tensor":
        """Return (N,) the mean of the log odds of a grade above 0, above 1, …"""
        return raw.mean(dim=1)

    def degree(self, answers: Outputs, topic: int) -> NDArray[np.float64]:
        """Return (N,) expected grades, from 0 for the lowest to 1 for the highest grade."""
        places = np.linspace(0, 1, len(self.names))
        return np.asarray(answers["scores"].astype(np.float64) @ places)

    # ------------------------------------------------------------ files
    def settings(self) -> dict[str, Any]:
        return {"names": list(self.names), "commonest": self.commonest}

    @classmethod
    def of_columns(cls, columns: Collection[str]) -> "GradesTarget":
        return cls(names_of_scores(columns))

    @classmethod
    def load(cls, settings: Mapping[str, Any]) -> "GradesTarget":
        saved.check_keys(settings, {"names", "commonest"}, set())
        names = saved.names(settings["names"], "grade")
        return cls(names, saved.text(settings["commonest"], "commonest"))


def predicted_grades(answers: Outputs) -> NDArray[np.int64]:
    """Return (N,) the grades that are predicted: answers, or else the medians of the scores."""
    return answers["answers"] if "answers" in answers else median_grades(answers["scores"])


def _numbered(names: Sequence[str]) -> bool:
    """Return whether all names are numbers, so that their order is known."""
    return all(NUMBER.fullmatch(name) for name in names)
