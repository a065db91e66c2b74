"""Explain what a model answers: of a picture, and of a run's worst and some good answers."""

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import write_json
from headstart.base.errors import DataError, HeadstartError, UnknownName
from headstart.base.values import read_value
from headstart.data.content import prepared
from headstart.data.dataset import CheckedFile, LeftOut
from headstart.explaining.choosing import check_untouched
from headstart.explaining.pixels.attributing import attribute
from headstart.explaining.pixels.attribution import GRID, LEVELS
from headstart.explaining.pixels.deletion import DRAWN, STEPS, deletion
from headstart.explaining.pixels.explanation import Explanation
from headstart.explaining.pixels.grad_model import GradModel, grad_model_of
from headstart.explaining.pixels.method import Method
from headstart.explaining.pixels.probed_model import DEPTH, ProbedModel, probed_model_of
from headstart.explaining.pixels.saved import ExplainedRow, ExplainedRows
from headstart.explaining.saved import EXPLAINED
from headstart.models.model import Model
from headstart.targets.predictions import (
    Predictions,
    joined_names,
    predictions_file,
    read_predictions,
)
from headstart.targets.target import Outputs, Target

Pictures = Mapping[str, Path | CheckedFile]  # of the rows of a run, by id


@dataclass(frozen=True)
class Effort:
    """How much work explaining a run takes.

    mistakes, right: how many mistakes and right answers, at most. method, layers: how maps are
    made, and from how many layers. steps, drawn: steps and random orders of deletion curves.
    """

    mistakes: int = 6
    right: int = 4
    method: Method = "best"
    layers: int = DEPTH
    steps: int = STEPS
    drawn: int = DRAWN


FULL = Effort()
EFFORTS = {  # of `train`, by its --insights: a fifth of FULL, and a third of that
    "full": Effort(mistakes=4, right=2, method="places", layers=2, steps=8, drawn=1),
    "quick": Effort(mistakes=2, right=2, method="places", layers=1, steps=6, drawn=1),
}


def explain(
    probed: ProbedModel,
    source: Path | CheckedFile,
    name: str | None = None,
    effort: Effort = FULL,
) -> Explanation:
    """Explain why a picture gets the class or label called `name`, or if that is None its answer.

    That is the predicted class, the most probable label, a number or a grade. Raises UnknownName
    with the nearest names, DataError if the picture can't be read or has changed since it was
    checked.
    """
    model, path = probed.model, CheckedFile.of(source).path
    number = None if name is None else model.number(name)
    try:
        square = np.array(prepared(model.input, source)["pixels"][0])
    except (OSError, DataError) as error:
        raise DataError(f"{path} must be a picture that can be read: {error}") from error
    answers, target = probed.forward.answers(square[None]), model.target
    number = int(target.topic(answers)[0]) if number is None else number
    (map,) = attribute(probed, square[None], np.array([number]), effort.method)
    curves = deletion(probed, square, map, steps=effort.steps, drawn=effort.drawn)
    name, score = target.topics()[number], float(target.degree(answers, number)[0])
    answer = "" if target.names_topics else _answer(target, answers)
    return Explanation(str(path), square, name, score, map, curves, answer=answer)


def _answer(target: Target, answers: Outputs) -> str:
    """Return the answer of one row as a text: 23.4, or the name of a grade."""
    value = next(iter(target.columns(answers).values()))[0]
    return f"{value:.6g}" if isinstance(value, float | np.floating) else joined_names(value)


def try_explain(
    probed: ProbedModel,
    id: str,
    source: Path | CheckedFile,
    name: str | None = None,
    effort: Effort = FULL,
) -> Explanation | LeftOut:
    """Call `explain` on the picture called `id`; return a LeftOut if the picture can't be read."""
    try:
        return replace(explain(probed, source, name, effort), path=id)
    except UnknownName:  # a wrong class name is wrong for every picture
        raise
    except (HeadstartError, MemoryError) as error:
        why = str(error).removeprefix(f"{CheckedFile.of(source).path} ")
        return LeftOut(id, why or type(error).__name__)


