"""Explain predicted classes: of a picture, and of the most confident mistakes of a run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headstart.base.atomic import write_json
from headstart.base.errors import DataError, HeadstartError, UnknownName
from headstart.base.values import read_value
from headstart.data.content import prepared
from headstart.data.dataset import CheckedFile, LeftOut
from headstart.explaining.pixels.attributing import attribute
from headstart.explaining.pixels.attribution import GRID, LEVELS
from headstart.explaining.pixels.deletion import DRAWN, STEPS, deletion
from headstart.explaining.pixels.explanation import Explanation
from headstart.explaining.pixels.grad_model import grad_model_of
from headstart.explaining.pixels.method import Method
from headstart.explaining.pixels.probed_model import DEPTH, ProbedModel, probed_model_of
from headstart.explaining.pixels.saved import ExplainedRow, ExplainedRows
from headstart.models.model import Model
from headstart.targets.predictions import Predictions, read_predictions

EXPLAINED = "explained.json"
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
# The default of `train`: a fifth of the full effort, some 250 runs of a large network.
QUICK = Effort(mistakes=4, right=2, method="places", layers=2, steps=8, drawn=1)


def explain(
    probed: ProbedModel,
    source: Path | CheckedFile,
    name: str | None = None,
    effort: Effort = FULL,
) -> Explanation:
    """Explain why a picture gets the class called `name`, or the predicted class if that is None.

    Raises UnknownName with the nearest names, DataError if the picture can't be read or has changed
    since it was checked.
    """
    model, path = probed.model, CheckedFile.of(source).path
    number = None if name is None else model.number(name)
    try:
        square = np.array(prepared(model.input, source)["pixels"][0])
    except (OSError, DataError) as error:
        raise DataError(f"{path} must be a picture that can be read: {error}") from error
    scores = probed.forward.scores(square[None])[0]
    number = int(scores.argmax()) if number is None else number
    (map,) = attribute(probed, square[None], np.array([number]), effort.method)
    curves = deletion(probed, square, map, steps=effort.steps, drawn=effort.drawn)
    return Explanation(str(path), square, model.classes[number], float(scores[number]), map, curves)


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
    run: Path, model: Model, pictures: Pictures, effort: Effort = FULL
) -> Iterator[Explanation | LeftOut]:
    """Yield explanations of a run's most confident mistakes and a few right answers on the test
    rows, each for its predicted class; a LeftOut for a picture that can't be read.

    RUN/explained.json is written after the last one, or when the caller stops early, unless the
    file holds more rows already.
    """
    test, probed = read_predictions(run / "predictions.csv"), probed_model_of(grad_model_of(model))
    probed = replace(probed, probes=probed.probes[: effort.layers])
    rows, whole = list[ExplainedRow](), False
    try:
        for row in rows_to_explain(run, pictures, effort):
            id, predicted = test.ids[row], test.classes[test.predicted[row]]
            result = try_explain(probed, id, pictures[id], predicted, effort)
            if isinstance(result, Explanation):
                rows.append(result.row(test.classes[test.labels[row]]))
            yield result
        whole = True
    finally:
        if rows and (whole or len(rows) > _rows_in(run / EXPLAINED)):
            write_json(run / EXPLAINED, ExplainedRows(GRID, LEVELS, tuple(rows)).to_plain())


def _rows_in(file: Path) -> int:
    """Return how many rows the file holds; 0 if it can't be read."""
    try:
        return len(read_value(file, ExplainedRows).rows)
    except (OSError, ValueError):
        return 0


def rows_to_explain(run: Path, pictures: Pictures, effort: Effort = FULL) -> list[int]:
    """Return the rows of RUN/predictions.csv to explain, among those with an entry in `pictures`.

    Raises DataError if there is none.
    """
    test = read_predictions(run / "predictions.csv")
    if not len(test):
        raise DataError(
            f"There must be test pictures to explain, and {run} was trained without any. Name "
            f"pictures to explain after it."
        )
    there = [row for row, id in enumerate(test.ids) if id in pictures]
    rows = telling(test.take(there), effort.mistakes, effort.right)
    if not rows:
        raise DataError(
            f"There must be test pictures to explain; of {len(test):,} that {run} was tested on "
            f"none is where it was. Say where the data is now with --data."
        )
    return [there[row] for row in rows]


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
