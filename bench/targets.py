"""Solar cells as a number and as grades, compared with two classes and with ridge regression.

    python bench/targets.py [--seed 0] [--cells N]

ELPV, 2,624 cells with the probability of a defect that an expert gave: 0, 1/3, 2/3 or 1. A quarter
is for the test, a tenth for validation; EfficientNet-Lite0 of the package in 4 stored views, and
the demo's settings in both phases. The same cells as a number, as four grades, and as two classes
(defective from 1/2 on); and scikit-learn's ridge regression on the same features, strength by five
folds. MAE is in probability, grades count as their probabilities; kappa has quadratic weights, a
number counts as its nearest grade; accuracy is of "defective", from 1/2 on. Intervals are by
bootstrap of the test cells.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import Bench
from numpy.typing import NDArray

import headstart as hs
from headstart.base.context import RunContext
from headstart.base.runtime import Runtime, keep_memory
from headstart.explaining.pixels.squares import stratified_rows
from headstart.features.extract import extract
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.fitting import two_phases
from headstart.runs.recipes import CELLS
from headstart.targets.predictions import Predictions

Floats = NDArray[np.float64]
DRAWS = 2000
STEPS = 3  # grades count in thirds


@dataclass(frozen=True, eq=False)
class Said:
    """What a model said of the test cells: probabilities, or for two classes only `defective`."""

    defective: NDArray[np.bool_]
    probability: Floats | None = None
    r2: bool = False


def main() -> None:
    bench = Bench("targets", __doc__)
    bench.flag("--seed", type=int, default=0)
    bench.flag("--cells", type=int, default=10**6, quick=200, help="at most")
    bench.flag("--epochs", type=int, default=2, quick=1)
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    args = bench.arguments()
    keep_memory()
    cells = {kind: solar_cells(kind) for kind in ("number", "grades", "class")}
    chosen = stratified_rows(cells["class"].y, args.cells)
    parts = hs.split(cells["class"].take(chosen), val=0.1, test=0.25, seed=args.seed)
    numbers = dict(zip(cells["number"].ids, map(float, cells["number"].y), strict=True))
    truth = np.array([numbers[id] for id in parts.test.ids])
    rows, said = list[dict[str, object]](), dict[str, Said]()
    with tempfile.TemporaryDirectory() as folder:
        store = hs.Store(Path(folder))
        for kind, data in cells.items():
            began = time.perf_counter()
            for phase, predictions in fitted(same_rows(parts, data), store, args).items():
                said[f"{kind}, {phase}"] = READ[kind](predictions)
            print(kind, f"{time.perf_counter() - began:.0f} s", flush=True)
        said["ridge of scikit-learn"] = ridge(same_rows(parts, cells["number"]), store, args)
    rows = [{"model": name, **judged(found, truth)} for name, found in said.items()]
    bench.report(rows, differences(said, truth))


def same_rows(parts: hs.Splits, data: hs.Dataset) -> hs.Splits:
    """The same cells in the same parts, with the labels of another target."""
    place = {id: i for i, id in enumerate(data.ids)}

    def of(part: hs.Dataset) -> hs.Dataset:
        return data.take([place[id] for id in part.ids])

    return replace(parts, train=of(parts.train), val=of(parts.val), test=of(parts.test))


def fitted(parts: hs.Splits, store: hs.Store, args: Any) -> dict[str, Predictions]:
    """The predictions on the test cells of both phases of the demo's job."""
    spec = replace(CELLS.spec, finetune=replace(CELLS.finetune, epochs=args.epochs, seed=args.seed))
    spec = replace(spec, head=replace(spec.head, seed=args.seed))
    backbone = spec.head.prepared(hs.load_backbone(args.backbone))
    context = RunContext(store, Runtime().resolved(), hs.Listener())
    made = two_phases(spec, backbone, parts, context).made
    names = {"head": "head", "finetune": "two phases"}
    return {names[p]: c.fitted.predict(parts.test, store=store) for p, c in made.items()}


