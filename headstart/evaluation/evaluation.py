"""Metrics of predictions, each with its 95 % interval.

`bench/intervals.py` measures the coverage of the intervals: close to 95 %, except for AUROC near 1
and for log loss with few rows and rare errors (a bootstrap cannot draw losses absent from the
sample).

The target chooses the metrics and gives each with the data of its interval: a share and a number
of rows for Wilson's interval, or one value per row for the bootstrap.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, Self
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray

from headstart.base.display import Verbatim
from headstart.base.errors import Mismatch, SpecError
from headstart.base.notebook import data_frame, html_table, text_table
from headstart.base.values import Record, entries, entry, joined
from headstart.targets.classes import class_names
from headstart.targets.metrics import wilson_bounds
from headstart.targets.predictions import Predictions
from headstart.targets.registry import target_from_plain
from headstart.targets.tallies import MANY
from headstart.targets.target import (
    ANY,
    Baseline,
    Labels,
    Mean,
    Outputs,
    Plain,
    Range,
    Resampled,
    Share,
    Table,
    Target,
)

Z = 1.959963984540054  # the normal quantile of 97.5 %
Units = tuple[NDArray[np.int64], ...]  # numbers of rows, by group
OwnMetric = Callable[[NDArray[Any], NDArray[Any]], float]  # of labels and answers, each (N,)
TAILS = (0.025, 0.975)
COUNTED, GROUPS = 50_000, 1000  # rows from which a bootstrap draws counts of groups of values
CELLS = 2**21  # resampled values in memory at once: 16 MiB
RESAMPLES = 1000
LISTED = 24  # rows of a table of more than MANY that are printed
# How much wider intervals are of rows that the models of several folds judged: the models share
# training rows, so that their errors agree more than chance. In 300 simulations each (60 rows of
# three normal clouds, ridge, 3, 5 and 10 folds) normal intervals held the mean accuracy of the
# folds' models in 87 to 90 %, Wilson's in 89 to 91 %, and normal ones of this width in 94 to 95 %;
# of 160 rows in 93 % and, of this width, in 97 to 98 %. See Bates, Hastie, Tibshirani 2023,
# Cross-validation: what does it estimate and how well does it do it?
FOLDS_WIDEN = 1.25
FEWEST, DRAWN = 200, 2_000_000  # samples of a `Resampled` metric, and rows drawn in all


@dataclass(frozen=True, repr=False)
class Estimate(Record):
    """A value with its 95 % interval [low, high] and its number of rows n.

    low and high are NaN for a value without an interval.

    >>> accuracy = Estimate(0.9, 0.8, 0.95, 50)
    >>> accuracy, float(accuracy)
    (Estimate(0.900 [0.800, 0.950] n=50), 0.9)
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{brief(self)} n={self.n}"

    def __repr__(self) -> str:
        return f"Estimate({self})"

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __lt__(self, other: "Estimate | float") -> bool:
        return self.value < float(other)

    def __gt__(self, other: "Estimate | float") -> bool:
        return self.value > float(other)

    def widened(self, factor: float, within: Range = ANY) -> "Estimate":
        """Return the value with ends `factor` times as far, but within the values it can have."""
        ends = (self.value + factor * (end - self.value) for end in (self.low, self.high))
        low, high = (float(np.clip(end, *within)) for end in ends)
        return replace(self, low=low, high=high)

    def to_plain(self) -> dict[str, float | None]:
        low, high = (None if np.isnan(end) else end for end in (self.low, self.high))
        return {"value": self.value, "low": low, "high": high, "n": self.n}

    @classmethod
    def read(cls, plain: Any, at: str = "") -> Self:
        ends = [end for end in ("low", "high") if entries(plain, at).get(end, 0) is None]
        found = super().read({**plain, **dict.fromkeys(ends, 0.0)}, at)
        return replace(found, low=np.nan, high=np.nan) if ends else found


