"""From predictions to numbers that come with how sure we are of them.

Every interval is meant to hold the true value 95 times in 100; `bench/intervals.py` counts how
often it does: 93 to 98 times, but for AUROC near .99, and for log loss where rows are few and
errors rare (a bootstrap knows nothing of losses that it has not seen).

A share of rows has Wilson's. A
number that is not a share of rows but lies between 0 and 1 (balanced accuracy, macro F1, AUROC)
has Wilson's too, at the number of rows that a share as uncertain as it would have: its *effective*
sample size (Korn and Graubard 1998; Franco, Little, Louis, Slud 2019), from a variance with the
class counts held fixed, as a stratified split holds them. Log loss has a bootstrap of its rows.

Unlike a bootstrap percentile, Wilson's interval does not shrink to a point when no error was seen.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch, SpecError, UnknownName
from headstart.targets.metrics import (
    Ranking,
    balanced_accuracy,
    confusion,
    f1s,
    log_losses,
    macro_f1,
    rankings,
    wilson_bounds,
)
from headstart.targets.predictions import Predictions

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset
    from headstart.models.model import Model

Z = 1.959963984540054  # the normal quantile of 97.5 %
TAILS = (0.025, 0.975)
CELLS = 2**21  # resampled rows held at once: 16 MiB
HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss")


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, and the number of rows it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"

    def to_plain(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class ClassEstimates:
    """One class. n: its rows. None where no row tells."""

    n: int
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None


@dataclass(frozen=True)
class Baseline:
    """What always answering with the commonest class of the training part would have got."""

    majority: str
    accuracy: Estimate | None


@dataclass(frozen=True)
class Evaluation:
    """How good predictions are. None is "can't be told from these rows": n/a, null in JSON.

    n: rows whose label is known; the others don't count. Averages over classes leave out those
    without rows. confusion[i][j]: rows of `classes[i]` that were called `classes[j]`.
    """

    n: int
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    macro_f1: Estimate | None
    log_loss: Estimate | None
    auroc: Estimate | None
    baseline: Baseline | None
    per_class: dict[str, ClassEstimates]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.per_class)

    def to_plain(self) -> dict[str, Any]:
        """As in evaluation.json: nested dicts, with the classes in order."""
        return {"classes": list(self.classes), **_plain(self)}


def evaluate(
    said: "Model | Predictions",
    data: "Dataset | None" = None,
    *,
    majority: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Judge predictions, or a model by what it predicts of `data`.

    Raises SpecError for a model without data, or predictions with.
    """
    if isinstance(said, Predictions):
        if data is not None:
            raise SpecError("Predictions know their labels: evaluate them without a dataset.")
        return evaluate_predictions(said, majority=majority, seed=seed)
    if data is None:
        raise SpecError("A model is judged on examples: evaluate(model, data.test).")
    majority = said.majority if majority is None else majority
    return evaluate_predictions(said.predict(data), majority=majority, seed=seed)


def evaluate_predictions(
    said: Predictions, *, majority: str | None = None, seed: int = 0, resamples: int = 1000
) -> Evaluation:
    """Every number, with its interval. majority: the commonest class of the training part.

    Raises UnknownName if `majority` is not one of the classes.
    """
    if majority is not None and majority not in said.classes:
        raise UnknownName("class", majority, said.classes)
    told = said.take(np.flatnonzero(said.known))
    losses = log_losses(told.scores, told.labels) if told.scored else np.zeros(0)
    table = confusion(told.predicted, told.labels, len(told.classes))
    return Evaluation(
        n=len(told),
        accuracy=wilson(int(told.correct.sum()), len(told)),
        balanced_accuracy=_balanced_accuracy(table),
        macro_f1=_macro_f1(table),
        log_loss=_bootstrap(losses, resamples, seed),
        auroc=_auroc(told) if told.scored else None,
        baseline=None if majority is None else _baseline(told, majority),
        per_class={name: _class(table, c) for c, name in enumerate(told.classes)},
        confusion=tuple(tuple(map(int, row)) for row in table),
    )


