"""Several labels per row, each of which may be there or not."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.cells import as_text
from headstart.base.display import CONTROLS, display
from headstart.base.errors import DataError, Mismatch, UnknownName
from headstart.targets import saved
from headstart.targets.class_metrics import class_cells
from headstart.targets.classes import (
    RESERVED,
    SCORE,
    check_class_names,
    names_beyond,
    names_of_scores,
)
from headstart.targets.focal import FocalTarget, focal
from headstart.targets.label_metrics import (
    average_precision,
    best_threshold,
    f1_macro,
    f1_micro,
    jaccard,
    mean_average_precision,
    ranked,
)
from headstart.targets.metrics import LEAST, ClassWeights, confusion, weight_of_classes
from headstart.targets.target import (
    POSITIVE,
    UNIT,
    Array,
    Baseline,
    Labels,
    Link,
    Mean,
    Metric,
    Outputs,
    Plain,
    Row,
    Share,
    Table,
    Target,
    resampled,
)

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.base.onnx_nodes import Nodes

UNKNOWN = -1  # of every label of a row whose labels are not known
NONE = "(none)"  # a row without a label, in files that leave unknown labels empty
SEPARATORS = re.compile(r"[|;]")
YES, NO = frozenset({"1", "1.0", "true", "yes"}), frozenset({"0", "0.0", "false", "no"})
MOSTLY = 0.9
SHOWN = 40  # characters of a name in a phrase
FEW = 6  # labels that a phrase names
MANY = 50  # labels from which on the average precision of each has no interval


@dataclass(frozen=True)
class LabelsTarget(FocalTarget):
    """Any of `names` per row; labels are (N, L) int8: 1 there, 0 not there, -1 unknown.

    Answers are {"scores": (N, L) float32}, the probability of each label by itself, and {"labels":
    (N, L) bool}, whether the score is the label's threshold or more. thresholds: one per label, ()
    for 0.5. shares: of the training rows that have each label, () if unknown. focal: gamma of the
    focal loss, None for cross-entropy; no part of a saved model.
    """

    names: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    focal: float | None = field(default=None, compare=False)
    kind: ClassVar[str] = "labels"
    reads: ClassVar[tuple[str, ...]] = ("labels",)
    instead: ClassVar[tuple[str, ...]] = ("label",)
    blank: ClassVar[bool] = True
    names_topics: ClassVar[bool] = True
    link: ClassVar[Link | None] = "sigmoid"
    loss_name: ClassVar[str] = "log_loss"
    decides: ClassVar[bool] = True
    merit_name: ClassVar[str] = "mAP"
    gain_name: ClassVar[str] = "Jaccard gained"
    region_names: ClassVar[tuple[str, ...]] = ("not_ruled_out", "certain")
    size_noun: ClassVar[str] = "open labels"
    shown: ClassVar[tuple[str, ...]] = (
        "mAP",
        "f1_micro",
        "f1_macro",
        "exact_match",
        "hamming_loss",
    )

    def __post_init__(self) -> None:
        for name in ("thresholds", "shares"):
            if len(getattr(self, name)) not in (0, len(self.names)):
                raise Mismatch(
                    f"There is a number in {name} for each of {len(self.names)} labels, or none; "
                    f"got {len(getattr(self, name))}."
                )

    # ------------------------------------------------------------ labels
    @classmethod
    def spread(cls, columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Return the columns of 0 and 1, one per label, if there are two or more.

        A column of which MOSTLY is 0 and 1 is one: its other cells are errors.
        """
        shares = {
            name: np.mean([cell.lower() in YES | NO for cell in cells] or [False])
            for name, cells in columns.items()
        }
        found = tuple(name for name, share in shares.items() if share >= MOSTLY)
        return found if len(found) > 1 else ()

    @classmethod
    def cells(cls, labels: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """Return the cells of labels in memory: an array (N, L) of 0 and 1, or lists of names."""
        if getattr(labels, "ndim", 1) == 2:
            names = [str(c) for c in range(np.shape(labels)[1])]
            return [
                dict(zip(names, map(str, row.tolist()), strict=True)) for row in np.asarray(labels)
            ]
        return [{"labels": _joined(label)} for label in labels]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "LabelsTarget":
        if rows and set(rows[0]) != {"labels"}:
            return cls(tuple(rows[0]))
        return cls(tuple(sorted({name for row in rows for name in _split(row["labels"])})))

    def encode(self, row: Row) -> tuple[int, ...]:
        """Return the numbers of the labels that are there, in their order."""
        if set(row) == {"labels"}:
            names = _split(row["labels"])
        else:
            names = {name for name, cell in row.items() if _is_there(name, cell)}
        if strange := sorted(names - self._places.keys()):
            raise DataError(str(UnknownName("label", strange[0], self.names)))
        return tuple(sorted(self._places[name] for name in names))

    def labels(self, values: Sequence[Sequence[int]]) -> NDArray[np.int8]:
        y = np.zeros((len(values), len(self.names)), np.int8)
        for row, numbers in enumerate(values):
            if not all(0 <= number < len(self.names) for number in numbers):
                raise DataError(f"Labels count from 0 to {len(self.names) - 1}; got {numbers}.")
            y[row, list(numbers)] = 1
        if odd := next((name for name in self.names if CONTROLS.search(name)), None):
            raise DataError(
                f"The name of a label must be printable, and '{display(odd)}' holds control "
                f"characters. Rename it."
            )
        return y

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: c for c, name in enumerate(self.names)}

    def present(self, values: Sequence[Any]) -> tuple["LabelsTarget", tuple[Any, ...]]:
        used = sorted({number for numbers in values for number in numbers})
        place = {old: new for new, old in enumerate(used)}
        names = tuple(self.names[c] for c in used)
        target = LabelsTarget(names, focal=self.focal)
        return target, tuple(tuple(place[c] for c in numbers) for numbers in values)

    def check_names(self) -> None:
        check_class_names(self.names, RESERVED | {NONE: "stands for no label at all"}, "label")
        if odd := next((name for name in self.names if SEPARATORS.search(name)), None):
            raise DataError(
                f"The name of a label holds no | and no ;, but {odd!r} does: rename it."
            )
        if not self.names:
            raise DataError("At least one row must have a label; all rows have none.")

    def decode(self, y: Labels) -> list[str]:
        return [
            "" if known else _text(self.names, row)
            for known, row in zip((y < 0).any(axis=1), y > 0, strict=True)
        ]

    def known(self, y: Labels) -> NDArray[np.bool_]:
        return np.asarray((y >= 0).all(axis=1))

    def unknown(self, n: int) -> NDArray[np.int8]:
        return np.full((n, len(self.names)), UNKNOWN, np.int8)

    def translate(self, y: Labels, target: Target) -> NDArray[np.int8]:
        """Return the labels in the order of this target's names.

        Labels of `target` that this one does not have are left out; a label that only this one has
        is not there. Without a name in common all labels are unknown.
        """
        shared = [name for name in self.names if name in getattr(target, "names", ())]
        if not isinstance(target, LabelsTarget) or not shared:
            return self.unknown(len(y))
        found = np.zeros((len(y), len(self.names)), np.int8)
        for name in shared:
            found[:, self._places[name]] = y[:, target._places[name]]
        found[~target.known(y)] = UNKNOWN
        return found

    def strata(self, y: Labels) -> NDArray[np.int64]:
        """Return the number of each row's rarest label, L for a row without a label.

        So every label gets its share of rows in each part, the rarest first: the idea of iterative
        stratification (Sechidis, Tsoumakas, Vlahavas 2011) in a single pass.
        """
        there = y > 0
        rare = np.where(there, there.sum(axis=0), len(y) + 1)
        alone = np.full((len(y), 1), len(y))  # chosen where no label is there
        return np.hstack([rare, alone]).argmin(axis=1).astype(np.int64)

    def census(self, y: Labels) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
        """Return the labels, and NONE for the rows without one."""
        there = np.asarray(y > 0)
        return (*self.names, NONE), np.hstack([there, (y == 0).all(axis=1, keepdims=True)])

    def choice(self, y: Labels) -> str:
        each = (y > 0).sum(axis=1)
        return (
            f"several labels: {len(y):,} rows, {_few(self.names)}; {each.mean():.1f} labels a row, "
            f"{int((each == 0).sum()):,} rows without one"
            + ("; for classes say --target class" if len(y) and (each == 1).all() else "")
        )

    # ------------------------------------------------------------ learning
    def fitted(self, y: Labels) -> "LabelsTarget":
        return replace(self, shares=tuple(map(float, (y > 0).mean(axis=0))))

    @property
    def outputs(self) -> int:
        return len(self.names)

    def soft(self, y: Labels, smoothing: float = 0.0) -> "Tensor":
        """Return (N, L) probabilities, which smoothing moves towards 1/2."""
        import torch

        return torch.as_tensor(y).float() * (1 - smoothing) + smoothing / 2

    def loss(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        """Return (N,) means of the row's labels: binary cross-entropies, or focal losses."""
        from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

        if self.focal is not None:
            there = focal(logsigmoid(raw), soft, self.focal)
            return (there + focal(logsigmoid(-raw), 1 - soft, self.focal)).mean(dim=1)
        return binary_cross_entropy_with_logits(raw, soft, reduction="none").mean(dim=1)

    def raw_losses(self, raw: NDArray[np.float64], y: Labels) -> NDArray[np.float64]:
        """Return (N,) means of the row's binary cross-entropies; focal losses are not solved."""
        if self.focal is not None:
            return super().raw_losses(raw, y)
        losses: NDArray[np.float64] = (
            np.maximum(raw, 0) - raw * (y > 0) + np.log1p(np.exp(-np.abs(raw)))
        ).mean(axis=1)
        return losses

    def regression(self, y: Labels) -> NDArray[np.float64]:
        return np.asarray(y > 0, np.float64)

    def row_losses(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) mean -log of the probability of each label's truth."""
        own = np.where(y > 0, answers["scores"], 1.0 - answers["scores"]).astype(np.float64)
        losses: NDArray[np.float64] = -np.log(np.maximum(own, LEAST)).mean(axis=1)
        return losses

    def balance(
        self, how: ClassWeights, y: Labels, case: Array | None = None
    ) -> NDArray[np.float64]:
        """Return (L + 1,) weights of the labels, the last one of rows without a label.

        A row has the largest weight of its labels; the mean over the rows is 1. "balanced" gives
        each stratum, the rows with the same rarest label, the same total weight; a mapping gives
        weights by name.
        """
        weights = weight_of_classes(how, self.strata(y), (*self.names, NONE), case)
        return weights / np.average(_largest(weights, y), weights=case) if len(y) else weights

    def weights(self, soft: "Tensor", balance: "Tensor") -> "Tensor":
        there = soft > 0.5
        return (there * balance[:-1]).amax(dim=1).where(there.any(dim=1), balance[-1])

    def row_weights(
        self,
        how: ClassWeights,
        y: Labels,
        train: Labels | None = None,
        case: Array | None = None,
    ) -> NDArray[np.float64]:
        return _largest(self.balance(how, y if train is None else train, case), y)

    def decided(self, answers: Outputs, y: Labels) -> "LabelsTarget":
        """Return a copy with the threshold of the highest F1 for each label (`best_threshold`)."""
        scores, there = answers["scores"], y > 0
        return replace(
            self,
            thresholds=tuple(
                best_threshold(scores[:, c], there[:, c]) for c in range(len(self.names))
            ),
        )

    # ------------------------------------------------------------ answers
    def activate(self, raw: Array) -> Outputs:
        from scipy.special import expit

        scores = expit(raw.astype(np.float64)).astype(np.float32)
        return {"scores": scores, "labels": scores >= np.array(self._thresholds)}

    @property
    def _thresholds(self) -> tuple[float, ...]:
        return self.thresholds or (0.5,) * len(self.names)

    def in_graph(self, nodes: "Nodes", raw: str, temperature: float) -> Mapping[str, str]:
        scores = nodes.cast(nodes("Sigmoid", raw), np.float32)
        own, limits = nodes.cast(scores, np.float64), np.array(self._thresholds)
        return {"scores": scores, "labels": nodes("GreaterOrEqual", own, limits)}

    def check(self, answers: Outputs, y: Labels) -> None:
        shape = len(y), len(self.names)
        scores, called = answers["scores"], answers["labels"]
        if not scores.shape == called.shape == y.shape == shape:
            raise Mismatch(
                f"Predictions hold a score and an answer for each of {len(self.names)} labels, for "
                f"{len(y)} rows; got labels {y.shape}, scores {scores.shape} and answers "
                f"{called.shape}."
            )
        if scores.dtype != np.float32 or called.dtype != np.bool_ or y.dtype != np.int8:
            raise Mismatch(
                f"Scores are float32, answers bool and labels int8; got {scores.dtype}, "
                f"{called.dtype} and {y.dtype}."
            )
        if len(set(self.names)) < len(self.names):
            raise Mismatch(f"Every label has a name of its own; got {self.names}.")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise Mismatch("The score of a label is a probability, from 0 to 1.")

    def columns(self, answers: Outputs) -> Mapping[str, Array]:
        called = np.array([_text(self.names, row) for row in answers["labels"]], object)
        scores = zip(self.names, answers["scores"].T, strict=True)
        return {"predicted": called} | {SCORE + name: column for name, column in scores}

    def answers(self, columns: Mapping[str, Sequence[str]]) -> Outputs:
        wanted = ["predicted", *(SCORE + name for name in self.names)]
        if missing := next((name for name in wanted if name not in columns), None):
            raise DataError(
                f"Predictions of these labels have a column {missing!r}; there is none."
            )
        try:
            scores = [[float(cell) for cell in columns[name]] for name in wanted[1:]]
        except ValueError as error:
            raise DataError(f"A score is a number from 0 to 1: {error}.") from error
        called = self.labels([self.encode({"labels": cell}) for cell in columns["predicted"]])
        shape = len(called), len(self.names)
        return {
            "scores": np.array(scores, np.float32).T.reshape(shape),
            "labels": called.astype(bool),
        }

    # ------------------------------------------------------------ evaluation
    def row_scores(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) Jaccard indices: right labels among those that the row has or is given.

        The share of right labels would count each rare label that is rightly absent: two models
        then hardly differ.
        """
        return jaccard(answers["labels"], y > 0)

    def merit(self, answers: Outputs, y: Labels) -> tuple[float, ...]:
        """Return mAP, 0 if no row has a label, and, for ties, minus the log loss."""
        found = self.metrics(answers, y)["mAP"]
        loss = float(self.row_losses(answers, y).mean()) if len(y) else 0.0
        return (found.value if found else 0.0), -loss

    def metrics(self, answers: Outputs, y: Labels) -> Mapping[str, Metric | None]:
        """Return mAP and others; a mean over labels leaves out labels that no row has."""
        n, called, there = len(y), answers["labels"], y > 0
        exact = int((called == there).all(axis=1).sum())
        precision = mean_average_precision(ranked(answers["scores"], there), n)
        return {
            "mAP": resampled(n, precision, UNIT),
            "f1_micro": resampled(n, f1_micro(called, there), UNIT),
            "f1_macro": resampled(n, f1_macro(called, there), UNIT),
            "exact_match": Share(exact / n, n) if n else None,
            "hamming_loss": Mean((called != there).mean(axis=1), UNIT) if n else None,
            "log_loss": Mean(self.row_losses(answers, y), POSITIVE) if n else None,
        }

    def lacks(self, other: Target) -> tuple[str, ...]:
        return names_beyond(self.names, other)

    def agrees(self, other: Target) -> bool:
        return isinstance(other, LabelsTarget) and self.names == other.names

    @property
    def noun(self) -> str:
        return "several labels"

    @property
    def described(self) -> str:
        return f"the labels {', '.join(self.names)}, in this order"

    def baseline(self, y: Labels) -> Baseline | None:
        """Return mAP where every row is given the shares of the training rows as scores."""
        if not self.shares:
            return None
        scores = np.tile(np.array(self.shares, np.float32), (len(y), 1))
        answers = {"scores": scores, "labels": scores >= np.array(self._thresholds)}
        return Baseline(
            "prevalence", "the share of each label", "mAP", self.metrics(answers, y)["mAP"]
        )

    def tables(self, answers: Outputs, y: Labels) -> tuple[Table, ...]:
        keys = ("label", "n", "average_precision", "precision", "recall", "f1", "threshold")
        titles = ("label", "n", "average precision", "precision", "recall", "F1", "threshold")
        there = y > 0
        rows = tuple(self._cells(c, answers, there) for c in range(len(self.names)))
        together = there.astype(np.int64).T @ there
        cells = tuple(tuple(map(int, row)) for row in together)
        return (
            Table("per_label", "Label by label", titles, rows, keys),
            Table("cooccurrence", "Labels together: rows that have both", self.names, cells),
        )

    def _cells(self, c: int, answers: Outputs, there: NDArray[np.bool_]) -> tuple[Any, ...]:
        """Return the row of label c in the table of labels."""
        (ranking,) = ranked(answers["scores"][:, [c]], there[:, [c]])
        own, called = there[:, c].astype(np.int64), answers["labels"][:, c].astype(np.int64)
        n, *others = class_cells(confusion(called, own, 2), 1)
        precise: Any = resampled(len(own), average_precision(ranking, len(own)), UNIT)
        if precise and len(self.names) > MANY:
            precise = Plain(precise.value, len(own))
        return self.names[c], n, precise, *others, self._thresholds[c]

    # ------------------------------------------------------------ uncertainty
    def confidence(self, answers: Outputs) -> NDArray[np.float64]:
        """Return (N,) the score of the least sure answer of a row, from 1/2 to 1."""
        scores = answers["scores"].astype(np.float64)
        return np.maximum(scores, 1.0 - scores).min(axis=1, initial=1.0)

    def conformity(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N, L) 1 - the probability of each label's truth."""
        scores = answers["scores"].astype(np.float64)
        return np.where(y > 0, 1.0 - scores, scores)

    def region(self, answers: Outputs, limit: float | Array) -> Mapping[str, Array]:
        """Return (N, L) whether a label is not ruled out, and whether its absence is.

        limit: one for all labels, or (L,). The more probable of the two is never ruled out.
        """
        scores = answers["scores"].astype(np.float64)
        least = np.maximum(limit, np.minimum(scores, 1.0 - scores))
        return {"not_ruled_out": 1.0 - scores <= least, "certain": scores > least}

    def region_columns(self, region: Mapping[str, Array]) -> Mapping[str, Array]:
        return {name: named_rows(self.names, region[name]) for name in self.region_names}

    def covered(self, region: Mapping[str, Array], y: Labels) -> NDArray[np.float64]:
        there, ruled_out = np.asarray(y > 0), ~region["not_ruled_out"]
        return 1.0 - np.where(there, ruled_out, region["certain"])

    def region_size(self, region: Mapping[str, Array]) -> NDArray[np.float64]:
        """Return (N,) how many labels are neither ruled out nor certain."""
        return (region["not_ruled_out"] & ~region["certain"]).sum(axis=1).astype(np.float64)

    # ------------------------------------------------------------ explanation
    def topics(self) -> tuple[str, ...]:
        return self.names

    def topic(self, answers: Outputs) -> NDArray[np.int64]:
        """Return (N,) the most probable label of each row."""
        return np.asarray(answers["scores"].argmax(axis=1), np.int64)

    def evidence(self, raw: "Tensor", topic: "int | Tensor") -> "Tensor":
        """Return (N,) log odds of the label, whatever the other labels are."""
        import torch

        return raw.gather(1, torch.as_tensor(topic, device=raw.device).expand(len(raw))[:, None])[
            :, 0
        ]

    def degree(self, answers: Outputs, topic: int) -> NDArray[np.float64]:
        return np.asarray(answers["scores"][:, topic], np.float64)

    # ------------------------------------------------------------ files
    def settings(self) -> dict[str, Any]:
        numbers = {"thresholds": list(self.thresholds), "shares": list(self.shares)}
        return {"names": list(self.names), **numbers}

    @classmethod
    def of_columns(cls, columns: Collection[str]) -> "LabelsTarget":
        return cls(names_of_scores(columns))

    @classmethod
    def load(cls, settings: Mapping[str, Any]) -> "LabelsTarget":
        saved.check_keys(settings, {"names", "thresholds", "shares"}, set())
        thresholds, shares = (
            saved.numbers(settings[name], name, 0, 1) for name in ("thresholds", "shares")
        )
        return cls(saved.names(settings["names"], "label"), thresholds, shares)


def named_rows(names: Sequence[str], there: Array) -> Array:
    """Return (N,) tuples of the names that are there, (N, L)."""
    found = np.empty(len(there), object)
    for number, row in enumerate(there):
        found[number] = tuple(name for name, own in zip(names, row, strict=True) if own)
    return found


def _split(cell: str) -> set[str]:
    """Return the names in a cell `a|b` or `a;b`; a blank cell and NONE have none."""
    return {text for part in SEPARATORS.split(cell) if (text := as_text(part))} - {NONE}


def _text(names: Sequence[str], there: Sequence[bool] | Array) -> str:
    return "|".join(name for name, own in zip(names, there, strict=True) if own) or NONE


def _joined(label: Any) -> Any:
    """Return a label in memory as a cell: several names become one text."""
    if label is None or isinstance(label, str) or not hasattr(label, "__iter__"):
        return label
    names = [as_text(name) for name in label]
    if odd := next((name for name in names if SEPARATORS.search(name)), None):
        raise DataError(f"The name of a label holds no | and no ;, but {odd!r} does: rename it.")
    return "|".join(names)


def _is_there(name: str, cell: str) -> bool:
    if (word := cell.strip().lower()) in YES:
        return True
    if word in NO:
        return False
    raise DataError(
        f"the column {name} says with 1 or 0 whether a row has the label; got {cell!r}."
    )


def _largest(weights: NDArray[np.float64], y: Labels) -> NDArray[np.float64]:
    """Return (N,) the largest weight among a row's labels; weights: (L + 1,), as of `balance`."""
    there = y > 0
    own = np.where(there, weights[:-1], 0.0).max(axis=1, initial=0.0)
    return np.where(there.any(axis=1), own, weights[-1])


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{len(names)} labels ({', '.join(name[:SHOWN] for name in names[:FEW])}{more})"
