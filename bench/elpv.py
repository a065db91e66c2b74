"""Accuracy on solar cells, step by step, by the published protocol; and published results.

    python bench/elpv.py [--seeds 0 1 2] [--rungs NAME ...] [--backbone …] [--size 224]

ELPV, 2,624 cells, a quarter of them for the test, stratified by class and cell type, as Deitsch et
al. 2019 split it. A cell is defective from a probability of 1/2 on. EfficientNet-Lite0 of its
package, whole cells. Each rung adds one setting of `headstart train` to the rung above it:

- scratch: the tutorials' small CNN; head: a logistic head, its strength chosen on a tenth of the
  rows; folds: chosen in five folds and fitted again on all rows outside the test part; soft: it
  learns the experts' probabilities (0, 1/3, 2/3, 1) in place of the classes; views: on mean
  features of eight flips and turns, in training and at test
- tuned: fine-tuning of the blocks from 3.0 on, from stored activations, 8 epochs; augmented: each
  epoch draws one of eight stored views of a cell; then soft, as above; averaged: an exponential
  average of the weights; viewed: predictions from the mean features of eight views; refitted: on
  all rows outside the test part

The best rung is run first, from an empty store, and timed; the others find what it stored. Nothing
is chosen on test rows. The splits share cells, so that three are not three times as many rows.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

import numpy as np
from harness import Bench

import headstart as hs
from headstart.data.dataset import Dataset
from headstart.evaluation.evaluation import wilson
from headstart.explaining.pixels.squares import stratified_rows
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.runs import recipes
from headstart.specs import Augment, FeatureExtraction, FineTune, Job, SplitPlan
from headstart.targets.predictions import read_predictions

PUBLISHED = {  # Deitsch et al. 2019, table 3: accuracy on the whole test part
    "published SVM": 0.8244,
    "published two-phase VGG19": 0.8842,
}
WANTED = 0.895
TURNED = Augment(flip="both", quarter_turns=True, views=8)


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: what differs from a head chosen on validation."""

    name: str
    tuned: bool = False
    soft: bool = False
    refit: bool = False
    ema: float = 0.0
    tta: str = "none"
    augment: Augment = field(default_factory=Augment)


HEADS = (
    Rung("head"),
    Rung("head, folds", refit=True),
    Rung("head, folds, soft", refit=True, soft=True),
    Rung("head, folds, soft, views", refit=True, soft=True, tta="8", augment=TURNED),
)
EMA = 0.995
TUNED = (
    Rung("tuned", tuned=True),
    Rung("tuned, augmented", tuned=True, augment=TURNED),
    Rung("tuned, augmented, soft", tuned=True, augment=TURNED, soft=True),
    Rung("tuned, augmented, soft, averaged", tuned=True, augment=TURNED, soft=True, ema=EMA),
    Rung(
        "tuned, augmented, soft, averaged, viewed",
        tuned=True,
        augment=TURNED,
        soft=True,
        ema=EMA,
        tta="8",
    ),
    Rung(
        "tuned, augmented, soft, averaged, viewed, refitted",
        tuned=True,
        augment=TURNED,
        soft=True,
        ema=EMA,
        tta="8",
        refit=True,
    ),
)
BEST, SCRATCH = TUNED[-1], Rung("scratch")
LADDER = {rung.name: rung for rung in (SCRATCH, *HEADS, *TUNED)}


@dataclass(frozen=True)
class Judged:
    accuracy: float
    rows: int
    minutes: float


def main() -> None:
    bench = Bench("elpv", __doc__)
    bench.flag("--seeds", type=int, nargs="+", default=[0, 1, 2], quick=[0])
    quick = [SCRATCH.name, "head, folds", BEST.name]
    bench.flag("--rungs", nargs="+", choices=LADDER, default=list(LADDER), quick=quick)
    bench.flag("--cells", type=int, default=10**6, quick=160, help="to split, at most")
    bench.flag("--epochs", type=int, default=8, quick=1)
    bench.flag("--lr", type=float, default=3e-4)
    bench.flag("--thaw", default="11")
    bench.flag("--size", type=int, default=224, quick=32)
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    args = bench.arguments()
    judged = dict[str, list[Judged]]()
    ordered = sorted(args.rungs, key=lambda name: name != BEST.name)
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for name in ordered:
                found = run_rung(LADDER[name], Path(folder), seed, args)
                judged.setdefault(name, []).append(found)
                print(seed, name, found, flush=True)
    bench.report(rows_of(judged), figures(judged))


