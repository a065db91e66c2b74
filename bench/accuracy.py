"""Accuracy and time of `headstart train` and of fastai's `fine_tune`: same weights, same rows.

    python bench/accuracy.py [--sets cells crystals faces textures] [--sizes 100 1000]
        [--seeds 0 1] [--methods default budget fastai] [--again default]
    python bench/accuracy.py --quick

EfficientNet-Lite0 of its package, on sets out of packages (`labelled_sets.py`); each size counts
training and validation rows. One process a cell, each with an empty store:

- default: `headstart train MANIFEST --out RUN`, and no other flag
- budget: the same with --budget 3m
- fastai: `fine_tune(5)`, its head, rates and schedule; it never learns from validation rows
- head, tuned: `headstart train` with --strategy extract or finetune; advice: `headstart advise`

Seconds are those of the whole process, from nothing to the answers for the test rows; Headstart's
include checks, baselines, explanations, report and the saved bundle. "processor" is the time of all
cores. Finished cells are kept in --work, so that a stopped bench goes on; --again NAME runs those
of a method anew. Intervals of differences are of the paired rows.
"""

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from os import environ
from pathlib import Path
from typing import Any

import numpy as np
from harness import Bench, circumstances
from labelled_sets import SETS, write_set
from numpy.typing import NDArray
from references.environments import python_of

from headstart.evaluation.evaluation import wilson
from headstart.targets.predictions import read_predictions

REFERENCES = Path(__file__).parent / "references"
FLAGS = {
    "default": (),
    "budget": ("--budget", "3m"),
    "head": ("--strategy", "extract"),
    "tuned": ("--strategy", "finetune"),
}
METHODS = (*FLAGS, "fastai", "augmented fastai", "advice")
LEFT_OUT = 3  # the exit code if rows were left out: training rows that are copies of test rows
BACKBONE = "packaged:efficientnet_lite0"
HEADSTART = [sys.executable, "-m", "headstart"]
PAIRS = (("default", "fastai"), ("budget", "fastai"), ("budget", "default"))


@dataclass(frozen=True)
class Cell:
    """One method on one draw of one set."""

    name: str
    rows: int
    seed: int
    method: str

    @property
    def key(self) -> str:
        return f"{self.name}-{self.rows}-{self.seed}-{self.method}".replace(" ", "-")


@dataclass(frozen=True)
class Answer:
    """What a method gave. right: of each test row, by path. strategy: of an advice."""

    right: dict[str, bool]
    seconds: float
    processor: float
    strategy: str = ""


def main() -> None:
    bench = Bench("accuracy", __doc__)
    usual = ["cells", "crystals", "faces", "textures"]
    bench.flag("--sets", nargs="+", choices=SETS, default=usual, quick=["faces"])
    bench.flag("--sizes", type=int, nargs="+", default=[100, 1000], quick=[40])
    bench.flag("--seeds", type=int, nargs="+", default=[0, 1], quick=[0])
    known = ["default", "budget", "fastai"]
    bench.flag("--methods", nargs="+", choices=METHODS, default=known, quick=["head"])
    bench.flag("--again", nargs="+", choices=METHODS, default=[], help=argparse.SUPPRESS)
    bench.flag("--work", type=Path, help="folder of the cells; else bench/out/accuracy")
    args = bench.arguments()
    work = args.work or (bench.folder / "cells" if args.quick else Path("bench/out/accuracy"))
    work.mkdir(parents=True, exist_ok=True)
    answers = dict[Cell, Answer]()
    for cell in cells(args):
        answers[cell] = kept_or_made(cell, work, args.again)
        print(cell.key, shown(answers[cell]), flush=True)
    rows = [row_of(answers, *draw) for draw in dict.fromkeys((c.name, c.rows) for c in answers)]
    bench.report(rows, figures(answers))


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells, the methods of one draw after one another: so machines that change in
    speed change alike for all."""
    for name in args.sets:
        for rows in args.sizes:
            for seed in args.seeds:
                yield from (Cell(name, rows, seed, method) for method in args.methods)


def kept_or_made(cell: Cell, work: Path, again: list[str]) -> Answer:
    kept = work / f"{cell.key}.json"
    if kept.exists() and cell.method not in again:
        there = json.loads(kept.read_text())
        return Answer(**{k: v for k, v in there.items() if k != "circumstances"})
    data, scratch = work / f"{cell.name}-{cell.rows}-{cell.seed}", work / f"{cell.key}.running"
    if not (data / "done").exists():
        shutil.rmtree(data, ignore_errors=True)
        write_set(cell.name, data, rows=cell.rows, seed=cell.seed)
        (data / "done").touch()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    answer = made(cell, data, scratch)
    kept.write_text(json.dumps({**asdict(answer), "circumstances": circumstances()}))
    shutil.rmtree(scratch)
    return answer


def made(cell: Cell, data: Path, scratch: Path) -> Answer:
    env = {"HEADSTART_STORE": str(scratch / "store")}
    manifest = str(data / "manifest.csv")
    if cell.method == "advice":
        asked = ["advise", manifest, "--json", "--backbones", BACKBONE]
        seconds, processor, printed = timed([*HEADSTART, *asked], env)
        return Answer({}, seconds, processor, strategy=json.loads(printed)["strategy"])
    if "fastai" in cell.method:
        result = scratch / "result.json"
        script = REFERENCES / "fastai_accuracy.py"
        command: list[object] = [python_of("fastai_finetune"), script, data, weights(scratch)]
        command += [result, "--seed", cell.seed]
        command += ["--augment"] * (cell.method == "augmented fastai")
        seconds, processor, _ = timed([str(word) for word in command], env)
        return Answer(marked(data, json.loads(result.read_text())["answers"]), seconds, processor)
    out = scratch / "run"
    words = ["train", manifest, "--out", str(out), *FLAGS[cell.method], "--seed", str(cell.seed)]
    words += ["--backbone", BACKBONE]
    seconds, processor, _ = timed([*HEADSTART, *words], env)
    judged = read_predictions(out / "predictions.csv")
    right = {Path(id).name: bool(ok) for id, ok in zip(judged.ids, judged.correct, strict=True)}
    return Answer(right, seconds, processor)


def timed(command: list[str], env: Mapping[str, str]) -> tuple[float, float, str]:
    """Run a command; return its seconds, those of the processor, and what it printed."""
    before, began = used(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**environ, **env})
    if done.returncode not in (0, LEFT_OUT):
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return round(time.perf_counter() - began, 1), round(used() - before, 1), done.stdout


def used() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def weights(folder: Path) -> Path:
    """Write the packaged network's state, for fastai."""
    import torch

    import headstart as hs

    path = folder / "weights.pt"
    torch.save(hs.load_backbone(BACKBONE).module.state_dict(), path)
    return path