def explain_run(
    run: Path,
    model: Model,
    pictures: Pictures,
    effort: Effort = FULL,
    opened: GradModel | None = None,
) -> Generator[Explanation | LeftOut]:
    """Yield explanations of a run's most confident mistakes and a few right answers on the test
    rows, each for its predicted class; a LeftOut for a picture that can't be read. Where answers
    are not just right or wrong, of the worst, of some in the middle and of the best.

    opened: the model with gradients, if there is one. RUN/explained.json is written after the last
    one, or when the caller stops early, unless the file holds more rows already.
    """
    check_untouched(run, "pictures")
    test = read_predictions(predictions_file(run), model.target)
    probed = probed_model_of(opened or grad_model_of(model, of_classes=False))
    probed = replace(probed, probes=probed.probes[: effort.layers])
    asked, labels = _asked(test), test.target.decode(test.labels)
    rows, whole = list[ExplainedRow](), False
    try:
        for row, group in _rows_of(run, test, pictures, effort):
            id = test.ids[row]
            result = try_explain(probed, id, pictures[id], asked[row], effort)
            if isinstance(result, Explanation):
                rows.append(result.row(labels[row], group))
            yield result
        whole = True
    finally:
        if rows and (whole or len(rows) > _rows_in(run / EXPLAINED)):
            write_json(run / EXPLAINED, ExplainedRows(GRID, LEVELS, tuple(rows)).to_plain())


def count_of_run(run: Path, model: Model, pictures: Pictures, effort: Effort = FULL) -> int:
    """Return how many rows `explain_run` explains; raises DataError if there is none."""
    return len(rows_to_explain(run, model.target, pictures, effort))


def _asked(test: Predictions) -> list[str | None]:
    """Return the name of what is explained of each row: a class or label; None for a quantity."""
    names = test.target.topics()
    if not test.target.names_topics:
        return [None] * len(test)
    return [names[number] for number in test.target.topic(test.outputs)]


def _rows_in(file: Path) -> int:
    """Return how many rows the file holds; 0 if it can't be read."""
    try:
        return len(read_value(file, ExplainedRows).rows)
    except (OSError, ValueError):
        return 0


def rows_to_explain(
    run: Path, target: Target, pictures: Pictures, effort: Effort = FULL
) -> list[tuple[int, str]]:
    """Return the rows of RUN/predictions.csv to explain, each with its group, "" of classes.

    They are among those with an entry in `pictures`. Raises DataError if there is none.
    """
    check_untouched(run, "pictures")
    test = read_predictions(predictions_file(run), target)
    return _rows_of(run, test, pictures, effort)


def _rows_of(
    run: Path, test: Predictions, pictures: Pictures, effort: Effort
) -> list[tuple[int, str]]:
    if not len(test):
        raise DataError(
            f"There must be test pictures to explain, and {run} was trained without any. Name "
            f"pictures to explain after it."
        )
    there = [row for row, id in enumerate(test.ids) if id in pictures]
    rows = _chosen(test.take(there), effort)
    if not rows:
        raise DataError(
            f"There must be test pictures to explain; of {len(test):,} that {run} was tested on "
            f"none is where it was. Say where the data is now with --data."
        )
    return [(there[row], group) for row, group in rows]


def _chosen(test: Predictions, effort: Effort) -> list[tuple[int, str]]:
    if test.classes:
        return [(row, "") for row in telling(test, effort.mistakes, effort.right)]
    return spread(test, effort.mistakes, effort.right)


def spread(test: Predictions, worst: int, others: int) -> list[tuple[int, str]]:
    """Return the rows with the worst scores, then `others` from the middle and of the best.

    Of equal scores, the one with the larger loss is the worse. Each row comes with its group.
    """
    known, target = np.flatnonzero(test.known), test.target
    rows = test.take(known)
    order = known[np.lexsort((-target.row_losses(rows.outputs, rows.labels), _scores(rows)))]
    count = len(order)
    worst, best = min(worst, -(-count // 2)), min(-(-others // 2), count // 2)
    between = order[worst : count - best].tolist()
    few = min(others // 2, len(between))
    first = min(max(0, count // 2 - worst - few // 2), len(between) - few)
    groups = {
        "worst": order[:worst].tolist(),
        "middle": between[first : first + few],
        "best": order[::-1][:best].tolist(),
    }
    return [(row, group) for group, own in groups.items() for row in own]


def _scores(rows: Predictions) -> NDArray[np.float64]:
    return rows.target.row_scores(rows.outputs, rows.labels)


def telling(test: Predictions, mistakes: int, right: int) -> list[int]:
    """Return the rows of the most confident mistakes, then of right answers: the most confident one
    of each class, then the second of each class, and so on."""
    sure = test.scores.max(axis=1) if test.scores.shape[1] else np.zeros(len(test))
    order = np.argsort(-sure, kind="stable")
    wrong = [int(row) for row in order if test.known[row] and not test.correct[row]]
    good, before = list[tuple[int, int]](), Counter[int]()
    for row in order[test.correct[order]]:
        label = int(test.labels[row])
        good.append((before[label], int(row)))
        before[label] += 1
    return wrong[:mistakes] + [row for _, row in sorted(good, key=lambda g: g[0])[:right]]
