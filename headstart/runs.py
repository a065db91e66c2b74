"""The main job, from data to bundle, and the folder that it fills.

Each file is written as soon as what it holds is known, and whole. A folder with .unfinished in it
is of a run that was cut off: the same command goes on with it.
"""

import csv
import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.atomic import TEMPORARY, write_json, write_text
from headstart.backbones.backbone import Backbone
from headstart.backbones.registry import DEFAULT_BACKBONE, load_backbone
from headstart.bundle import save, versions
from headstart.data.checks import CheckPlan, Checks, check, good_rows, survey
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.splits import SplitPlan, Splits, split
from headstart.engines import check_device
from headstart.errors import DataError, SpecError
from headstart.evaluation import Evaluation, evaluate_predictions
from headstart.features import FeatureTable, Watch, extract
from headstart.fitting import FeatureExtraction, Fitted, fit_tables
from headstart.metrics import accuracy, log_loss
from headstart.predictions import Predictions, write_csv
from headstart.runtime import Runtime, peak_rss_bytes
from headstart.spec import to_plain
from headstart.store import USUAL, Store

FILES = {
    "recipe.json",
    "splits.csv",
    "checks.json",
    "history.csv",
    "predictions.csv",
    "evaluation.json",
    "timings.json",
    "report.html",
    "model",
}
LAST = "timings.json"
MARKER = ".unfinished"  # in a folder that `prepare` made and whose run has not ended


@dataclass(frozen=True)
class Job:
    """Everything that `headstart train` can be asked for, but where to put it.

    source: where the data was read from, recorded so that `recorded_parts` knows it again.
    """

    source: str = ""
    backbone: str = DEFAULT_BACKBONE
    weights: str = "pretrained"
    recipe: FeatureExtraction = FeatureExtraction()
    split: SplitPlan = SplitPlan()
    checks: CheckPlan = CheckPlan()
    runtime: Runtime = Runtime()
    store: Store = USUAL


@dataclass(frozen=True)
class Talk:
    """Who wants to hear how a run goes: `say` gets a stage's name and what came of it."""

    say: Callable[[str, str], None] = lambda stage, text: None
    watch: Callable[[str], Watch] = lambda stage: Watch()


@dataclass(frozen=True, eq=False)
class Run:
    folder: Path
    splits: Splits
    checks: Checks
    fitted: Fitted
    evaluations: dict[str, Evaluation]  # by part: "test" and "val"
    timings: dict[str, Any]
    left_out: tuple[LeftOut, ...]


@dataclass
class Stopwatch:
    """Seconds by stage, in the order in which the stages began."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.perf_counter() - began, 3)


def train(data: Dataset, out: Path, job: Job | None = None, talk: Talk | None = None) -> Run:
    """Check, split, extract, fit, judge, save: the whole of `headstart train` into folder `out`.

    Raises SpecError if `out` holds a finished run or anything else, DataError when the data will
    not do; what was computed until then is in the store.
    """
    job, talk, clock = job or Job(), talk or Talk(), Stopwatch()
    prepare(out)
    with clock("backbone"):  # first: a wrong name is told before all files are decoded
        check_device(job.runtime)
        backbone = job.recipe.prepared(load_backbone(job.backbone, weights=job.weights))
        talk.say("backbone", _described(backbone))
    with clock("checks"):
        talk.say("checks", f"looking at {len(data):,} files")
        rows, checks = _checked(data, out, job, talk)
    with clock("features"):
        table = extract(
            backbone, rows, store=job.store, runtime=job.runtime, watch=talk.watch("features")
        )
        _all_there(table)
        talk.say("features", _extracted(table))
    with clock("split"):
        checks = checks.confirmed(table.x)
        splits = split(rows, job.split, together=checks.together)
        write_json(out / "checks.json", checks.to_plain())
        write_text(out / "splits.csv", splits_csv(splits))
        talk.say("split", _counted(splits))
    with clock("head"):
        train_rows, val_rows = table.of(splits.train), table.of(splits.val)
        fitted = fit_tables(job.recipe, backbone, train_rows, val_rows)
        write_json(out / "recipe.json", _recipe(job, backbone, fitted))
        talk.say("head", _chosen(fitted))
    with clock("evaluation"):
        said = {
            p: fitted.model.predict_table(table.of(getattr(splits, p))) for p in ("val", "test")
        }
        said["train"] = fitted.model.predict_table(train_rows)
        evaluations = _judged(said, fitted, out)
    write_text(out / "history.csv", _history(said, clock.seconds["head"]))
    with clock("save"):
        save(fitted.model, out / "model")
    timings = _timings(clock, table)
    write_json(out / LAST, timings)
    (out / MARKER).unlink()
    left_out = (*checks.left_out, *splits.left_out)
    return Run(out, splits, checks, fitted, evaluations, timings, left_out)


def prepare(out: Path) -> None:
    """Make `out` ready for a run: a new folder, or one whose run was cut off and can go on.

    Only a folder that this function made, by the marker in it, is ever written into.
    """
    if out.exists() and not out.is_dir():
        raise SpecError(f"--out names a folder for the run; {out} is a file.")
    there = {p.name for p in out.iterdir()} if out.exists() else set[str]()
    if LAST in there and MARKER not in there:
        raise SpecError(
            f"{out} holds a finished run, which is never written over: name another --out."
        )
    if there and MARKER not in there:
        raise SpecError(
            f"--out names a new folder, or one whose run was interrupted; {out} holds "
            f"{min(there)!r}. Nothing was changed: name another folder."
        )
    write_text(out / MARKER, "A run was begun here and did not end; the same command goes on.\n")
    for name in (n for n in there if n.startswith(TEMPORARY) or n == "model"):
        shutil.rmtree(out / name, ignore_errors=True)


def _all_there(table: FeatureTable) -> None:
    """Raises DataError for files that could be read when they were checked and can't be now."""
    if table.left_out:
        item = table.left_out[0]
        raise DataError(
            f"Files must stay as they are during a run, but {item.path} changed after it was "
            f"checked ({item.reason}), and {len(table.left_out) - 1} more. Run it again."
        )


