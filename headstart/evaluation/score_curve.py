"""Would more data help? The main metric of heads by number of training rows, for targets whose
answers can be partly right."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.base.values import Record
from headstart.evaluation.evaluation import Estimate, estimated
from headstart.heads.fit import fit_head
from headstart.heads.head import FeatureRows, counted, some_of
from headstart.heads.specs import HeadSpec

SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)  # of the training rows
REPEATS = 4  # draws of rows for each share
RESAMPLES = 200  # for the interval of each point
LEAST = 10  # training rows of a point


@dataclass(frozen=True)
class ScorePoint(Record):
    """The metric with `rows` training rows, in the mean over draws, and its 95 % interval."""

    rows: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ScoreCurve(Record):
    """metric: its name. judged_on: the part, of n rows."""

    metric: str
    judged_on: str
    n: int
    points: tuple[ScorePoint, ...]


def score_curve(
    spec: HeadSpec, train: FeatureRows, val: FeatureRows, seed: int = 0, draws: int = REPEATS
) -> ScoreCurve | None:
    """Fit heads on growing shares of the training rows and evaluate them on validation.

    spec: of a head that is fitted without epochs. draws: of rows, for each share but the last.
    Training rows of weight 0 are left out. Returns None without validation rows.
    """
    if not len(val.y):
        return None
    train = counted(train)
    target, rng = train.target, np.random.default_rng(seed)
    metric = next(iter(target.shown or target.metrics(*_no_rows(train))))
    points = list[ScorePoint]()
    whole = len(train.y)
    sizes = {max(LEAST, round(share * whole)) for share in SHARES}
    for n in sorted(n for n in sizes if n <= whole):
        repeats = draws if n < whole else 1
        drawn = [np.sort(rng.permutation(whole)[:n]) for _ in range(repeats)]
        if found := [e for rows in drawn if (e := _measured(spec, train, rows, val, metric))]:
            columns = zip(*((e.value, e.low, e.high) for e in found), strict=True)
            value, low, high = (float(np.mean(column)) for column in columns)
            points.append(ScorePoint(n, value, low, high))
    return ScoreCurve(metric, "val", len(val.y), tuple(points))


def _no_rows(table: FeatureRows) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float64]]:
    raw = np.zeros((0, table.target.outputs), np.float32)
    return dict(table.target.activate(raw)), table.target.unknown(0)


def _measured(
    spec: HeadSpec, train: FeatureRows, rows: NDArray[np.intp], val: FeatureRows, metric: str
) -> Estimate | None:
    """Return the metric of a head fitted on these rows; None if it is not determined."""
    head = fit_head(spec, some_of(train, rows), val).head
    answers = train.target.activate(head.raw(val.x))
    found: Estimate | None = estimated(train.target.metrics(answers, val.y)[metric], RESAMPLES)
    return found
