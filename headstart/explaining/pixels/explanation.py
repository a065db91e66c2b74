"""Explain a predicted class: attribution map, deletion curves, nearest training examples."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from headstart.base.atomic import write_json
from headstart.base.errors import DataError, HeadstartError, UnknownName
from headstart.base.values import read_value
from headstart.data.content import prepared
from headstart.data.dataset import CheckedFile, LeftOut
from headstart.explaining.neighbours import Neighbour
from headstart.explaining.pixels.attributing import attribute
from headstart.explaining.pixels.attribution import Attribution
from headstart.explaining.pixels.deletion import DRAWN, STEPS, Deletion, deletion
from headstart.explaining.pixels.grad_model import grad_model_of
from headstart.explaining.pixels.method import Method
from headstart.explaining.pixels.probed_model import DEPTH, ProbedModel, probed_model_of
from headstart.explaining.pixels.saved import (
    ExplainedPicture,
    ExplainedRow,
    ExplainedRows,
    NearestExample,
)
from headstart.models.model import Model
from headstart.targets.predictions import Predictions, read_predictions

EXPLAINED = "explained.json"
GRID = 28  # places a side of a saved map
LEVELS = 127  # of a saved map, on either side of 0


@dataclass(frozen=True)
class Effort:
    """How much work explaining a run takes.

    mistakes, right: how many pictures of each, at most. method, layers: how maps are made, and from
    how many layers. steps, drawn: of a deletion curve, and the random orders beside it.
    """

    mistakes: int = 6
    right: int = 4
    method: Method = "best"
    layers: int = DEPTH
    steps: int = STEPS
    drawn: int = DRAWN


# The default of `train`: a fifth of the full effort, some 250 runs of a large network.
QUICK = Effort(mistakes=4, right=2, method="places", layers=2, steps=8, drawn=1)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a picture gets a class. square: (S, S, 3), the network's input. name, score: of the
    explained class. nearest: training examples, empty without training rows."""

    path: str
    square: NDArray[np.uint8]
    name: str
    score: float
    map: Attribution
    deletion: Deletion
    nearest: tuple[Neighbour, ...] = ()

    @property
    def picture(self) -> ExplainedPicture:
        """The explanation without its pixels."""
        return ExplainedPicture(
            path=self.path,
            name=self.name,
            score=self.score,
            method=self.map.method,
            layer=self.map.layer,
            deletion=self.deletion.saved(),
            nearest=tuple(
                NearestExample(n.id, n.label, round(n.distance, 4)) for n in self.nearest
            ),
        )

    def to_plain(self) -> dict[str, Any]:
        """Return `picture`, ready for JSON."""
        return self.picture.to_plain()

    def row(self, label: str) -> ExplainedRow:
        """Return the row of explained.json for an example with this label."""
        return ExplainedRow(**vars(self.picture), label=label, map=quantised(self.map))


def explain(
    probed: ProbedModel,
    source: Path | CheckedFile,
    name: str | None = None,
    method: Method = "best",
    *,
    steps: int = STEPS,
    drawn: int = DRAWN,
) -> Explanation:
    """Explain why a picture gets the class called `name`, or the predicted class if that is None.

    steps, drawn: of its deletion curves. Raises UnknownName with the nearest names, DataError if
    the picture can't be read or has changed since it was checked.
    """
    model, path = probed.model, CheckedFile.of(source).path
    number = None if name is None else model.number(name)
    try:
        square = np.array(prepared(model.input, source)["pixels"][0])
    except (OSError, DataError) as error:
        raise DataError(f"{path} must be a picture that can be read: {error}") from error
    scores = probed.forward.scores(square[None])[0]
    number = int(scores.argmax()) if number is None else number
    (found,) = attribute(probed, square[None], np.array([number]), method)
    told = deletion(probed, square, found, steps=steps, drawn=drawn)
    return Explanation(str(path), square, model.classes[number], float(scores[number]), found, told)