@dataclass(frozen=True, repr=False)
class Evaluation(Record):
    """Metrics of predictions; None (n/a, null in JSON) for one that the rows do not determine.

    n: rows with a known label; others are ignored. metrics, tables: the target's, with estimates;
    each is also an attribute, such as `evaluation.accuracy`. baseline: of a constant answer. own:
    metrics of the user's, by the names of their functions. left_out: rows that do not count, with
    `path` and `reason`; not in evaluation.json.

    >>> result = hs.evaluate("runs/flowers", "photos")  # doctest: +SKIP
    >>> float(result.accuracy), result.per_class["rose"].recall  # doctest: +SKIP
    """

    target: Target
    n: int
    metrics: Mapping[str, Estimate | None]
    baseline: Baseline | None = None
    tables: tuple[Table, ...] = ()
    own: Mapping[str, Estimate] = field(default_factory=dict)
    left_out: tuple[Any, ...] = ()

    def __getattr__(self, name: str) -> Any:
        own = {**self.__dict__.get("metrics", {}), **self.__dict__.get("own", {})}
        if name in own:
            return own[name]
        for table in self.__dict__.get("tables", ()):
            if table.name == name:
                return _values(table, lambda row: SimpleNamespace(**row))
        raise AttributeError(f"This evaluation has no {name!r}; its metrics are {', '.join(own)}.")

    def __repr__(self) -> str:
        headline, _ = evaluation_rows(self)
        left_out = sum(not item.expected for item in self.left_out)
        return text_table([*headline, *([("left out", f"{left_out:,}")] if left_out else [])])

    def _repr_html_(self) -> str:
        headline, rows = evaluation_rows(self)
        return html_table(headline) + (html_table(rows[1:], rows[0]) if rows else "")

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per metric: value, low, high, n."""
        found = {name: e for name, e in self.metrics.items() if e is not None} | dict(self.own)
        columns = {n: [getattr(e, n) for e in found.values()] for n in ("value", "low", "high")}
        return data_frame({"metric": list(found), **columns, "n": [e.n for e in found.values()]})

    @property
    def main(self) -> Estimate | None:
        """The first metric shown."""
        return self.metrics[next(iter(self.target.shown or self.metrics))]

    @property
    def classes(self) -> tuple[str, ...]:
        return class_names(self.target)

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts as in evaluation.json."""
        base = self.baseline and {
            self.baseline.kind: self.baseline.answer,
            self.baseline.name: _plain(self.baseline.metric),
        }
        return {
            **self.target.heading(),
            "n": self.n,
            **{name: _plain(e) for name, e in (*self.metrics.items(), *self.own.items())},
            "baseline": base,
            **{table.name: _plain(_values(table, dict)) for table in self.tables},
        }

    @classmethod
    def read(cls, plain: Any, at: str = "") -> Self:
        base = _read_baseline(entries(plain, at).get("baseline"), joined(at, "baseline"))
        target, answers, y = _read_target(plain, at)
        return cls(
            target,
            entry(plain, "n", int, at),
            {name: entry(plain, name, Estimate | None, at) for name in target.metrics(answers, y)},
            base,
            tuple(_read_table(table, plain, at) for table in target.tables(answers, y)),
        )


def evaluate(
    predictions: Predictions,
    fitted: Target | None = None,
    *,
    seed: int = 0,
    resamples: int = 0,
    groups: Sequence[str] = (),
    folds: bool = False,
) -> Evaluation:
    """Evaluate predictions: all metrics and tables of the target, with intervals.

    fitted: the target as fitted on training rows; its constant answer becomes the baseline.
    groups: a name for each row, of which the bootstrap of a `Resampled` metric draws whole groups;
    () to draw rows. resamples: of the bootstrap; 0 for the target's or the usual number. folds:
    whether the models of several folds judged the rows, which makes intervals wider.
    """
    rows = np.flatnonzero(predictions.known)
    known = predictions.take(rows)
    target, answers, y = known.target, known.outputs, known.labels
    units = units_of([groups[row] for row in rows.tolist()] if groups else ())
    draws = resamples or target.resamples or RESAMPLES
    once = partial(estimated, resamples=draws, seed=seed, units=units)
    estimate = partial(once, widen=FOLDS_WIDEN) if folds else once
    base = fitted.baseline(y) if fitted else None
    return Evaluation(
        fitted or target,
        len(known),
        {name: estimate(metric) for name, metric in target.metrics(answers, y).items()},
        base and replace(base, metric=once(base.metric)),
        tuple(
            replace(table, rows=tuple(tuple(map(estimate, row)) for row in table.rows))
            for table in target.tables(answers, y)
        ),
    )


def estimated(
    cell: Any, resamples: int = RESAMPLES, seed: int = 0, units: Units = (), widen: float = 1.0
) -> Any:
    """Return a metric with the interval of its kind (bootstrap, Wilson, none); others as given.

    widen: how many times as wide the interval is made.
    """
    found = _estimated(cell, resamples, seed, units)
    if widen == 1 or not isinstance(found, Estimate):
        return found
    return found.widened(widen, cell.within)


