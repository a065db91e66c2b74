"""A number, such as a price or an age."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.cells import as_text
from headstart.base.errors import DataError, Mismatch, SpecError
from headstart.base.onnx_nodes import whole
from headstart.targets import saved
from headstart.targets.number_metrics import median_absolute_error, r2, rmse, spearman
from headstart.targets.plan import TargetPlan
from headstart.targets.residuals import Huber, Pinball, ResidualLoss
from headstart.targets.target import (
    POSITIVE,
    Array,
    Baseline,
    Chart,
    Labels,
    Link,
    Mean,
    Metric,
    Outputs,
    Row,
    Target,
    resampled,
)

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.base.onnx_nodes import Nodes

DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
LARGEST = 1e30  # answers are float32, and their squares must be finite
LEVELS = (0.05, 0.5, 0.95)  # of the quantile loss: an interval that holds 90 %, and the median
QUANTILES = ("q05", "value", "q95")  # the names of their answers
MOVED = 0.1  # standard deviations; an answer that moves by no more counts as unchanged
RANGES = 8  # in which the rows are counted
BINS, ROWS = 10, 10  # most strata, and the fewest rows of each


@dataclass(frozen=True)
class NumberTarget(Target):
    """One number per row; labels are (N,) float64, NaN if unknown.

    Answers are {"value": (N,) float32}, and with the quantile loss {"q05", "q95"} too, between
    which 90 % of the numbers should lie. Raw outputs are on a scale where the training rows have
    mean 0 and standard deviation 1. objective: "squared", "huber" or "quantile". median: of the
    training rows, NaN if unknown.
    """

    objective: str = "squared"
    mean: float = 0.0
    std: float = 1.0
    median: float | None = None
    kind: ClassVar[str] = "number"
    reads: ClassVar[tuple[str, ...]] = ("value",)
    instead: ClassVar[tuple[str, ...]] = ("label",)
    losses: ClassVar[tuple[str, ...]] = ("squared", "huber", "quantile")
    link: ClassVar[Link | None] = "identity"
    loss_name: ClassVar[str] = "loss"
    merit_name: ClassVar[str] = "mae"
    gain_name: ClassVar[str] = "error saved"
    ordered: ClassVar[bool] = True
    region_names: ClassVar[tuple[str, ...]] = ("low", "high")
    region_noun: ClassVar[str] = "interval"
    size_noun: ClassVar[str] = "width"
    shown: ClassVar[tuple[str, ...]] = (
        "mae",
        "rmse",
        "r2",
        "spearman",
        "median_absolute_error",
    )

    def __post_init__(self) -> None:
        if self.objective not in self.losses:
            raise SpecError(
                f"The loss of a number is one of {', '.join(self.losses)}; got {self.objective!r}."
            )
        if not (np.isfinite([self.mean, self.std]).all() and self.std > 0):
            raise Mismatch(
                f"The scale of a number has a finite mean and a positive standard deviation; got "
                f"{self.mean} and {self.std}."
            )

    # ------------------------------------------------------------ labels
    def planned(self, plan: TargetPlan) -> "NumberTarget":
        super().planned(plan)
        return replace(self, objective=plan.loss or self.objective)

    def encode(self, row: Row) -> float:
        """Return a decimal number, such as -1.5 or 2e3."""
        text = row["value"].strip()
        if not DECIMAL.fullmatch(text):
            hint = "; write a decimal point in place of the comma" if COMMA.fullmatch(text) else ""
            raise DataError(f"a value is a number such as -1.5 or 2e3{hint}; got {text[:40]!r}.")
        if abs(value := float(text)) > LARGEST:
            raise DataError(f"a value is from -{LARGEST:g} to {LARGEST:g}; got {text[:40]!r}.")
        return value

    def labels(self, values: Sequence[float]) -> NDArray[np.float64]:
        y = np.array(values, np.float64).reshape(len(values))
        if len(odd := y[~(np.abs(y) <= LARGEST)]):
            raise DataError(f"A value is from -{LARGEST:g} to {LARGEST:g}; got {odd[0]}.")
        return y

    def plain(self, labels: Sequence[Any]) -> tuple[float, ...]:
        return tuple(map(float, labels))

    def decode(self, y: Labels) -> list[str]:
        return [as_text(float(value)) for value in y]

    def known(self, y: Labels) -> NDArray[np.bool_]:
        return ~np.isnan(y)

    def unknown(self, n: int) -> NDArray[np.float64]:
        return np.full(n, np.nan)

    def strata(self, y: Labels) -> NDArray[np.int64]:
        """Return the number of each row's bin: at most BINS with about as many rows in each."""
        known = y[~np.isnan(y)]
        bins = min(BINS, len(known) // ROWS)
        if bins < 2:
            return np.zeros(len(y), np.int64)
        edges = np.unique(np.quantile(known, np.arange(1, bins) / bins))
        return np.searchsorted(edges, np.nan_to_num(y), side="right").astype(np.int64)

    def census(self, y: Labels) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
        """Return each value if there are few, else RANGES ranges of equal width."""
        values = np.unique(y[~np.isnan(y)])
        if len(values) <= RANGES:
            return tuple(as_text(float(v)) for v in values), y[:, None] == values
        edges = np.linspace(values[0], values[-1], RANGES + 1)
        names = tuple(f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges))
        place = np.searchsorted(edges[1:-1], np.nan_to_num(y), side="right")
        return names, (place[:, None] == np.arange(RANGES)) & ~np.isnan(y)[:, None]

    @property
    def noun(self) -> str:
        return "a number"

    def choice(self, y: Labels) -> str:
        values = len(np.unique(y))
        return f"a number: {len(y):,} rows, {values:,} values; for classes say --target class"

    # ------------------------------------------------------------ learning
    def fitted(self, y: Labels) -> "NumberTarget":
        """Return a copy with the scale of the training rows; numbers that are all equal keep 1."""
        std = float(np.std(y))
        return replace(
            self, mean=float(np.mean(y)), std=std if std > 0 else 1.0, median=float(np.median(y))
        )

    @property
    def outputs(self) -> int:
        """3 quantiles of the quantile loss, or 1."""
        return len(LEVELS) if self.objective == "quantile" else 1

    def soft(self, y: Labels, smoothing: float = 0.0) -> "Tensor":
        """Return (N,) standardised numbers."""
        return super().soft((y - self.mean) / self.std, smoothing)

    def loss(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        """Return (N,) losses on the standardised scale.

        Squared errors; Huber's loss (1964), linear beyond one standard deviation; or the sum of the
        pinball losses of LEVELS (Koenker and Bassett 1978).
        """
        import torch
        from torch.nn.functional import huber_loss

        if self.objective == "squared":
            return (raw[:, 0] - soft) ** 2
        if self.objective == "huber":
            return huber_loss(raw[:, 0], soft, reduction="none")
        above = soft[:, None] - raw
        levels = torch.tensor(LEVELS, dtype=raw.dtype, device=raw.device)
        return torch.maximum(levels * above, (levels - 1) * above).sum(dim=1)

    def raw_losses(self, raw: NDArray[np.float64], y: Labels) -> NDArray[np.float64]:
        standard = ((y - self.mean) / self.std).astype(np.float32)  # as `soft` gives them
        return self._losses_of(standard[:, None] - raw)

    @property
    def learning_key(self) -> tuple[Any, ...]:
        return () if self.objective == "squared" else (self.objective,)

    @property
    def solvable(self) -> bool:
        return self.objective == "squared"

    @property
    def residual_loss(self) -> ResidualLoss | None:
        known: dict[str, ResidualLoss] = {"huber": Huber(), "quantile": Pinball(LEVELS)}
        return known.get(self.objective)

    def regression(self, y: Labels) -> NDArray[np.float64]:
        """Return standardised numbers, (N, 1), or in a column for each quantile."""
        scaled = (np.asarray(y, np.float64)[:, None] - self.mean) / self.std
        return np.repeat(scaled, self.outputs, axis=1)

    def row_losses(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) losses as `loss` does, of answers."""
        names = QUANTILES if self.objective == "quantile" else ("value",)
        own = np.stack([answers[name] for name in names], axis=1)
        return self._losses_of((y[:, None] - own.astype(np.float64)) / self.std)

    def _losses_of(self, above: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N,) losses of standardised labels minus answers, (N, K)."""
        if self.objective == "quantile":
            levels = np.array(LEVELS)
            losses: NDArray[np.float64] = np.maximum(levels * above, (levels - 1) * above).sum(1)
            return losses
        errors = np.abs(above[:, 0])
        if self.objective == "huber":
            return np.where(errors <= 1, errors**2 / 2, errors - 0.5)
        return errors**2

    # ------------------------------------------------------------ answers
    def activate(self, raw: Array) -> Outputs:
        """Return numbers on their own scale; quantiles that cross are sorted.

        Sorting brings each nearer to the true quantile (Chernozhukov, Fernández-Val and Galichon
        2010).
        """
        values = (np.sort(raw.astype(np.float64), axis=1) * self.std + self.mean).astype(np.float32)
        names = ("value",) if values.shape[1] == 1 else QUANTILES
        found = dict(zip(names, values.T, strict=True))
        return {"value": found["value"], **found}

    def in_graph(self, nodes: "Nodes", raw: str, temperature: float) -> Mapping[str, str]:
        k = self.outputs
        rising = nodes.several(2, "TopK", raw, whole(k), axis=1, largest=0)[0]
        own = nodes("Add", nodes("Mul", rising, np.float64(self.std)), np.float64(self.mean))
        columns = nodes.several(k, "Split", nodes.cast(own, np.float32), whole([1] * k), axis=1)
        values = [nodes("Squeeze", column, whole(1)) for column in columns]
        names = ("value",) if k == 1 else QUANTILES
        return dict(zip(names, values, strict=True))

    def comparable(self, answers: Outputs) -> Mapping[str, Array]:
        """Return the numbers on the scale of raw outputs."""
        wide = {name: array.astype(np.float64) for name, array in answers.items()}
        return {name: (array - self.mean) / self.std for name, array in wide.items()}

    def answers_changed(self, before: Outputs, after: Outputs) -> NDArray[np.bool_]:
        """Return (N,) which numbers moved by more than MOVED standard deviations."""
        moved = np.abs(before["value"].astype(np.float64) - after["value"])
        return np.asarray(moved > MOVED * self.std)

    def check(self, answers: Outputs, y: Labels) -> None:
        wanted = set(QUANTILES) if self.objective == "quantile" else {"value"}
        shapes = {answer.shape for answer in answers.values()} | {y.shape}
        if set(answers) != wanted or shapes != {(len(y),)}:
            raise Mismatch(
                f"Predictions of a number hold {' and '.join(sorted(wanted))}, one per row; got "
                f"{', '.join(sorted(answers))} for {len(y)} rows."
            )
        if not all(np.isfinite(answer).all() for answer in answers.values()):
            raise Mismatch("A predicted number is finite.")

    def columns(self, answers: Outputs) -> Mapping[str, Array]:
        names = {"value": "predicted"}
        return {names.get(name, name): column for name, column in answers.items()}

    def answers(self, columns: Mapping[str, Sequence[str]]) -> Outputs:
        wanted = ["predicted", *QUANTILES[::2]] if self.objective == "quantile" else ["predicted"]
        if missing := next((name for name in wanted if name not in columns), None):
            raise DataError(f"Predictions of a number have a column {missing!r}; there is none.")
        names = {"predicted": "value"}
        return {
            names.get(name, name): self._column(name, columns[name]).astype(np.float32)
            for name in wanted
        }

    def _column(self, name: str, cells: Sequence[str]) -> NDArray[np.float64]:
        found = list[float]()
        for number, cell in enumerate(cells, 1):
            try:
                found.append(self.encode({"value": cell}))
            except DataError as error:
                raise DataError(f"Row {number}, column {name}: {error}") from error
        return np.array(found, np.float64)

    # ------------------------------------------------------------ evaluation
    def row_scores(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) minus the absolute errors, whose mean is minus MAE."""
        return -np.abs(answers["value"].astype(np.float64) - y)

    def merit(self, answers: Outputs, y: Labels) -> tuple[float, ...]:
        """Return minus MAE and, for ties, minus the mean loss."""
        losses = -self.row_scores(answers, y), self.row_losses(answers, y)
        return tuple(-float(each.mean()) if len(y) else 0.0 for each in losses)

    def metrics(self, answers: Outputs, y: Labels) -> Mapping[str, Metric | None]:
        n, values = len(y), answers["value"].astype(np.float64)
        statistics = {
            rmse: POSITIVE,
            r2: (-math.inf, 1.0),
            spearman: (-1.0, 1.0),
            median_absolute_error: POSITIVE,
        }
        own = {of.__name__: resampled(n, of(values, y), at) for of, at in statistics.items()}
        return {"mae": Mean(np.abs(values - y), POSITIVE) if n else None, **own}

    def baseline(self, y: Labels) -> Baseline | None:
        """Return the mean absolute error of the training rows' median, the best constant for it."""
        if self.median is None:
            return None
        metric = Mean(np.abs(self.median - y)) if len(y) else None
        return Baseline("median", f"{self.median:.6g}", "mae", metric)

    def charts(self, answers: Outputs, y: Labels) -> tuple[Chart, ...]:
        value = answers["value"].astype(np.float64)
        points = tuple(zip(y.tolist(), value.tolist(), strict=True))
        errors = tuple(zip(value.tolist(), (y - value).tolist(), strict=True))
        return (
            Chart(
                "predicted", "Predicted against true", "true", "predicted", "points", points, True
            ),
            Chart("residuals", "Residuals", "predicted", "true - predicted", "points", errors),
        )

    # ------------------------------------------------------------ uncertainty
    def conformity(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) distances of the number from the answer, or from the quantiles' interval.

        The absolute error (Lei, G'Sell, Rinaldo, Tibshirani and Wasserman 2018); with the quantile
        loss max(q05 - y, y - q95), which is negative inside (Romano, Patterson and Candès 2019,
        equation 6).
        """
        low, high = self._ends(answers)
        return np.maximum(low - y, y - high)

    def region(self, answers: Outputs, limit: float | Array) -> Mapping[str, Array]:
        """Return the interval of the numbers up to `limit`, which holds the answer."""
        low, high = self._ends(answers)
        value = answers["value"].astype(np.float64)
        return {"low": np.minimum(low - limit, value), "high": np.maximum(high + limit, value)}

    def covered(self, region: Mapping[str, Array], y: Labels) -> NDArray[np.float64]:
        return ((region["low"] <= y) & (y <= region["high"])).astype(np.float64)

    def region_size(self, region: Mapping[str, Array]) -> NDArray[np.float64]:
        width: NDArray[np.float64] = region["high"] - region["low"]
        return width

    def _ends(self, answers: Outputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        names = ("q05", "q95") if "q05" in answers else ("value", "value")
        low, high = (answers[name].astype(np.float64) for name in names)
        return low, high

    # ------------------------------------------------------------ explanation
    def topics(self) -> tuple[str, ...]:
        return ("value",)

    def evidence(self, raw: "Tensor", topic: "int | Tensor") -> "Tensor":
        """Return (N,) standardised numbers; of three quantiles the one in the middle."""
        return raw.median(dim=1).values

    def degree(self, answers: Outputs, topic: int) -> NDArray[np.float64]:
        """Return (N,) shares of numbers below the answer, if normal as the training numbers are."""
        from scipy.special import ndtr

        value = answers["value"].astype(np.float64)
        return np.asarray(ndtr((value - self.mean) / self.std))

    # ------------------------------------------------------------ files
    @classmethod
    def of_columns(cls, columns: Collection[str]) -> "NumberTarget":
        return cls("quantile" if set(QUANTILES[::2]) <= set(columns) else "squared")

    def settings(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "mean": self.mean,
            "std": self.std,
            "median": self.median,
        }

    @classmethod
    def load(cls, settings: Mapping[str, Any]) -> "NumberTarget":
        saved.check_keys(settings, {"objective", "mean", "std"}, {"median"})
        mean, std = (saved.number(settings[name], name) for name in ("mean", "std"))
        median = settings.get("median")
        known = None if median is None else saved.number(median, "median")
        return cls(saved.text(settings["objective"], "objective"), mean, std, known)