def explained(
    probed: ProbedModel,
    id: str,
    source: Path | CheckedFile,
    name: str | None = None,
    method: Method = "best",
    **curves: int,
) -> Explanation | LeftOut:
    """Call `explain` on the picture called `id`; return a LeftOut if the picture can't be read."""
    try:
        return replace(explain(probed, source, name, method, **curves), path=id)
    except UnknownName:  # a wrong class name is wrong for every picture
        raise
    except (HeadstartError, MemoryError) as error:
        why = str(error).removeprefix(f"{CheckedFile.of(source).path} ")
        return LeftOut(id, why or type(error).__name__)


def explain_run(
    run: Path,
    model: Model,
    pictures: Mapping[str, Path | CheckedFile],
    effort: Effort | None = None,
) -> Iterator[Explanation | LeftOut]:
    """Yield explanations of a run's most confident mistakes and a few right answers on the test
    rows, each for its predicted class; a LeftOut for a picture that can't be read.

    pictures: path of each row's picture, by id. RUN/explained.json is written after the last one,
    or when the caller stops early, unless the file holds more rows already.
    """
    effort = effort or Effort()
    said, probed = read_predictions(run / "predictions.csv"), probed_model_of(grad_model_of(model))
    probed = replace(probed, probes=probed.probes[: effort.layers])
    curves = {"steps": effort.steps, "drawn": effort.drawn}
    rows, whole = list[ExplainedRow](), False
    try:
        for row in rows_to_explain(run, pictures, effort):
            id, answered = said.ids[row], said.classes[said.predicted[row]]
            found = explained(probed, id, pictures[id], answered, effort.method, **curves)
            if isinstance(found, Explanation):
                rows.append(found.row(said.classes[said.labels[row]]))
            yield found
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


def rows_to_explain(
    run: Path, pictures: Mapping[str, Path | CheckedFile], effort: Effort | None = None
) -> list[int]:
    """Return the rows of RUN/predictions.csv to explain, among those with an entry in `pictures`.

    Raises DataError if there is none.
    """
    said, effort = read_predictions(run / "predictions.csv"), effort or Effort()
    own = said.take([row for row, id in enumerate(said.ids) if id in pictures])
    rows = telling(own, effort.mistakes, effort.right)
    place = {id: row for row, id in enumerate(said.ids)}
    there = [id for id in said.ids if id in pictures]
    if not len(said):
        raise DataError(
            f"There must be test pictures to explain, and {run} was trained without any. Name "
            f"pictures to explain after it."
        )
    if not rows:
        raise DataError(
            f"There must be test pictures to explain; of {len(said):,} that {run} was tested on "
            f"none is where it was. Say where the data is now with --data."
        )
    return [place[there[row]] for row in rows]


def telling(said: Predictions, mistakes: int, right: int) -> list[int]:
    """Return the rows of the most confident mistakes, then of the most confident right answers,
    one class after the other in turn."""
    sure = said.scores.max(axis=1) if said.scores.shape[1] else np.zeros(len(said))
    order = np.argsort(-sure, kind="stable")
    wrong = [int(row) for row in order if said.known[row] and not said.correct[row]]
    good, before = list[tuple[int, int]](), Counter[int]()
    for row in order[said.correct[order]]:
        label = int(said.labels[row])
        good.append((before[label], int(row)))
        before[label] += 1
    return wrong[:mistakes] + [row for _, row in sorted(good, key=lambda g: g[0])[:right]]


def quantised(found: Attribution, side: int = GRID) -> tuple[tuple[int, ...], ...]:
    """Return the map (side, side) as integers, scaled so that the largest magnitude is LEVELS."""
    grid = torch.from_numpy(found.over(max(side, len(found.values))))[None]
    small = adaptive_avg_pool2d(grid, side)[0].numpy()
    scaled = np.rint(small / max(float(np.abs(small).max()), 1e-12) * LEVELS).astype(int)
    return tuple(map(tuple, scaled.tolist()))