def marked(data: Path, answers: Mapping[str, str]) -> dict[str, bool]:
    with open(data / "manifest.csv", newline="", encoding="utf-8") as file:
        tested = [row for row in csv.DictReader(file) if row["part"] == "test"]
    return {row["path"]: answers[row["path"]] == row["label"] for row in tested}


def shown(answer: Answer) -> str:
    said = answer.strategy or f"{np.mean(list(answer.right.values())):.4f}"
    return f"{said} in {answer.seconds:.0f} s ({answer.processor:.0f} s of the processor)"


def row_of(answers: Mapping[Cell, Answer], name: str, rows: int) -> dict[str, object]:
    """Return a table's row: over seeds, the share of right answers and the seconds of methods."""
    row: dict[str, object] = {"set": name, "rows": rows}
    own = {c: a for c, a in answers.items() if (c.name, c.rows) == (name, rows)}
    for method in dict.fromkeys(c.method for c in own):
        some = [a for c, a in own.items() if c.method == method]
        seconds = np.mean([a.seconds for a in some])
        if method != "advice":
            right = np.concatenate([list(a.right.values()) for a in some])
            interval = wilson(int(right.sum()), len(right))
            row[method] = f"{interval} {seconds:.0f} s"
        else:
            row[method] = f"{', '.join(a.strategy for a in some)} {seconds:.0f} s"
    return row


def figures(answers: Mapping[Cell, Answer]) -> dict[str, object]:
    found = dict[str, object]()
    for one, other in PAIRS:
        if pairs := [(a, answers[b]) for a, b in paired(answers, one, other)]:
            found |= compared(one, other, pairs)
    if any(cell.method == "advice" for cell in answers):
        found |= regrets(answers)
    return found


def paired(answers: Mapping[Cell, Answer], one: str, other: str) -> Iterator[tuple[Answer, Cell]]:
    for cell, answer in answers.items():
        twin = Cell(cell.name, cell.rows, cell.seed, other)
        if cell.method == one and twin in answers:
            yield answer, twin


def compared(one: str, other: str, pairs: list[tuple[Answer, Answer]]) -> dict[str, object]:
    gains = [gain_of(a, b) for a, b in pairs]
    mean = float(np.mean([g.mean() for g in gains]))
    error = float(np.sqrt(sum(g.var(ddof=1) / len(g) for g in gains))) / len(gains)
    ratio = [b.seconds / a.seconds for a, b in pairs]
    work = [b.processor / a.processor for a, b in pairs]
    behind = sum(g.mean() + 1.96 * g.std(ddof=1) / len(g) ** 0.5 < 0 for g in gains)
    return {
        f"{one} over {other}, points": f"{100 * mean:+.2f} ± {196 * error:.2f}",
        f"{one} over {other}, least of a cell": f"{100 * min(g.mean() for g in gains):+.2f}",
        f"cells where {one} is worse than {other} beyond noise": int(behind),
        f"{other}'s seconds / {one}'s, geometric mean": float(np.exp(np.log(ratio).mean())),
        f"{other}'s processor time / {one}'s": float(np.exp(np.log(work).mean())),
    }


def gain_of(one: Answer, other: Answer) -> NDArray[np.float64]:
    return np.array([float(one.right[k]) - float(other.right[k]) for k in one.right])


def regrets(answers: Mapping[Cell, Answer]) -> dict[str, Any]:
    """Return how far the advised way is behind the better of head and tuned, on the test rows."""
    lost = dict[str, float]()
    for cell, advised in answers.items():
        ways = [Cell(cell.name, cell.rows, cell.seed, m) for m in ("head", "tuned")]
        if cell.method == "advice" and all(way in answers for way in ways):
            head, tuned = (float(np.mean(list(answers[w].right.values()))) for w in ways)
            took = head if advised.strategy == "extract" else tuned
            lost[f"{cell.name} {cell.rows} {cell.seed}"] = 100 * (max(head, tuned) - took)
    if not lost:
        return {}
    return {"regret of the advice, points": float(np.mean(list(lost.values())))} | {
        f"regret, {name}": value for name, value in lost.items() if value
    }


if __name__ == "__main__":
    main()
