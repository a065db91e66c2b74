"""Accuracy on solar cells: two phases, a head only, from scratch, and published results.

    python bench/elpv.py [--seeds 0 1 2] [--epochs 8] [--size 224] [--label-smoothing 0]

ELPV, 2,624 cells, a quarter of them for the test, stratified by class and cell type, as Deitsch et
al. 2019 split it; a tenth of all is for validation, out of the training part. A cell is defective
from a probability of 1/2 on. EfficientNet-Lite0 of the package, whole cells, in 8 views (mirrored
and turned by quarters), one of which each epoch draws of each cell; a head of logistic regression;
then the upper half thawed. Everything is
chosen on validation, and the settings were chosen on the split of seed 7, which is not among these.
The seconds are those of the two-phase run, from nothing stored to the saved bundle.

Larger pictures and longer training, --size 300 --epochs 12 --label-smoothing 0.1, take three times
as long and came to the same.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from harness import Bench

import headstart as hs
from headstart.evaluation.evaluation import Estimate, compare, wilson
from headstart.explaining.pixels.squares import stratified_rows
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.runs import recipes
from headstart.specs import Augment, FeatureExtraction, FineTune, Job, SplitPlan
from headstart.targets.predictions import Predictions, read_predictions

VGG19, SVM = 0.8842, 0.8244  # Deitsch et al. 2019, table 3: accuracy on the whole test part


def main() -> None:
    bench = Bench("elpv", __doc__)
    bench.flag("--seeds", type=int, nargs="+", default=[0, 1, 2], quick=[0])
    bench.flag("--cells", type=int, default=10**6, quick=160, help="to split, at most")
    bench.flag("--epochs", type=int, default=8, quick=1)
    bench.flag("--label-smoothing", type=float, default=0.0)
    bench.flag("--lr", type=float, default=2e-4)
    bench.flag("--views", type=int, default=8, quick=2)
    bench.flag("--size", type=int, default=224, quick=32)
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    args = bench.arguments()
    rows, said = list[dict[str, object]](), dict[str, list[Predictions]]()
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            row, predictions = one_split(Path(folder), seed, args)
        rows.append(row)
        print(row, flush=True)
        for name, p in predictions.items():
            said.setdefault(name, []).append(p)
    pooled = {name: together(parts) for name, parts in said.items()}
    two = [float(str(row["two phases"]).split()[0]) for row in rows]
    bench.report(
        rows,
        {
            **{f"{name}, all splits": str(estimate) for name, estimate in pooled.items()},
            "scratch < head only < two phases": bool(
                pooled["scratch"].value < pooled["head only"].value < pooled["two phases"].value
            ),
            "two phases, mean over splits": statistics.mean(two),
            "published two-phase VGG19": VGG19,
            "published SVM": SVM,
            "beats VGG19": statistics.mean(two) > VGG19,
            "minutes, the longest": max(float(str(row["minutes"])) for row in rows),
        },
    )


def one_split(
    folder: Path, seed: int, args: argparse.Namespace
) -> tuple[dict[str, object], dict[str, Predictions]]:
    """Two phases, then a head only (whose features are stored by then), and a CNN from scratch."""
    job = Job(
        backbone=args.backbone,
        recipe=FeatureExtraction(fit="squash", size=args.size, seed=seed),
        finetune=FineTune(
            epochs=args.epochs, lr=args.lr, label_smoothing=args.label_smoothing, seed=seed
        ),
        augment=Augment(flip="both", quarter_turns=True, views=args.views),
        split=SplitPlan(val=0.1, test=0.25, seed=seed),
        store=hs.Store(folder / "store"),
        strategy="finetune",
    )
    cells = solar_cells()
    cells = cells.take(stratified_rows(cells.y, args.cells))
    tuned = hs.train(cells, folder / "two", job, Messages())
    head = hs.train(cells, folder / "head", replace(job, strategy="extract"))
    scratch = hs.train(cells, folder / "scratch", from_scratch(job))
    runs = {"scratch": scratch, "head only": head, "two phases": tuned}
    said = {name: read_predictions(run.folder / "predictions.csv") for name, run in runs.items()}
    row: dict[str, object] = {"seed": seed}
    row |= {name: str(run.evaluations["test"].accuracy) for name, run in runs.items()}
    row |= {
        "gain of phase 2": str(compare(said["two phases"], said["head only"])),
        "minutes": tuned.timings.total_seconds / 60,
    }
    return row, said


class Messages(hs.Listener):
    def stage(self, name: str, message: str) -> None:
        print(f"  {name:10}{message}", flush=True)


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
    )


def together(parts: list[Predictions]) -> Estimate:
    """The share of right answers over the splits, with the interval of one split's size.

    The splits share cells, so the rows of three are not three times as many.
    """
    value = statistics.mean(float(p.correct.mean()) for p in parts)
    n = len(parts[0])
    estimate = wilson(round(value * n), n)
    assert estimate is not None
    return Estimate(value, estimate.low, estimate.high, n)


if __name__ == "__main__":
    main()
