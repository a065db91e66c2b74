"""Few rows: a head chosen by folds and fitted again, against the choice on one validation part.

    python bench/small_data.py [--draws 200] [--sizes 40 80 160]

Features of two sets, ELPV's solar cells and scikit-learn's digits, stored once. Of each,
draws of a few rows, stratified: the head's strength is chosen on one validation part, 18 % of them,
and the head learns from the others (earlier versions); or it is chosen in five folds of all of
them, and the head learns from all (now). Both are tested on the rows that were not drawn.

Of the heads chosen by folds, with limits from out-of-fold answers: the share of the test rows whose
conformal set holds the class (asked: 90 %), with the mean size of the sets, and both by CV+, which
keeps the heads of the folds (Romano, Sesia, Candès 2020, Classification with valid and adaptive
coverage; Barber et al. 2021, Predictive inference with the jackknife+); the share called unlike the
training rows (asked: what the limit says it can warrant), and the AUROC of the distance against the
other set. Of the rows judged in the folds: how often Wilson's 95 % interval of their accuracy holds
the mean accuracy, on all the rows not drawn, of the heads of these folds. (A run with --folds
widens its intervals, as its rows share models.)

Of the learning curve of a run with one validation part: how often the 95 % interval projected for
twice its training rows holds the mean accuracy of heads that were trained on so many rows of the
whole set, with the same strength (asked: 90 %), and its mean width.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
from extract import digits
from harness import Bench
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import headstart as hs
from headstart.evaluation.effort import QUICK
from headstart.evaluation.evaluation import wilson
from headstart.evaluation.learning_curve import learning_curve
from headstart.features.extract import FeatureTable, extract
from headstart.heads.fit import cross_validate, fit_at, fit_head, folds_of
from headstart.heads.head import Head, Rows, some_of
from headstart.heads.specs import LogisticSpec
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.distance import Seen
from headstart.models.limits import Judged, Limits, TrustPlan, find_limits
from headstart.specs import FeatureExtraction

VALIDATION = 0.15 / 0.85  # of the rows outside the test part, as in a run
MOST_TESTED = 800
PLAN = TrustPlan()
TRAINED = 10  # heads whose mean accuracy is what a learning curve projects
WANTED = {"sets": (0.88, 0.92), "intervals": (0.93, 0.98), "projections": (0.90, 1.0)}
Order = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """One draw. before, now: test accuracies. sets: share of conformal sets that hold the class,
    and size, their mean; plus, plus_size: the same by CV+. unlike: share of the test rows called
    so; asked: what the limit says. auroc: of the distance. held: whether the interval of the folds
    holds the mean of their heads' test accuracies. projected: whether the projection holds the
    truth, and width, of its interval."""

    before: float
    now: float
    sets: float
    size: float
    plus: float
    plus_size: float
    unlike: float
    asked: float
    auroc: float
    held: bool
    projected: bool
    width: float


@dataclass(frozen=True, eq=False)
class Cell:
    """What is drawn from. truths: of projections, by number of rows and strength, as they come."""

    name: str
    rows: Rows
    other: NDArray[np.float32]
    size: int
    draws: int
    truths: dict[tuple[int, float], float] = field(default_factory=dict)

    def figures(self) -> dict[str, object]:
        rng = np.random.default_rng(self.size)
        draws = [one_draw(self, rng) for _ in range(self.draws)]
        return {"set": self.name, "rows": self.size} | figures(draws)


def main() -> None:
    bench = Bench("small_data", __doc__)
    bench.flag("--draws", type=int, default=200, quick=4)
    bench.flag("--sizes", type=int, nargs="+", default=[40, 80, 160], quick=[40])
    bench.flag("--rows", type=int, default=2624, quick=300, help="of each set, at most")
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    args = bench.arguments()
    tables = dict(features(args.backbone, args.rows))
    cells = list[Cell]()
    for name, table in tables.items():
        (other,) = (t.x for n, t in tables.items() if n != name)
        cells += [Cell(name, table, other, size, args.draws) for size in args.sizes]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(Cell.figures, cells))
    bench.report(rows, facts(rows))


def features(backbone: str, most: int) -> Iterator[tuple[str, Rows]]:
    network = FeatureExtraction(fit="squash").prepared(hs.load_backbone(backbone))
    for name, data in {"solar cells": solar_cells(), "digits": digits(1797)}.items():
        rng = np.random.default_rng(0)
        some = data.take(np.sort(rng.permutation(len(data))[:most]))
        table: FeatureTable = extract(network, some, store=hs.Store())
        yield name, Rows(table.x, table.y, table.target)


def one_draw(cell: Cell, rng: np.random.Generator) -> Draw:
    rows, other, size = cell.rows, cell.other, cell.size
    drawn, rest = parted(rows.y, size, rng)
    few, test = some_of(rows, drawn), some_of(rows, rest[:MOST_TESTED])
    chosen, learning = parted(few.y, round(size * VALIDATION), rng)
    spec = LogisticSpec()
    before = fit_head(spec, some_of(few, learning), some_of(few, chosen)).head
    found = cross_validate(spec, few, few)
    assert found is not None
    now = fit_at(found.spec, few).head
    judged = Judged(few.target, found.answers, few.y, few.x, np.eye(len(few.y), dtype=bool))
    limits = find_limits(PLAN, judged, Seen.of(few.x))
    away, strange = (limits.distance(x) for x in (test.x, other[:MOST_TESTED]))
    answers = few.target.scaled(few.target.activate(now.raw(test.x)), limits.temperature)
    region = limits.region(few.target, answers)
    (sets,) = region.values()
    folds = folds_of(few.y)
    kept = (some_of(few, folds != k) for k in range(int(folds.max()) + 1))
    heads = [fit_at(found.spec, own).head for own in kept]
    plus = sets_by_cv_plus(heads, folds, few, found.answers, limits, test.x)
    own, true = np.arange(len(test.y)), test.y
    (l2,) = found.spec.l2  # type: ignore[attr-defined]
    curve = learning_curve(l2, some_of(few, learning), some_of(few, chosen), draws=QUICK.draws)
    assert curve is not None
    ahead = curve.projection
    assert ahead is not None
    odd = np.repeat([0, 1], [len(away), len(strange)])
    return Draw(
        before=accuracy(before, test),
        now=accuracy(now, test),
        sets=float(sets[own, true].mean()),
        size=float(sets.sum(axis=1).mean()),
        plus=float(plus[own, true].mean()),
        plus_size=float(plus.sum(axis=1).mean()),
        unlike=float((away > limits.far).mean()),
        asked=PLAN.false_alarms_of(size),
        auroc=float(roc_auc_score(odd, np.concatenate([away, strange]))),
        held=interval_holds(heads, few, test, found.answers["scores"]),
        projected=ahead.low <= truth(cell, 2 * len(learning), l2) <= ahead.high,
        width=ahead.high - ahead.low,
    )


def sets_by_cv_plus(
    heads: Sequence[Head],
    folds: Order,
    few: Rows,
    answers: Mapping[str, NDArray[np.float32]],
    limits: Limits,
    x: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Return the classes that stay in each row's set, (N, C).

    That are all but those whose score, by the head of the fold of each of the n rows asked, is
    above that row's own score for a share 1 - alpha of n + 1 rows.
    """
    target, asked = few.target, folds >= 0
    known = target.conformity(target.scaled(answers, limits.temperature), few.y)
    assert known is not None
    below = np.zeros((len(x), target.outputs))
    for k, head in enumerate(heads):
        own = target.scaled(target.activate(head.raw(x)), limits.temperature)["scores"]
        below += np.searchsorted(np.sort(known[folds == k]), 1 - own.astype(float))
    return np.asarray(below < math.ceil((1 - PLAN.alpha) * (asked.sum() + 1) - 1e-9))