def _estimated(cell: Any, resamples: int, seed: int, units: Units) -> Any:
    if isinstance(cell, Mean):
        return bootstrap(cell.rows, resamples, seed)
    if isinstance(cell, Resampled):
        return resampled(cell, resamples, seed, units)
    if isinstance(cell, Share):
        low, high = _wilson_bounds(cell.share, cell.n if cell.size is None else cell.size)
        return Estimate(cell.value, cell.scale(low), cell.scale(high), cell.n)
    return Estimate(cell.value, np.nan, np.nan, cell.n) if isinstance(cell, Plain) else cell


def own_metric(
    metric: OwnMetric,
    predictions: Predictions,
    *,
    seed: int = 0,
    resamples: int = 200,
    folds: bool = False,
) -> Estimate:
    """Return a user's own metric with its bootstrap interval.

    metric: a function of labels and answers, each (N,), as in `sklearn.metrics`: class names for
    classes. Resamples for which it is undefined are left out. folds: as for `evaluate`; the range
    of the metric is not known, so that a widened interval may end beyond it.
    """
    rows = np.flatnonzero(predictions.known)
    columns = predictions.target.columns(predictions.outputs)
    labels = np.array(predictions.target.decode(predictions.labels))[rows]
    answers = np.asarray(columns[next(iter(columns))])[rows]
    if answers.dtype.kind == "f":
        labels = labels.astype(float)
    rng, values = np.random.default_rng(seed), list[float]()
    for _ in range(resamples):
        drawn = rng.integers(len(rows), size=len(rows))
        with suppress(Exception), catch_warnings(action="ignore"):
            values.append(float(metric(labels[drawn], answers[drawn])))
    finite = [value for value in values if np.isfinite(value)]
    low, high = np.quantile(finite, TAILS) if finite else (np.nan, np.nan)
    try:
        value = float(metric(labels, answers))
    except Exception as error:  # a user's function raises any error
        name = getattr(metric, "__name__", repr(metric))
        raise SpecError(
            f"A metric returns one number for labels and answers, each (N,) of texts for classes; "
            f"{name} raised {type(error).__name__}: {error}"
        ) from error
    found = Estimate(value, float(low), float(high), len(rows))
    return found.widened(FOLDS_WIDEN) if folds else found


