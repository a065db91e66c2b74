"""Paired comparison of models by the target's score of each row, for answers that can be partly
right: the error of a number, the shared labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.display import Verbatim
from headstart.base.errors import Mismatch
from headstart.base.values import Record
from headstart.evaluation.evaluation import (
    FOLDS_WIDEN,
    Estimate,
    compare,
    evaluate,
    measured,
)
from headstart.targets.predictions import Predictions

SHOWN = 2  # metrics in the printed table


@dataclass(frozen=True)
class ScoreComparison(Record):
    """Metrics of a run on the test rows, and its comparison with the first run.

    gain: mean of the rows' scores minus that of the first run, with its paired bootstrap interval;
    None for the first run. gained: what the gain is of. better, worse: rows on which this run's
    score is higher, or lower, than the first run's.
    """

    name: str
    n: int
    metrics: dict[str, Estimate | None]
    gained: str = "score gained"
    gain: Estimate | None = None
    better: int = 0
    worse: int = 0


def compare_scores(
    names: Sequence[str], predictions: Sequence[Predictions], folds: Sequence[bool]
) -> list[ScoreComparison]:
    """Evaluate each model on the same test rows, and compare all others with the first.

    names: one per model. predictions: of agreeing targets, of the same rows in the same order.
    folds: which are of the models of several folds, with wider intervals. Raises Mismatch if a run
    predicts something else.
    """
    first = predictions[0]
    for name, other in zip(names, predictions, strict=True):
        if not first.target.agrees(other.target):
            raise Mismatch(
                f"Runs are compared on the same question, but {names[0]} predicts "
                f"{first.target.described} and {name} {other.target.described}. Compare runs of "
                f"one kind."
            )
    found = [_compared(names[0], first, None, (folds[0],))]
    others = zip(names[1:], predictions[1:], folds[1:], strict=True)
    return found + [_compared(n, p, first, (own, folds[0])) for n, p, own in others]


def score_rows(comparisons: Sequence[ScoreComparison]) -> list[tuple[str, ...]]:
    """Return a table to print: a header, then one row per run."""
    shown = list(comparisons[0].metrics)[:SHOWN]
    header = ("run", "n", *(name.replace("_", " ") for name in shown), comparisons[0].gained)
    rows = [
        (Verbatim(c.name), str(c.n), *(_spelt(c.metrics[name]) for name in shown), *_gain(c))
        for c in comparisons
    ]
    return [(*header, "better rows", "worse rows"), *rows]


def _gain(c: ScoreComparison) -> tuple[str, ...]:
    if c.gain is None:
        return "the first", "", ""
    value, low, high = (f"{v:+.3g}" for v in (c.gain.value, c.gain.low, c.gain.high))
    return f"{value} [{low}, {high}]", str(c.better), str(c.worse)


def _spelt(estimate: Estimate | None) -> str:
    return measured(estimate).split(" n=")[0]


def _compared(
    name: str, own: Predictions, first: Predictions | None, folds: Sequence[bool]
) -> ScoreComparison:
    """folds: whether these predictions, and those of `first`, are of the models of folds."""
    found, target = evaluate(own, folds=folds[0]), own.target
    metrics = {n: found.metrics[n] for n in target.shown or found.metrics}
    if first is None:
        return ScoreComparison(name, found.n, metrics, target.gain_name)
    scores = (p.target.row_scores(p.outputs, p.labels)[own.known] for p in (own, first))
    won = np.subtract(*scores)
    better, worse = int((won > 0).sum()), int((won < 0).sum())
    gain = compare(own, first)
    gain = gain.widened(FOLDS_WIDEN) if any(folds) else gain
    return ScoreComparison(name, found.n, metrics, target.gain_name, gain, better, worse)