def truth(cell: Cell, n: int, l2: float) -> float:
    """Return the mean accuracy of heads trained on n rows of the whole set."""
    if (n, l2) not in cell.truths:
        rng, right = np.random.default_rng(n), list[float]()
        for _ in range(TRAINED):
            drawn, rest = parted(cell.rows.y, n, rng)
            head = fit_at(LogisticSpec(l2=(l2,)), some_of(cell.rows, drawn)).head
            right.append(accuracy(head, some_of(cell.rows, rest)))
        cell.truths[n, l2] = float(np.mean(right))
    return cell.truths[n, l2]


def parted(y: NDArray[np.int64], size: int, rng: np.random.Generator) -> tuple[Order, Order]:
    """Return the numbers of `size` rows, with each class's share of them, and of the others."""
    order = rng.permutation(len(y))
    place = np.empty(len(y))
    for c in np.unique(y):
        own = order[y[order] == c]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    order = order[np.argsort(place[order], kind="stable")]
    return order[:size], rng.permutation(order[size:])


def accuracy(head: object, rows: Rows) -> float:
    return float((head.scores(rows.x).argmax(axis=1) == rows.y).mean())  # type: ignore[attr-defined]


def interval_holds(
    heads: Sequence[Head], few: Rows, test: Rows, scores: NDArray[np.float64]
) -> bool:
    right = int((scores.argmax(axis=1) == few.y).sum())
    interval = wilson(right, len(few.y))
    assert interval is not None
    right_ones = float(np.mean([accuracy(head, test) for head in heads]))
    return interval.low <= right_ones <= interval.high


def figures(draws: list[Draw]) -> dict[str, object]:
    values = {name: np.array([getattr(d, name) for d in draws], float) for name in vars(draws[0])}
    gain = values["now"] - values["before"]
    return {
        "one validation part": round(float(values["before"].mean()), 4),
        "folds, refit": round(float(values["now"].mean()), 4),
        "gain": round(float(gain.mean()), 4),
        "its error": round(float(gain.std(ddof=1)) / math.sqrt(len(gain)), 4),
        "sets hold": round(float(values["sets"].mean()), 4),
        "of classes": round(float(values["size"].mean()), 3),
        "CV+ holds": round(float(values["plus"].mean()), 4),
        "CV+ of classes": round(float(values["plus_size"].mean()), 3),
        "called unlike": round(float(values["unlike"].mean()), 4),
        "asked": round(float(values["asked"].mean()), 4),
        "AUROC": round(float(values["auroc"].mean()), 4),
        "intervals hold": round(float(values["held"].mean()), 4),
        "projections hold": round(float(values["projected"].mean()), 4),
        "their width": round(float(values["width"].mean()), 3),
    }


def facts(rows: list[dict[str, object]]) -> dict[str, object]:
    def within(name: str) -> bool:
        low, high = WANTED[name]
        return all(low <= float(str(row[f"{name} hold"])) <= high for row in rows)

    off = [abs(float(str(row["called unlike"])) - float(str(row["asked"]))) for row in rows]
    return {
        "folds and refit are better at every size": all(float(str(r["gain"])) > 0 for r in rows),
        "farthest share called unlike from what was asked": max(off),
        "least AUROC": min(float(str(row["AUROC"])) for row in rows),
        "sets hold 88 to 92 %": within("sets"),
        "intervals hold 93 to 98 %": within("intervals"),
        "projections hold 90 % or more": within("projections"),
    }


if __name__ == "__main__":
    main()