def compare(a: Predictions, b: Predictions, *, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """Return how much better `a` is than `b` on the same rows; an interval holding 0 is a tie.

    A bootstrap of the paired differences of the target's row scores (for classes: accuracy of `a`
    minus that of `b`). Raises Mismatch unless both predict the same labelled rows in the same
    order.
    """
    if not same_rows(a, b):
        raise Mismatch(
            "Only predictions on the same rows, in the same order and with the same classes, "
            "can be compared."
        )
    scores = (p.target.row_scores(p.outputs, p.labels) for p in (a, b))
    won = np.subtract(*scores)[a.known]
    if not len(won):
        raise Mismatch("Predictions are compared by their labels, but no row has one.")
    if not np.isin(won, (-1, 0, 1)).all():
        return bootstrap(won, resamples, seed)
    # With three possible values, the counts of a resample are one multinomial draw.
    shares = np.bincount(won.astype(int) + 1, minlength=3) / len(won)
    draws = np.random.default_rng(seed).multinomial(len(won), shares, size=resamples)
    low, high = np.quantile((draws[:, 2] - draws[:, 0]) / len(won), TAILS)
    return Estimate(float(won.mean()), float(low), float(high), len(won))


def merit_of(predictions: Predictions) -> Estimate:
    """Return the target's merit (accuracy for classes) with its 95 % interval.

    Its ends are NaN if the merit is no metric of these rows.
    """
    target, answers, y = predictions.target, predictions.outputs, predictions.labels
    found = estimated(target.metrics(answers, y).get(target.merit_name))
    if isinstance(found, Estimate):
        return found
    return Estimate(float(target.merit(answers, y)[0]), np.nan, np.nan, len(predictions))


def same_rows(a: Predictions, b: Predictions) -> bool:
    """Whether both have the same ids and labels in the same order, and agreeing targets."""
    if a.ids != b.ids or not a.target.agrees(b.target):
        return False
    return a.target.decode(a.labels) == b.target.decode(b.labels)


def evaluation_rows(evaluation: Evaluation) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return two tables to print: the headline metrics, and the first table with named rows.

    The second has a header; it is empty if the target has no such table. Of more than MANY rows it
    lists LISTED.
    """
    shown = evaluation.target.shown or tuple(evaluation.metrics)
    spell = _spelt if evaluation.classes else measured
    headline = [(name.replace("_", " "), spell(evaluation.metrics[name])) for name in shown]
    headline += [(name, str(estimate)) for name, estimate in evaluation.own.items()]
    if base := evaluation.baseline:
        other = "" if base.name == next(iter(shown), "") else f", {base.name.replace('_', ' ')}"
        answer = f"always {base.answer!r}" if evaluation.classes else base.kind + other
        headline.append((f"baseline: {answer}", spell(base.metric)))
    table = next((table for table in evaluation.tables if table.keys), None)
    rows = [] if table is None else [table.columns, *_listed(table)]
    return list[tuple[str, ...]](headline), rows


def _listed(table: Table) -> list[tuple[str, ...]]:
    """Return the rows of a table as texts; of very many those with the lowest last figures."""
    rows, more = list(table.rows), len(table.rows) - LISTED
    if len(rows) > MANY:
        rows = sorted(rows, key=_last_figure)[:LISTED]
    listed: list[tuple[str, ...]] = [(Verbatim(name), *map(cell, others)) for name, *others in rows]
    if len(rows) < len(table.rows):
        rest = f"… {more:,} more, of higher {table.columns[-1]}"
        listed.append((rest, *("" for _ in table.columns[1:])))
    return listed


def _last_figure(row: Sequence[Any]) -> float:
    value = row[-1].value if isinstance(row[-1], Estimate) else row[-1]
    return float(value) if isinstance(value, int | float) else math.inf


def _spelt(estimate: Estimate | None) -> str:
    return str(estimate or "n/a")


def cell(value: Any) -> str:
    """Format a table cell: an estimate without its number of rows, n/a for None."""
    if isinstance(value, Estimate):
        return brief(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    return "n/a" if value is None else str(value)


def decimals(values: Sequence[float]) -> int:
    """Return the number of decimals that gives the largest value three digits; below 10, three."""
    largest = max(map(abs, values), default=0.0)
    places = 2 - math.floor(math.log10(largest)) if largest else 3
    return min(8, max(0, places if largest >= 10 else max(3, places)))


def measured(estimate: Estimate | None) -> str:
    """Format an estimate of any size with its interval and number of rows; n/a for None."""
    if estimate is None:
        return "n/a"
    ends = [v for v in (estimate.value, estimate.low, estimate.high) if np.isfinite(v)]
    return f"{brief(estimate, decimals(ends))} n={estimate.n}"


def brief(estimate: Estimate, digits: int = 3) -> str:
    value, low, high = (f"{v:.{digits}f}" for v in (estimate.value, estimate.low, estimate.high))
    return value if np.isnan(estimate.low) else f"{value} [{low}, {high}]"


def wilson(right: int, n: int) -> Estimate | None:
    """Return a share of n rows with Wilson's score interval; None for no rows.

    Wilson 1927; recommended by Brown, Cai, DasGupta 2001, Interval estimation for a binomial
    proportion, eq. 4.

    >>> print(wilson(81, 263))
    0.308 [0.255, 0.366] n=263
    """
    if n == 0:
        return None
    return Estimate(right / n, *_wilson_bounds(right / n, n), n)


def _wilson_bounds(share: float, n: float) -> tuple[float, float]:
    low, high = (float(bound) for bound in wilson_bounds(share, n, Z))
    return 0.0 if share == 0 else max(0.0, low), 1.0 if share == 1 else min(1.0, high)


def bootstrap(values: NDArray[np.float64], resamples: int, seed: int) -> Estimate:
    """Return the mean of one value per row, with its percentile bootstrap interval."""
    if len(values) > COUNTED:
        return _bootstrap_of_counts(values, resamples, seed)
    rng = np.random.default_rng(seed)
    n, means = len(values), np.empty(resamples)
    step = max(1, CELLS // n)
    for start in range(0, resamples, step):
        size = (min(step, resamples - start), n)
        means[start : start + step] = values[rng.integers(n, size=size)].mean(axis=1)
    low, high = np.quantile(means, TAILS)
    return Estimate(float(values.mean()), float(low), float(high), n)


def _bootstrap_of_counts(values: NDArray[np.float64], resamples: int, seed: int) -> Estimate:
    """Return what `bootstrap` does of very many rows, in a time that does not grow with them.

    The rows are sorted into groups of equal values, or up to GROUPS groups of near ones, and each
    stands for its mean: a resample is then one multinomial draw of the counts. Where values differ
    within groups, the variance that is lost is far below that of the quantiles of the resamples.
    """
    n = len(values)
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) > GROUPS:
        edges = np.linspace(0, n, GROUPS + 1).astype(np.int64)
        counts = np.diff(edges)
        levels = np.add.reduceat(np.sort(values), edges[:-1]) / counts
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    low, high = np.quantile(draws @ levels / n, TAILS)
    return Estimate(float(values.mean()), float(low), float(high), n)


def drawn(
    rng: np.random.Generator, n: int, samples: int, units: Units = ()
) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of the rows in each sample of a bootstrap of n rows.

    units: the numbers of the rows that are drawn together, as `units_of` gives them; () to draw
    each row by itself.
    """
    for _ in range(samples):
        some = rng.integers(len(units) or n, size=len(units) or n)
        yield np.concatenate([units[u] for u in some]) if units else some


def units_of(groups: Sequence[str]) -> Units:
    """Return the numbers of the rows of each group; () if each row is a group of its own."""
    if len(set(groups)) == len(groups):
        return ()
    members = defaultdict[str, list[int]](list)
    for row, name in enumerate(groups):
        members[name].append(row)
    return tuple(np.array(rows) for rows in members.values())


def resampled(metric: Resampled, resamples: int, seed: int, units: Units = ()) -> Estimate | None:
    """Return a statistic of rows with its percentile bootstrap interval.

    Samples without the statistic are left out; the interval is NaN if none has it. None if the
    rows themselves do not have it, as R² of equal labels. Of many rows fewer samples are drawn.
    units: the numbers of the rows that are drawn together; () to draw each row by itself.
    """
    rng, n = np.random.default_rng(seed), metric.n
    samples = min(resamples, max(FEWEST, DRAWN // max(n, 1)))
    with catch_warnings(action="ignore"), np.errstate(all="ignore"):
        value = float(metric.value) if n else np.nan
        if not np.isfinite(value):
            return None
        values = np.array([metric.of(some) for some in drawn(rng, n, samples, units)], np.float64)
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, TAILS) if len(finite) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), n)


