"""Paired comparison of models on the same test rows.

Two models are right or wrong together on most rows. Their separate intervals ignore this and can
overlap although the difference is certain. A paired comparison counts only the rows on which the
models differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.base.display import Verbatim
from headstart.base.errors import Mismatch, MissingPackage
from headstart.base.notebook import data_frame, html_table, text_table
from headstart.base.values import Record
from headstart.evaluation.evaluation import (
    FOLDS_WIDEN,
    Estimate,
    cell,
    compare,
    evaluate,
    same_rows,
)
from headstart.evaluation.score_comparison import ScoreComparison, compare_scores, score_rows
from headstart.targets.classes import UNKNOWN
from headstart.targets.predictions import Predictions

AGAIN = "Train them with the same data and the same --seed."


@dataclass(frozen=True)
class Comparison(Record):
    """Metrics of a run on the test rows, and its comparison with the first run.

    A metric is None if the rows do not determine it; gain and p are None for the first run.
    gain: accuracy minus that of the first run, with its paired bootstrap interval. p: McNemar's
    p-value for equal accuracy, not corrected for the number of runs. only_here, only_first: rows
    that only this run, or only the first run, got right.
    """

    name: str
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    macro_f1: Estimate | None
    auroc: Estimate | None
    log_loss: Estimate | None
    gain: Estimate | None = None
    p: float | None = None
    only_here: int = 0
    only_first: int = 0


class Comparisons(tuple[Any, ...]):
    """Runs compared with the first, each a Comparison, or a ScoreComparison without classes.

    of_folds: whether any is cross-validated. A notebook shows them as a table.
    """

    of_folds = False

    def __repr__(self) -> str:
        return text_table(comparison_rows(self))

    def _repr_html_(self) -> str:
        header, *rows = comparison_rows(self)
        return html_table(rows, header)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with the columns of the printed table."""
        header, *rows = comparison_rows(self)
        return data_frame(dict(zip(header, zip(*rows, strict=True), strict=True)))


def compare_predictions(
    names: Sequence[str], predictions: Sequence[Predictions], folds: Sequence[bool] = ()
) -> Comparisons:
    """Evaluate each model on the same test rows and compare all others with the first.

    names: one per model, for messages and the table. Rows are matched by id. folds: which
    predictions are of the models of several folds; their intervals, and those of differences with
    them, are FOLDS_WIDEN times as wide. Raises Mismatch if the rows, their labels, the classes or
    the kinds of target differ.
    """
    folds = folds or [False] * len(names)
    found = Comparisons(_compared_all(names, predictions, folds))
    found.of_folds = any(folds)
    return found


def _compared_all(
    names: Sequence[str], predictions: Sequence[Predictions], folds: Sequence[bool]
) -> list[Any]:
    if not all(p.classes for p in predictions):
        first = predictions[0]
        pairs = zip(names, predictions, strict=True)
        agreeing = [first.target.agrees(p.target) for p in predictions]
        aligned = [
            _in_order(first, p, f"{names[0]} and {name}") if all(agreeing) else p
            for name, p in pairs
        ]
        return list(compare_scores(names, aligned, folds))
    classes = _common_classes(names, predictions)
    first, *others = (_renumbered(p, classes) for p in predictions)
    comparisons = [_compared(names[0], first, None, (folds[0],))]
    for name, other, own in zip(names[1:], others, folds[1:], strict=True):
        ordered = _in_order(first, other, f"{names[0]} and {name}")
        comparisons.append(_compared(name, ordered, first, (own, folds[0])))
    return comparisons


def mcnemar(a: Predictions, b: Predictions) -> float:
    """Return the two-sided p-value of McNemar's exact test that `a` and `b` are equally accurate.

    A binomial test on the rows that exactly one of them got right (McNemar 1947; for classifiers,
    Dietterich 1998); 1 if there are no such rows. Raises Mismatch unless both predict the same
    labelled rows in the same order.
    """
    try:
        from scipy.stats import binomtest
    except ImportError as error:
        raise MissingPackage(
            "scipy", purpose="McNemar's test", command="pip install scipy"
        ) from error
    if not same_rows(a, b):
        raise Mismatch("McNemar's test is of the same rows, in the same order and classes.")
    only_a, only_b = _discordant(a, b)
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def comparison_rows(comparisons: Sequence[Any]) -> list[tuple[str, ...]]:
    """Return a table to print: a header, then one row per run."""
    if isinstance(comparisons[0], ScoreComparison):
        return score_rows(comparisons)
    header = ("run", "n", "accuracy", "balanced accuracy", "log loss", "accuracy gained", "p")
    return [
        (*header, "only it right", "only the first right"),
        *(_row(comparison) for comparison in comparisons),
    ]