def run_rung(rung: Rung, folder: Path, seed: int, args: argparse.Namespace) -> Judged:
    cells = softened(solar_cells()) if rung.soft else solar_cells()
    cells = cells.take(stratified_rows(cells.y, args.cells))
    out = folder / rung.name.replace(", ", "-")
    run = hs.train(cells, out, job_of(rung, folder, seed, args), Messages())
    judged = read_predictions(out / "predictions.csv")
    return Judged(float(judged.correct.mean()), len(judged), run.timings.total_seconds / 60)


def job_of(rung: Rung, folder: Path, seed: int, args: argparse.Namespace) -> Job:
    job = Job(
        backbone=args.backbone,
        recipe=FeatureExtraction(
            fit="squash", size=args.size, seed=seed, choose="folds" if rung.refit else "validation"
        ),
        finetune=FineTune(
            thaw=args.thaw if args.backbone == DEFAULT_BACKBONE else "auto",
            epochs=args.epochs,
            lr=args.lr,
            warmup=0.15,
            weight_decay=0.02,
            clip=5.0,
            ema=rung.ema,
            seed=seed,
        ),
        augment=rung.augment,
        tta=rung.tta,
        refit=rung.refit,
        split=SplitPlan(val=0.1, test=0.25, seed=seed),
        store=hs.Store(folder / "store"),
        strategy="finetune" if rung.tuned else "extract",
        insights="none",
    )
    return from_scratch(job) if rung is SCRATCH else job


def from_scratch(job: Job) -> Job:
    """The tutorials' small CNN on the same split, as the recipe cnn-from-scratch has it."""
    recipe = recipes.get_recipe("cnn-from-scratch").job
    seed = job.split.seed
    return replace(
        recipe,
        recipe=replace(recipe.recipe, seed=seed),
        finetune=replace(recipe.finetune, seed=seed),
        split=job.split,
        store=job.store,
        insights="none",
    )


def softened(cells: Dataset) -> Dataset:
    """Return the cells with the experts' probabilities beside the classes."""
    numbers = solar_cells("number").labels
    defective = cells.classes.index("defective")
    rows = (np.insert([1.0 - p], defective, p) for p in map(float, numbers))
    return replace(cells, soft=tuple(tuple(map(float, row)) for row in rows))


def rows_of(judged: Mapping[str, list[Judged]]) -> list[dict[str, object]]:
    rows, above = list[dict[str, object]](), dict[bool, float]()
    for name in LADDER:
        if name not in judged:
            continue
        runs, tuned = judged[name], LADDER[name].tuned
        value = mean(run.accuracy for run in runs)
        interval = wilson(round(value * runs[0].rows), runs[0].rows)
        assert interval is not None
        gain = f"{100 * (value - above[tuned]):+.1f}" if tuned in above else ""
        above[tuned] = value
        rows.append(
            {
                "rung": name,
                **{f"split {i}": round(run.accuracy, 4) for i, run in enumerate(runs)},
                "mean": round(value, 4),
                "95 % of a split": f"[{interval.low:.3f}, {interval.high:.3f}]",
                "gain, points": gain,
            }
        )
    return rows


def figures(judged: Mapping[str, list[Judged]]) -> dict[str, object]:
    found: dict[str, object] = dict(PUBLISHED)
    if BEST.name in judged:
        value = mean(run.accuracy for run in judged[BEST.name])
        longest = max(run.minutes for run in judged[BEST.name])
        found |= {"best rung, minutes of the longest run": longest, "wanted": WANTED}
        found |= {"the best rung reaches it": value >= WANTED}
        found |= {"it beats VGG19": value > PUBLISHED["published two-phase VGG19"]}
    return found


class Messages(hs.Listener):
    def stage(self, name: str, message: str) -> None:
        print(f"  {name:10}{message}", flush=True)


if __name__ == "__main__":
    main()