def compare(a: Predictions, b: Predictions, *, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """How much more accurate `a` is than `b`, row for row; an interval holding 0 is a tie.

    A bootstrap of the paired differences. Raises Mismatch unless both are of the same labelled
    rows, in the same order.
    """
    if a.ids != b.ids or a.classes != b.classes or not np.array_equal(a.labels, b.labels):
        raise Mismatch(
            "Only predictions on the same rows, in the same order and with the same classes, "
            "can be compared."
        )
    won = (a.correct.astype(int) - b.correct)[a.known]
    if not len(won):
        raise Mismatch("Predictions are compared by their labels, but no row has one.")
    shares = np.bincount(won + 1, minlength=3) / len(won)
    draws = np.random.default_rng(seed).multinomial(len(won), shares, size=resamples)
    low, high = np.quantile((draws[:, 2] - draws[:, 0]) / len(won), TAILS)
    return Estimate(float(won.mean()), float(low), float(high), len(won))


def evaluation_rows(evaluation: Evaluation) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Two tables to print, of strings: the headline numbers, and a row a class below a header."""
    headline = [(name.replace("_", " "), _shown(getattr(evaluation, name))) for name in HEADLINE]
    if base := evaluation.baseline:
        headline.append((f"baseline: always {base.majority!r}", _shown(base.accuracy)))
    table: list[tuple[str, ...]] = [("class", "n", "precision", "recall", "F1")]
    for name, c in evaluation.per_class.items():
        table.append((name, str(c.n), _brief(c.precision), _brief(c.recall), _brief(c.f1)))
    return list[tuple[str, ...]](headline), table


def wilson(right: int, n: int) -> Estimate | None:
    """A share of rows with its score interval; None of no rows.

    Wilson 1927; recommended by Brown, Cai, DasGupta 2001, Interval estimation for a binomial
    proportion, eq. 4.

    >>> print(wilson(81, 263))
    0.308 [0.255, 0.366] n=263
    """
    if n == 0:
        return None
    return Estimate(right / n, *_wilson_bounds(right / n, n), n)


def _wilson_bounds(share: float, n: float) -> tuple[float, float]:
    low, high = wilson_bounds(share, n, Z)
    return (0.0 if share == 0 else max(0.0, float(low))), (
        1.0 if share == 1 else min(1.0, float(high))
    )


def _balanced_accuracy(table: NDArray[np.int64]) -> Estimate | None:
    if not (n := table.sum(axis=1)).any():
        return None
    likely = _smoothed(table)
    worth = np.diag(1.0 / (np.maximum(n, 1) * (n > 0).sum()))
    size = _effective(balanced_accuracy(likely), _table_variance(likely, worth))
    value = balanced_accuracy(table)
    return Estimate(value, *_wilson_bounds(value, size), int(n.sum()))


def _macro_f1(table: NDArray[np.int64]) -> Estimate | None:
    """Variance by the delta method (as in Takahashi et al. 2022), class counts held fixed.

    A row of class i called j moves the mean by [2 (i = j) - F1_j] / (n_j + m_j) / K, where n_j
    rows are of class j and m_j are called so.
    """
    if not (n := table.sum(axis=1)).any():
        return None
    likely = _smoothed(table)
    called = np.maximum(n + likely.sum(axis=0), 1e-9)
    worth = (2 * np.eye(len(n)) - np.nan_to_num(f1s(likely))) / called / (n > 0).sum()
    worth[:, n == 0] = 0.0
    size = _effective(macro_f1(likely), _table_variance(likely, worth))
    value = macro_f1(table)
    return Estimate(value, *_wilson_bounds(value, size), int(n.sum()))


def _smoothed(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same rows a class, called as if two more had been right and two wrong in each.

    So variances are never 0 for want of an error (Agresti and Coull 1998).
    """
    n, classes = table.sum(axis=1, keepdims=True), len(table)
    more = np.full((classes, classes), 2 / max(classes - 1, 1))
    np.fill_diagonal(more, 2)
    return (table + more) * n / (n + more.sum(axis=1, keepdims=True))


def _effective(value: float, variance: float) -> float:
    """Rows of which a share of this value would have this variance."""
    return value * (1 - value) / variance if variance > 0 else np.inf


def _table_variance(table: NDArray[np.float64], worth: NDArray[np.float64]) -> float:
    """Of the sum of `worth` (C, C) over all rows, each row of the table one multinomial draw."""
    n = table.sum(axis=1)
    share = table / np.maximum(n, 1e-9)[:, None]
    means = (share * worth).sum(axis=1)
    return float((n * ((share * worth**2).sum(axis=1) - means**2)).sum())


def _auroc(said: Predictions) -> Estimate | None:
    if not (ranked := rankings(said.scores, said.labels)):
        return None
    value = float(np.mean([r.auroc for r in ranked]))
    size = _auroc_size(ranked, said.labels, value)
    return Estimate(value, *_wilson_bounds(value, size), len(said))


def _auroc_size(ranked: list[Ranking], labels: NDArray[np.int64], value: float) -> float:
    """Effective size, by DeLong's placements summed over classes: a row moves every curve.

    Their variance is too small when few rows tell, and 0 when none is out of order. So four rows
    of the rarest class are reckoned at the variance of nearly perfect curves with exponential
    scores (Hanley and McNeil 1982); with no row out of order, all are.
    """
    worth, sizes = np.zeros(len(labels)), []
    for r in ranked:
        own, others = int(r.own.sum()), int((~r.own).sum())
        worth += r.placements / np.where(r.own, own, others) / len(ranked)
        sizes.append(4 * own * others / (own + others + 2))
    usual = min(len(sizes) ** 2 / float((1.0 / np.array(sizes)).sum()), len(labels))
    if value in (0.0, 1.0):
        return usual
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    spread = fewest * _variance_of_sum(worth, labels) + 4 * value * (1 - value) / usual
    return _effective(value, spread / (fewest + 4))


def _variance_of_sum(worth: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Of the sum of `worth` (N,) when as many rows of each class are drawn anew."""
    groups = [worth[labels == c] for c in np.unique(labels)]
    return float(sum(len(g) * g.var(ddof=1) for g in groups if len(g) > 1))


def _bootstrap(values: NDArray[np.float64], resamples: int, seed: int) -> Estimate | None:
    """Mean of the rows, and percentiles of the means of as many drawn with replacement."""
    if not len(values):
        return None
    rng = np.random.default_rng(seed)
    n, means = len(values), np.empty(resamples)
    step = max(1, CELLS // n)
    for start in range(0, resamples, step):
        size = (min(step, resamples - start), n)
        means[start : start + step] = values[rng.integers(n, size=size)].mean(axis=1)
    low, high = np.quantile(means, TAILS)
    return Estimate(float(values.mean()), float(low), float(high), n)


def _class(table: NDArray[np.int64], c: int) -> ClassEstimates:
    n, called, right = (int(v) for v in (table[c].sum(), table[:, c].sum(), table[c, c]))
    if n == 0:
        return ClassEstimates(0, None, None, None)
    return ClassEstimates(
        n, wilson(right, called), wilson(right, n), _f1(right, n + called - right)
    )


def _f1(right: int, either: int) -> Estimate:
    """F1 = 2 J / (1 + J), which only grows with J, so that J's interval becomes its own.

    J is the share of right ones among the rows that are of the class or were called so.
    """
    shares = (right / either, *_wilson_bounds(right / either, either))
    value, low, high = (2 * j / (1 + j) for j in shares)
    return Estimate(value, low, high, either)


def _baseline(said: Predictions, majority: str) -> Baseline:
    right = int((said.labels == said.classes.index(majority)).sum())
    return Baseline(majority, wilson(right, len(said)))


def _shown(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None else str(estimate)


def _brief(estimate: Estimate | None) -> str:
    if estimate is None:
        return "n/a"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_plain()
    if isinstance(value, (Evaluation, ClassEstimates, Baseline)):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