def of_number(predictions: Predictions) -> Said:
    values = np.asarray(first(predictions), float)
    return Said(values >= 0.5, values, r2=True)


def of_grades(predictions: Predictions) -> Said:
    names = list(map(str, first(predictions)))
    numbers = {"0": 0.0, "1/3": 1 / 3, "2/3": 2 / 3, "1": 1.0}
    values = np.array([numbers[name] for name in names])
    return Said(values >= 0.5, values)


def of_classes(predictions: Predictions) -> Said:
    return Said(np.asarray(first(predictions)) == "defective")


READ: dict[str, Callable[[Predictions], Said]] = {
    "number": of_number,
    "grades": of_grades,
    "class": of_classes,
}


def first(predictions: Predictions) -> Any:
    """The column of the answer itself."""
    return next(iter(predictions.target.columns(predictions.outputs).values()))


def ridge(parts: hs.Splits, store: hs.Store, args: Any) -> Said:
    """Ridge regression on the features of plain cells, as users of scikit-learn do it."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    backbone = CELLS.recipe.prepared(hs.load_backbone(args.backbone))
    train, val, test = (
        extract(backbone, part, store=store) for part in (parts.train, parts.val, parts.test)
    )
    x, y = np.concatenate([train.x, val.x]), np.concatenate([train.y, val.y]).astype(float).ravel()
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 13), cv=5)).fit(x, y)
    values = np.asarray(model.predict(test.x), float)
    return Said(values >= 0.5, values, r2=True)


# ------------------------------------------------------------ figures
def judged(found: Said, truth: Floats) -> dict[str, object]:
    """The figures of one model, each with its interval."""
    row: dict[str, object] = {"accuracy": interval(accuracy, found.defective, truth)}
    if found.probability is not None:
        row["MAE"] = interval(mae, found.probability, truth)
        row["kappa"] = interval(kappa, found.probability, truth)
    if found.probability is not None and found.r2:
        row["R²"] = interval(r2, found.probability, truth)
    return row


def differences(said: dict[str, Said], truth: Floats) -> dict[str, object]:
    """What the number and the grades gain over ridge, and over two classes, on the same cells."""
    plain, two = said["ridge of scikit-learn"], said["class, two phases"]
    facts = dict[str, object]()
    for kind in ("number", "grades"):
        found = said[f"{kind}, two phases"]
        facts[f"{kind} less ridge, MAE"] = gap(mae, found.probability, plain.probability, truth)
        facts[f"{kind} less ridge, kappa"] = gap(kappa, found.probability, plain.probability, truth)
        facts[f"{kind} less two classes, accuracy"] = gap(
            accuracy, found.defective, two.defective, truth
        )
    return facts


Figure = Callable[[Any, Floats], float]


def accuracy(defective: Any, truth: Floats) -> float:
    return float((defective == (truth >= 0.5)).mean())


def mae(values: Any, truth: Floats) -> float:
    return float(np.abs(values - truth).mean())


def r2(values: Any, truth: Floats) -> float:
    return float(1 - ((values - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def kappa(values: Any, truth: Floats) -> float:
    """Cohen's kappa with quadratic weights of the nearest grades (Cohen 1968)."""
    said, right = (np.clip(np.rint(v * STEPS), 0, STEPS) for v in (values, truth))
    chance = said.var() + right.var() + (said.mean() - right.mean()) ** 2  # of random pairs
    return float(1 - ((said - right) ** 2).mean() / chance)


def resampled(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(n, size=(DRAWS, n))


def interval(figure: Figure, values: Any, truth: Floats) -> str:
    draws = [figure(values[rows], truth[rows]) for rows in resampled(len(truth))]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{figure(values, truth):.3f} [{low:.3f}, {high:.3f}]"


def gap(figure: Figure, a: Any, b: Any, truth: Floats) -> str:
    """The difference of a figure between two models, with its interval."""
    draws = [
        figure(a[rows], truth[rows]) - figure(b[rows], truth[rows])
        for rows in resampled(len(truth))
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{figure(a, truth) - figure(b, truth):+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
