"""Which test rows of a run are explained."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError
from headstart.targets.predictions import Predictions, is_cross_validated, predictions_file

Chosen = list[tuple[int, bool]]  # row numbers, each with whether its answer is a good one


def telling_rows(test: Predictions, wrong: int, right: int) -> Chosen:
    """Return the rows of the worst answers, then of the best: one of each answer, then the next.

    Where an answer is right or wrong, wrong ones are the worst; otherwise the worse half.
    """
    rows = np.flatnonzero(test.known)
    if not len(rows):
        return []
    known, good = test.take(rows), _good(test.take(rows))
    losses = known.target.row_losses(known.outputs, known.labels)
    order = np.argsort(-losses, kind="stable")
    bad = [(int(rows[i]), False) for i in order if not good[i]]
    best, before = list[tuple[int, int]](), Counter[str]()
    for i in order[::-1][good[order[::-1]]]:
        best.append((before[known.names[i]], int(rows[i])))
        before[known.names[i]] += 1
    return bad[:wrong] + [(row, True) for _, row in sorted(best, key=lambda b: b[0])[:right]]


def _good(known: Predictions) -> NDArray[np.bool_]:
    scores = known.target.row_scores(known.outputs, known.labels)
    if known.target.counts_right:
        return scores >= 1
    return scores >= np.median(scores)


def check_untouched(run: Path, noun: str) -> None:
    """Raise DataError for a cross-validated run, whose saved model learned from all its rows.

    noun: of the examples.
    """
    if is_cross_validated(predictions_file(run)):
        raise DataError(
            f"Answers are explained on {noun} that the model did not learn from, and the saved "
            f"model of {run}, a cross-validated run, learned from all of them. Name other {noun} "
            f"to explain after it."
        )


def rows_of_run(
    run: Path, test: Predictions, there: Collection[str], wrong: int, right: int
) -> Chosen:
    """Return the rows of RUN/predictions.csv to explain, among those whose id is in `there`.

    Raises DataError if there is none.
    """
    check_untouched(run, "examples")
    if not len(test):
        raise DataError(
            f"There must be test rows to explain, and {run} was trained without any. Name what to "
            f"explain after it."
        )
    rows = [row for row, id in enumerate(test.ids) if id in there]
    chosen = telling_rows(test.take(rows), wrong, right)
    if not chosen:
        raise DataError(
            f"There must be test rows to explain; of {len(test):,} that {run} was tested on none "
            f"is where it was. Say where the data is now with --data."
        )
    return [(rows[row], good) for row, good in chosen]
