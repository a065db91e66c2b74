"""Boxes: accuracy on blood cells, against random weights and FCOS; what storing activations gains.

    python bench/boxes.py --data DATA [--size 512] [--seeds 0 1 2]
        [--parts runs control fcos steps missing]
    python bench/boxes.py --quick

DATA is data with boxes and parts, such as the blood cells of github.com/Shenggan/BCCD_Dataset.

- runs: `headstart train DATA --size 512`, from an empty store, once for each seed; for the first
  seed once more, which must run the network on no picture. The interval of the mean is of the test
  pictures, each with the answers of all seeds
- control: the first seed with random weights in the frozen layers
- fcos: torchvision's, on the same frozen weights and rectangles, trained for as many seconds as the
  run of the first seed took in all (references/torchvision_fcos.py)
- steps: seconds of an epoch of the head, from stored activations and with the frozen layers
  computed for each batch, of rectangles in memory: in PyTorch, and by each engine
- missing: a tenth of the training boxes hidden from training; how many of the 50 likeliest missing
  boxes of the training pictures are hidden ones. Three ways to judge pictures that were learned
  from: by the model itself; by a model of a quarter of the epochs; crosswise, each half by a model
  of the other half. By chance: the same number drawn at random from the detections without a
  label, of all, and of those that reach the threshold of their class. Things that nobody labelled
  in the first place count as wrong.

Finished parts are kept in --work, so that a stopped bench goes on.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from box_missing import WAYS, judged_by
from box_steps import Rectangles, epoch_seconds
from harness import Bench, plain
from made_boxes import make_boxes
from numpy.typing import NDArray
from references.torchvision_fcos import detect, new_fcos, train_fcos

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.strides import levels_of
from headstart.data.dataset import Dataset
from headstart.data.splits import split
from headstart.evaluation.evaluation import brief, resampled
from headstart.modalities.images.letterbox import out_of
from headstart.modalities.sources import DEFAULT_BACKBONE, load_backbone
from headstart.targets.box_metrics import AT_50, EVERY, ScoredBoxes
from headstart.targets.boxes import BoxesTarget, answers_of, detections
from headstart.targets.predictions import Predictions, read_predictions, write_csv
from headstart.targets.target import Resampled

PARTS = ("runs", "control", "fcos", "steps", "missing")
WANTED, WANTED_TIMES = 0.49, 5.0
RESAMPLES = 400
STEPPED = 32  # pictures in memory by which seconds of a step are measured
QUICK_BACKBONE, QUICK_EPOCHS = "timm:test_efficientnet", 4
Facts = Mapping[str, Any]
Rows = list[dict[str, object]]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Asked:
    """What is measured. folder: of finished parts. epochs: 0 for the usual ones."""

    data: Dataset
    folder: Path
    size: int
    backbone: str
    weights: str
    epochs: int

    def settings(self, seed: int) -> dict[str, Any]:
        """The flags of `headstart train`: --size and --seed, and with --quick others."""
        found: dict[str, Any] = {"size": self.size, "seed": seed}
        if self.backbone != DEFAULT_BACKBONE:
            found["backbone"] = self.backbone
        if self.weights != "pretrained":
            found["weights"] = self.weights
        return found | ({"head": "pyramid", "head_epochs": self.epochs} if self.epochs else {})

    @property
    def network(self) -> Backbone:
        return load_backbone(self.backbone, weights=self.weights)

    @property
    def store(self) -> Path:
        """Of the first run: the steps and the hidden boxes find their activations there."""
        return self.folder / "store"

    def rows(self, part: str) -> Dataset:
        return self.data.take([i for i, own in enumerate(self.data.parts) if own == part])


@dataclass(frozen=True, eq=False)
class Finished:
    """A part that is measured. answers: for the test pictures."""

    facts: Facts
    answers: Predictions | None = None


def main() -> None:
    bench = Bench("boxes", __doc__)
    bench.flag("--data", type=Path)
    bench.flag("--size", type=int, default=512, quick=96)
    bench.flag("--seeds", type=int, nargs="+", default=[0, 1, 2], quick=[0])
    bench.flag("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick=QUICK_BACKBONE)
    bench.flag("--work", type=Path, help=argparse.SUPPRESS)
    args = bench.arguments()
    if args.data is None and not args.quick:
        print("Name the data with boxes: bench/boxes.py --data DATA", file=sys.stderr)
        sys.exit(2)
    work = args.work or (bench.folder / "parts" if args.quick else Path("bench/out/boxes"))
    work.mkdir(parents=True, exist_ok=True)
    source = args.data or make_boxes(work / "made", 40)
    weights = "pretrained" if args.backbone == DEFAULT_BACKBONE else "random"
    data, epochs = with_parts(hs.read(source)), QUICK_EPOCHS if args.quick else 0
    asked = Asked(data, work, args.size, args.backbone, weights, epochs)
    rows, figures = accuracies(asked, args.seeds, args.parts)
    more = dict[str, Rows]()
    if "steps" in args.parts:
        found = kept_or_made(asked, "steps", lambda: steps(asked)).facts
        more["Seconds of an epoch of the head"] = found["rows"]
        figures |= {"wanted, times stored in PyTorch": WANTED_TIMES}
    if "missing" in args.parts:
        ways = [kept_or_made(asked, f"missing-{n}", partial(missing, asked, n)) for n in WAYS]
        more["A tenth of the training boxes hidden"] = [dict(way.facts) for way in ways]
        figures |= {
            f"hidden boxes among the likeliest missing, by {way.facts['judged by']}": (
                f"{way.facts['of them hidden']} of {way.facts['listed']}; "
                f"by chance {way.facts['by chance, of all']}"
            )
            for way in ways
        }
    shutil.rmtree(asked.store, ignore_errors=True)
    bench.report(rows, figures, more=more)


def with_parts(data: Dataset) -> Dataset:
    """Return the data with the part of each row, drawn at random if it names none."""
    if data.parts:
        return data
    drawn = split(data)
    parts = dict.fromkeys(drawn.val.ids, "val") | dict.fromkeys(drawn.test.ids, "test")
    return replace(data, parts=tuple(parts.get(id, "train") for id in data.ids))


def kept_or_made(
    asked: Asked, key: str, make: Callable[[], Facts | tuple[Facts, Predictions]]
) -> Finished:
    folder = asked.folder / key.replace(" ", "-").replace(",", "")
    if not (folder / "facts.json").exists():
        made = make()
        facts, answers = made if isinstance(made, tuple) else (made, None)
        folder.mkdir(exist_ok=True)
        if answers is not None:
            write_csv(answers, folder / "predictions.csv")
        (folder / "facts.json").write_text(json.dumps(plain(facts)))
    facts, there = json.loads((folder / "facts.json").read_text()), folder / "predictions.csv"
    print(key, facts, flush=True)
    answers = read_predictions(there, asked.data.target) if there.exists() else None
    return Finished(facts, answers)


# ------------------------------------------------------------ accuracy
def accuracies(
    asked: Asked, seeds: Sequence[int], parts: Sequence[str]
) -> tuple[Rows, dict[str, object]]:
    rows, figures = Rows(), dict[str, object]()
    first: Facts = {}
    if {"runs", "fcos"} & {*parts}:
        runs = [trained(asked, seed, seed == seeds[0]) for seed in seeds]
        rows, first = rows_of("headstart", asked, runs, seeds), runs[0].facts
        figures["AP wanted"] = WANTED
        figures["AP reached"] = float(str(rows[-1]["AP"])) >= WANTED
        figures["pictures that the network runs on in a second run"] = first["again"]["forwards"]
        figures["seconds of the first run, of a second one"] = (
            f"{first['seconds']:.0f}, {first['again']['seconds']:.0f}"
        )
    if "control" in parts:
        other = replace(asked, weights="random", folder=asked.folder / "control")
        other.folder.mkdir(exist_ok=True)
        control = [trained(other, seeds[0], False)]
        rows += rows_of("random weights", other, control, seeds[:1])
    if "fcos" in parts:
        found = kept_or_made(asked, "fcos", lambda: fcos(asked, first["seconds"]))
        rows += rows_of("torchvision's FCOS", asked, [found], seeds[:1])
        figures["epochs of FCOS"] = found.facts["epochs"]
    return rows, figures


def trained(asked: Asked, seed: int, again: bool) -> Finished:
    """A run from an empty store. again: whether a second run follows, and the store is kept."""

    def make() -> tuple[Facts, Predictions]:
        store = asked.store if again else asked.folder / "store-of-one-run"
        shutil.rmtree(store, ignore_errors=True)
        facts, answers = run_once(asked, seed, store)
        if again:
            return {**facts, "again": run_once(asked, seed, store)[0]}, answers
        shutil.rmtree(store)
        return facts, answers

    return kept_or_made(asked, f"run-{seed}", make)


def run_once(asked: Asked, seed: int, store: Path) -> tuple[Facts, Predictions]:
    out = asked.folder / "running"
    shutil.rmtree(out, ignore_errors=True)
    run = hs.train(asked.data, out, store=hs.Store(store), **asked.settings(seed))
    answers, took = read_predictions(out / "predictions.csv", asked.data.target), run.timings
    facts = {"seconds": took.total_seconds, "forwards": took.backbone_forwards}
    return {**facts, "epochs": len(run.history) - 1}, answers


def rows_of(name: str, asked: Asked, runs: Sequence[Finished], seeds: Sequence[int]) -> Rows:
    """A row for each run and, of several, one for their mean."""
    each = [(str(seed), [run]) for seed, run in zip(seeds, runs, strict=True)]
    each += [("mean", list(runs))] if len(runs) > 1 else []
    return [
        {
            "model": name,
            "seed": seed,
            **accuracy(some),
            "seconds": round(mean(run.facts["seconds"] for run in some), 1),
        }
        for seed, some in each
    ]


def accuracy(runs: Sequence[Finished]) -> dict[str, object]:
    """Return the mean AP and AP50 of runs, with intervals by a bootstrap of the pictures."""
    found, scored = dict[str, object](), [scored_of(run) for run in runs]
    for name, at in {"AP": EVERY, "AP50": AT_50}.items():
        each = [own.precision(at) for own in scored]
        estimate = resampled(Resampled(len(scored[0].truth), partial(mean_of, each)), RESAMPLES, 0)
        assert estimate is not None
        found |= {name: round(estimate.value, 4), f"{name}, 95 %": brief(estimate).split(" ", 1)[1]}
    return found


def mean_of(each: Sequence[Callable[[Numbers], float]], rows: Numbers) -> float:
    return mean(of(rows) for of in each)


def scored_of(run: Finished) -> ScoredBoxes:
    answers = run.answers
    assert answers is not None
    assert isinstance(answers.target, BoxesTarget)
    return ScoredBoxes(answers.labels, detections(answers.outputs), len(answers.target.names))


def fcos(asked: Asked, seconds: float) -> tuple[Facts, Predictions]:
    """torchvision's FCOS, trained for so many seconds; its answers for the test pictures."""
    data, target = asked.data, asked.data.target
    assert isinstance(target, BoxesTarget)
    train, test = (
        Rectangles.of(asked.network, asked.rows(part), asked.size, data)
        for part in ("train", "test")
    )
    model = new_fcos(levels_of(train.backbone), train.input, len(target.names))
    epochs, took = train_fcos(model, train.pixels, train.boxes, seconds)
    y = test.data.y
    frames = [test.input.placing(*y[i].size).numbers() for i in range(len(y))]
    upright = [
        replace(own, corners=out_of(own.corners[None], frame[None])[0])
        for own, frame in zip(detect(model, test.pixels), frames, strict=True)
    ]
    return {"seconds": took, "epochs": epochs}, Predictions(
        test.data.ids, answers_of(upright), y, target
    )


# ------------------------------------------------------------ seconds and missing boxes
def steps(asked: Asked) -> Facts:
    train = asked.rows("train")
    some = train.take(range(min(len(train), STEPPED)))
    own = Rectangles.of(asked.network, some, asked.size, asked.data)
    return {"rows": epoch_seconds(own, hs.Store(asked.store), len(train))}


def missing(asked: Asked, way: str) -> Facts:
    out = asked.folder / "running"
    shutil.rmtree(out, ignore_errors=True)
    settings = {**asked.settings(0), "store": hs.Store(asked.store)}
    return judged_by(way, asked.data, out, settings)


if __name__ == "__main__":
    main()