def _read_target(plain: Mapping[str, Any], at: str) -> tuple[Target, Outputs, Labels]:
    """Read the target of an evaluation; returns it with outputs and labels of 0 rows."""
    key = "target" if "target" in plain else "classes"
    entry(plain, key, dict[str, Any] if key == "target" else tuple[str, ...], at)
    try:
        target = target_from_plain(plain)
        answers = target.activate(np.zeros((0, target.outputs), np.float32))
        return target, answers, target.unknown(0)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"{joined(at, key)} must be those of an evaluation: {error}") from error


def _read_baseline(plain: Any, at: str) -> Baseline | None:
    if plain is None:
        return None
    names = tuple(entries(plain, at))
    if len(names) != 2:
        raise SpecError(f"{at} must hold an answer and a metric; got {list(names)}.")
    metric = entry(plain, names[1], Estimate | None, at)
    return Baseline(names[0], entry(plain, names[0], str, at), names[1], metric)


def _read_table(table: Table, plain: Mapping[str, Any], at: str) -> Table:
    """Read the rows of a table from evaluation.json; table: the target's, made from 0 rows."""
    counts = table.rows and all(type(cell) is int for row in table.rows for cell in row)
    cells: Any = int if counts else (int | float | str | Estimate | None)
    if not table.keys:
        rows: Any = entry(plain, table.name, tuple[tuple[cells, ...], ...], at)
    else:
        named = entry(plain, table.name, dict[str, dict[str, cells]], at)
        at = joined(at, table.name)
        rows = tuple(
            (name, *(entry(row, key, Any, joined(at, name)) for key in table.keys[1:]))
            for name, row in named.items()
        )
    return replace(table, rows=rows)


def _values(table: Table, row_of: Callable[[dict[str, Any]], Any]) -> Any:
    """Return the rows of a table; of a table with keys, a dict by first cell of `row_of(row)`."""
    if not table.keys:
        return table.rows
    named = (dict(zip(table.keys[1:], row[1:], strict=True)) for row in table.rows)
    return {row[0]: row_of(own) for row, own in zip(table.rows, named, strict=True)}


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_plain()
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