def comparison_note(comparisons: Sequence[Any]) -> str:
    """Return one or two sentences that explain the table."""
    of_folds = isinstance(comparisons, Comparisons) and comparisons.of_folds
    widened = f" Intervals of cross-validated runs are {FOLDS_WIDEN:g} times as wide, since their "
    widened = widened + "models share training rows" if of_folds else ""
    if isinstance(comparisons[0], ScoreComparison):
        note = "Gained: per row, with its 95 % interval; one that holds 0 is no clear difference."
        return note + (widened and widened + ".")
    note = "p is McNemar's: how likely such a difference is if both are equally accurate."
    return note + (widened and widened + ", which p does not count.")


def _row(c: Comparison) -> tuple[str, ...]:
    own = map(cell, (c.accuracy, c.balanced_accuracy, c.log_loss))
    n = str(c.accuracy.n) if c.accuracy else "0"
    if c.gain is None or c.p is None:
        return (Verbatim(c.name), n, *own, "the first", "", "", "")
    gain = f"{c.gain.value:+.3f} [{c.gain.low:+.3f}, {c.gain.high:+.3f}]"
    return (Verbatim(c.name), n, *own, gain, f"{c.p:.3g}", str(c.only_here), str(c.only_first))


def _compared(
    name: str, predictions: Predictions, first: Predictions | None, folds: Sequence[bool]
) -> Comparison:
    """folds: whether these predictions, and those of `first`, are of the models of folds."""
    found = evaluate(predictions, folds=folds[0])
    own = (found.accuracy, found.balanced_accuracy, found.macro_f1, found.auroc, found.log_loss)
    if first is None:
        return Comparison(name, *own)
    gain, p = compare(predictions, first), mcnemar(predictions, first)
    gain = gain.widened(FOLDS_WIDEN) if any(folds) else gain
    return Comparison(name, *own, gain, p, *_discordant(predictions, first))


def _discordant(a: Predictions, b: Predictions) -> tuple[int, int]:
    """Count the rows that only `a` got right, and those that only `b` got right."""
    return int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())


def _common_classes(names: Sequence[str], predictions: Sequence[Predictions]) -> tuple[str, ...]:
    """Return the classes of the first predictions with scores, which list all classes.

    Predictions without scores list only the classes that occur in them; if none has scores, the
    union is returned. Raises Mismatch if other predictions have other classes.
    """
    whole = [(p.classes, name) for p, name in zip(predictions, names, strict=True) if p.scored]
    if not whole:
        return tuple(sorted({c for p in predictions for c in p.classes}))
    classes, of = whole[0]
    for p, name in zip(predictions, names, strict=True):
        odd = sorted(set(p.classes) ^ set(classes) if p.scored else set(p.classes) - set(classes))
        if odd:
            raise Mismatch(
                f"Runs are compared on the same classes, but {odd[0]!r} is a class of only one of "
                f"{of} and {name}. {AGAIN}"
            )
    return classes


def _renumbered(predictions: Predictions, classes: tuple[str, ...]) -> Predictions:
    """Renumber the classes of predictions in the order of `classes`."""
    place = np.array([*map(classes.index, predictions.classes), UNKNOWN], dtype=np.int64)
    scores = predictions.scores
    if predictions.scored:
        scores = scores[:, np.argsort(place[:-1])]
    labels, answers = place[predictions.labels], place[predictions.predicted]
    return Predictions(predictions.ids, scores, labels, classes, answers)


def _in_order(first: Predictions, predictions: Predictions, both: str) -> Predictions:
    """Reorder predictions to the rows of `first`; raises Mismatch if ids or labels differ.

    both: the names of the two models, for the message.
    """
    place = {id: i for i, id in enumerate(predictions.ids)}
    shared = sum(id in place for id in first.ids)
    if not shared == len(first) == len(predictions):
        raise Mismatch(
            f"Runs are compared on the same test rows, but {both} share {shared:,} paths "
            f"of {len(first):,} and {len(predictions):,}. {AGAIN}"
        )
    ordered = predictions.take([place[id] for id in first.ids])
    labels = (np.array(p.target.decode(p.labels), object) for p in (ordered, first))
    differ = np.flatnonzero(np.not_equal(*labels))
    if len(differ):
        raise Mismatch(
            f"Runs are compared by the same labels, but {both} share {shared:,} paths and "
            f"label {len(differ):,} of them differently, {first.ids[differ[0]]!r} first. {AGAIN}"
        )
    return ordered
