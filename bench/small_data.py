"""Few rows: a head chosen by folds and fitted again, against the choice on one validation part.

    python bench/small_data.py [--draws 200] [--sizes 40 80 160]

Features of two sets, ELPV's solar cells and scikit-learn's digits, stored once. Of each,
draws of a few rows, stratified: the head's strength is chosen on one validation part, 18 % of them,
and the head learns from the others (earlier versions); or it is chosen in five folds of all of
them, and the head learns from all (now). Both are tested on the rows that were not drawn.

Of the heads chosen by folds, with limits from out-of-fold answers: the share of the test rows whose
conformal set holds the class (asked: 90 %), the share called unlike the training rows (asked: what
the limit says it can warrant), and the AUROC of the distance against the other set. Of the rows
judged in the folds: how often Wilson's 95 % interval of their accuracy holds the mean accuracy, on
all the rows not drawn, of the heads of these folds. (A run with --folds widens its intervals, as
its rows share models.)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from extract import digits
from harness import Bench
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import headstart as hs
from headstart.evaluation.evaluation import wilson
from headstart.features.extract import FeatureTable, extract
from headstart.heads.fit import cross_validate, fit_at, fit_head, folds_of
from headstart.heads.head import Rows, some_of
from headstart.heads.specs import HeadSpec, LogisticSpec
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.distance import Seen
from headstart.models.limits import Judged, TrustPlan, find_limits
from headstart.specs import FeatureExtraction

VALIDATION = 0.15 / 0.85  # of the rows outside the test part, as in a run
MOST_TESTED = 800
PLAN = TrustPlan()
WANTED = {"sets": (0.88, 0.92), "intervals": (0.93, 0.98)}
Order = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """One draw. before, now: test accuracies. sets: share of conformal sets that hold the class.
    unlike: share of the test rows called so; asked: what the limit says. auroc: of the distance.
    held: whether the interval of the folds holds the mean of their heads' test accuracies."""

    before: float
    now: float
    sets: float
    unlike: float
    asked: float
    auroc: float
    held: bool


def main() -> None:
    bench = Bench("small_data", __doc__)
    bench.flag("--draws", type=int, default=200, quick=4)
    bench.flag("--sizes", type=int, nargs="+", default=[40, 80, 160], quick=[40])
    bench.flag("--rows", type=int, default=2624, quick=300, help="of each set, at most")
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    args = bench.arguments()
    tables = dict(features(args.backbone, args.rows))
    rows = list[dict[str, object]]()
    for name, table in tables.items():
        (other,) = (t.x for n, t in tables.items() if n != name)
        for size in args.sizes:
            rng = np.random.default_rng(size)
            draws = [one_draw(table, other, size, rng) for _ in range(args.draws)]
            rows.append({"set": name, "rows": size} | figures(draws))
    bench.report(rows, facts(rows))


def features(backbone: str, most: int) -> Iterator[tuple[str, Rows]]:
    network = FeatureExtraction(fit="squash").prepared(hs.load_backbone(backbone))
    for name, data in {"solar cells": solar_cells(), "digits": digits(1797)}.items():
        rng = np.random.default_rng(0)
        some = data.take(np.sort(rng.permutation(len(data))[:most]))
        table: FeatureTable = extract(network, some, store=hs.Store())
        yield name, Rows(table.x, table.y, table.target)


def one_draw(rows: Rows, other: NDArray[np.float32], size: int, rng: np.random.Generator) -> Draw:
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
    odd = np.repeat([0, 1], [len(away), len(strange)])
    return Draw(
        before=accuracy(before, test),
        now=accuracy(now, test),
        sets=float(sets[np.arange(len(test.y)), test.y].mean()),
        unlike=float((away > limits.far).mean()),
        asked=PLAN.false_alarms_of(size),
        auroc=float(roc_auc_score(odd, np.concatenate([away, strange]))),
        held=interval_holds(found.spec, few, test, found.answers["scores"]),
    )


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


def interval_holds(spec: HeadSpec, few: Rows, test: Rows, scores: NDArray[np.float64]) -> bool:
    right = int((scores.argmax(axis=1) == few.y).sum())
    interval = wilson(right, len(few.y))
    assert interval is not None
    folds = folds_of(few.y)
    heads = (fit_at(spec, some_of(few, folds != k)).head for k in range(int(folds.max()) + 1))
    truth = float(np.mean([accuracy(head, test) for head in heads]))
    return interval.low <= truth <= interval.high


def figures(draws: list[Draw]) -> dict[str, object]:
    values = {name: np.array([getattr(d, name) for d in draws], float) for name in vars(draws[0])}
    gain = values["now"] - values["before"]
    return {
        "one validation part": round(float(values["before"].mean()), 4),
        "folds, refit": round(float(values["now"].mean()), 4),
        "gain": round(float(gain.mean()), 4),
        "its error": round(float(gain.std(ddof=1)) / math.sqrt(len(gain)), 4),
        "sets hold": round(float(values["sets"].mean()), 4),
        "called unlike": round(float(values["unlike"].mean()), 4),
        "asked": round(float(values["asked"].mean()), 4),
        "AUROC": round(float(values["auroc"].mean()), 4),
        "intervals hold": round(float(values["held"].mean()), 4),
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
    }


if __name__ == "__main__":
    main()