def _checked(data: Dataset, out: Path, job: Job, talk: Talk) -> tuple[Dataset, Checks]:
    """The rows to work with and what was found, written down before anything is refused."""
    runtime = job.runtime.resolved()
    watch = talk.watch("checks")
    seen = survey(data, store=job.store, threads=runtime.decode_threads, progress=watch.progress)
    checks = check(data, seen, threads=runtime.decode_threads)
    write_json(out / "checks.json", checks.to_plain())
    rows = good_rows(data, seen, job.checks)
    talk.say("data", f"{len(rows):,} images, {len(rows.classes)} classes: {_counts(rows)}")
    return rows, checks


def _judged(said: dict[str, Predictions], fitted: Fitted, out: Path) -> dict[str, Evaluation]:
    """Evaluations on validation and on test, whose rows are read here, once."""
    majority = fitted.model.majority
    evaluations = {p: evaluate_predictions(said[p], majority=majority) for p in ("test", "val")}
    write_csv(said["test"], out / "predictions.csv")
    write_json(out / "evaluation.json", {p: e.to_plain() for p, e in evaluations.items()})
    return evaluations


def recorded_parts(run: Path, source: str, data: Dataset) -> tuple[str, ...]:
    """The part that each row of `data` had in a run, "" for rows it did not have.

    () if the run (a run folder, or the bundle in it) was not of data from the same `source`.
    """
    folder = run if (run / "splits.csv").is_file() else run.resolve().parent
    try:
        recorded = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["data"]
        with open(folder / "splits.csv", encoding="utf-8", newline="") as f:
            part = {row["path"]: row["part"] for row in csv.DictReader(f)}
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(part.get(id, "") for id in data.ids) if recorded == source else ()


def splits_csv(splits: Splits) -> str:
    """path,label,part: a line a row, train, val and test in turn."""
    lines = [
        (id, part.classes[label], name)
        for name, part in (("train", splits.train), ("val", splits.val), ("test", splits.test))
        for id, label in zip(part.ids, part.labels, strict=True)
    ]
    return _csv(("path", "label", "part"), lines)


def _history(said: dict[str, Predictions], seconds: float) -> str:
    """One line: the head is solved, not trained by epochs."""
    header = "phase,epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds".split(",")
    figures: list[object] = []
    for part in ("train", "val"):
        p = said[part]
        figures += (
            [log_loss(p.scores, p.labels), accuracy(p.scores, p.labels)] if p.ids else ["", ""]
        )
    return _csv(header, [("head", 1, "", *figures, seconds)])


def _recipe(job: Job, backbone: Backbone, fitted: Fitted) -> dict[str, Any]:
    """Every choice, "auto" resolved, and what made it; nothing that differs by the hour."""
    state = backbone.module.state_dict()
    head = fitted.model.head
    return {
        "data": job.source,
        "backbone": job.backbone,
        "weights": {"from": backbone.card.weights, "fingerprint": backbone.fingerprint()},
        "recipe": to_plain(job.recipe.resolved(backbone)),
        "chosen": fitted.chosen,
        "tried": list(fitted.path),
        "split": to_plain(job.split),
        "checks": to_plain(job.checks),
        "seed": job.split.seed,
        "device": job.runtime.resolved().device,
        "phases": {
            "head": {
                "frozen": {"parameters": backbone.parameters, "tensors": _tensors(backbone)},
                "trainable": {"parameters": head.parameters, "tensors": len(head.tensors())},
                "buffers": len(state) - _tensors(backbone),
            }
        },
        "versions": {"python": sys.version.split()[0], **versions()},
    }


def _tensors(backbone: Backbone) -> int:
    return sum(1 for _ in backbone.module.parameters())


def _timings(clock: Stopwatch, table: FeatureTable) -> dict[str, Any]:
    return {
        "seconds": clock.seconds,
        "total_seconds": round(sum(clock.seconds.values()), 3),
        "examples_per_second": round(len(table) / table.seconds, 1) if table.seconds else None,
        "backbone_forwards": table.forwards,
        "store_hits": table.hits,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _described(backbone: Backbone) -> str:
    card = backbone.card
    return (
        f"{card.name}, {backbone.parameters / 1e6:.1f} M frozen parameters, "
        f"{card.preprocess.size} px ({card.preprocess.fit}), {card.licence}"
    )


def _extracted(table: FeatureTable) -> str:
    rate = len(table) / table.seconds if table.seconds else 0
    return (
        f"{len(table):,} x {table.x.shape[1]} in {table.seconds:.1f} s ({rate:,.0f} images/s): "
        f"{table.forwards:,} backbone forwards, {table.hits:,} from the store"
    )


def _counted(splits: Splits) -> str:
    parts = (("train", splits.train), ("val", splits.val), ("test", splits.test))
    return ", ".join(f"{name} {len(part):,}" for name, part in parts)


def _chosen(fitted: Fitted) -> str:
    chosen = dict(fitted.chosen)
    name, by = chosen.pop("head"), chosen.pop("by")
    settings = ", ".join(f"{k} = {v:.3g}" for k, v in chosen.items())
    return f"{name}, {settings} (by {by}), {fitted.model.head.parameters:,} parameters"


def _counts(data: Dataset, most: int = 6) -> str:
    counts = sorted(data.counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {n:,}" for name, n in counts[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "")


def _csv(header: "tuple[str, ...] | list[str]", rows: "list[tuple[Any, ...]]") -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
