"""The main job, from data to bundle: a head first, then fine-tuning, the better one kept.

Each file is written as soon as what it holds is known, and whole. A run that was cut off goes on
in its folder: features are in the store, and training is in its checkpoints.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headstart.atomic import write_json, write_text
from headstart.backbones.backbone import Backbone
from headstart.backbones.registry import load_backbone
from headstart.bundle import save, versions
from headstart.data.checks import Checks, check, good_rows, survey
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.splits import Splits, split
from headstart.data.views import Views
from headstart.engines import check_device
from headstart.errors import DataError
from headstart.evaluation import Estimate, Evaluation, compare, evaluate_predictions
from headstart.features import FeatureTable, Tap, Watch, extract
from headstart.finetuning import Opened, open_up
from headstart.fitting import (
    Around,
    Fitted,
    engine_feed,
    feeds,
    fine_tune,
    fit_from_scratch,
    fit_tables,
    tap_for,
    train_tables,
)
from headstart.jobs import Job
from headstart.metrics import accuracy, log_loss
from headstart.predictions import Predictions, write_csv
from headstart.run_folder import LAST, claimed, history_csv, splits_csv
from headstart.runtime import held_interrupts, keep_memory, peak_rss_bytes
from headstart.spec import fingerprint, to_plain
from headstart.specs import FineTune
from headstart.training.feeds import Feed, Stored
from headstart.training.loop import Epoch, Hearing, Keeping
from headstart.training.network import Count

CNN = "scratch:cnn"


@dataclass(frozen=True)
class Talk:
    """Who wants to hear how a run goes: `say` gets a stage's name and what came of it."""

    say: Callable[[str, str], None] = lambda stage, text: None
    watch: Callable[[str], Watch] = lambda stage: Watch()


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that was trained in a run, and what it says of validation."""

    fitted: Fitted
    val: Predictions

    @property
    def merit(self) -> tuple[float, float]:
        """More right answers are better; of equals the smaller loss."""
        if not len(self.val):
            return 0.0, 0.0
        scores, labels = self.val.scores, self.val.labels
        return accuracy(scores, labels), -log_loss(scores, labels)


@dataclass(frozen=True, eq=False)
class Run:
    """kept: the candidate that was saved: head, finetune or scratch. gain: how much more accurate
    it is on validation than the other one. baselines: what was trained to compare with, on test.
    """

    folder: Path
    splits: Splits
    checks: Checks
    fitted: Fitted
    kept: str
    candidates: dict[str, Evaluation]  # on validation
    counts: dict[str, Count]  # numbers that each of them trained
    gain: Estimate | None
    evaluations: dict[str, Evaluation]  # by part: "test" and "val"
    baselines: dict[str, Evaluation]
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
    """Check, split, train, judge, save: the whole of `headstart train` into folder `out`.

    Raises SpecError if `out` holds a finished run or anything else, DataError when the data will
    not do, Diverged when training does. What was computed until then is kept, and gone on with.
    """
    with claimed(out, resume=(job := job or Job()).resume):
        keep_memory()
        return _Training(out, job, talk or Talk()).run(data)


@dataclass(eq=False)
class _Training:
    """One run under way: what it was asked for, and what its stages hand on."""

    out: Path
    job: Job
    talk: Talk
    clock: Stopwatch = field(default_factory=Stopwatch)
    tables: list[FeatureTable] = field(default_factory=list)  # all that were extracted

    def run(self, data: Dataset) -> Run:
        job, clock = self.job, self.clock
        with clock("backbone"):  # first: a wrong name is told before all files are decoded
            backbone = self._backbone()
            settings = job.finetune.resolved(backbone, job.recipe.head_lr)
            opened = open_up(backbone, settings.thaw, settings.thaw_from) if job.tunes else None
        with clock("checks"):
            rows, checks = self._checked(data)
        if job.strategy == "scratch":
            splits = self._split(rows, checks)
            with clock("training"):
                fitted = self._from_scratch("scratch", backbone, splits)
            candidates = {"scratch": Candidate(fitted, self._said(fitted, splits.val, None))}
        else:
            with clock("features"):
                tap = self._tap(settings, opened, len(rows))
                settings = replace(settings, cut_precision=tap.precision) if tap else settings
                table = self._extracted(backbone, rows, tap)
            checks = checks.confirmed(table.x)
            splits = self._split(rows, checks)
            candidates = self._candidates(backbone, settings, opened, splits, table, tap)
        kept = self._kept(candidates)
        fitted = candidates[kept].fitted
        history = [line for c in candidates.values() for line in c.fitted.history]
        write_text(self.out / "history.csv", history_csv(history))
        with clock("evaluation"):
            known = table if kept == "head" else None
            test = self._said(fitted, splits.test, known)
        baselines = self._baselines(backbone, splits)
        evaluations = self._judged(test, candidates, kept, fitted.model.majority, baselines)
        gain = _gain(candidates, kept)
        recipe = self._recipe(backbone, settings, candidates, kept, gain)
        write_json(self.out / "recipe.json", recipe)
        with clock("save"):
            told = {"kept": kept, "strategy": recipe["strategy"]}
            save(fitted.model, self.out / "model", told=told)
        timings = self._timings()
        write_json(self.out / LAST, timings)
        return Run(
            self.out,
            splits,
            checks,
            fitted,
            kept,
            {n: evaluate_predictions(c.val) for n, c in candidates.items()},
            {n: c.fitted.count for n, c in candidates.items()},
            gain,
            evaluations,
            baselines,
            timings,
            (*checks.left_out, *splits.left_out),
        )

    def _backbone(self) -> Backbone:
        check_device(self.job.runtime)
        weights = self.job.weights
        if self.job.strategy == "scratch" and weights == "pretrained":
            weights = "random"
        loaded = load_backbone(self.job.backbone, weights=weights)
        backbone = self.job.recipe.prepared(loaded)
        self.talk.say("backbone", _described(backbone))
        return backbone

    def _around(self, phase: str, job: str = "", stop: Callable[[], bool] | None = None) -> Around:
        """What a phase works with: its checkpoint is gone on with only by the very same job."""
        keeping = Keeping(
            self.out / f"checkpoint-{phase}.safetensors",
            job,
            self.job.checkpoint_s,
            stop or (lambda: False),
        )
        watch = self.talk.watch(phase)
        hearing = Hearing(self._hear, watch.progress, lambda text: self.talk.say(phase, text))
        runtime = self.job.runtime.resolved()
        say = hearing.say
        return Around(self.job.store, runtime, watch, say, keeping, hearing)

    def _hear(self, line: Epoch) -> None:
        self.talk.say(line.phase, _epoch_said(line))

    def _checked(self, data: Dataset) -> tuple[Dataset, Checks]:
        """The rows to work with and what was found, written down before anything is refused."""
        self.talk.say("checks", f"looking at {len(data):,} files")
        threads, store = self.job.runtime.resolved().decode_threads, self.job.store
        progress = self.talk.watch("checks").progress
        seen = survey(data, store=store, threads=threads, progress=progress)
        checks = check(data, seen, threads=threads)
        write_json(self.out / "checks.json", checks.to_plain())
        rows = good_rows(data, seen, self.job.checks)
        said = f"{len(rows):,} images, {len(rows.classes)} classes: {_counts(rows)}"
        self.talk.say("data", said)
        return rows, checks

    def _tap(self, settings: FineTune, opened: Opened | None, rows: int) -> Tap | None:
        """What to keep at the cut, if there will be a second phase."""
        if opened is None or not opened.thawed:
            return None
        if opened.cut is None:
            self.talk.say("cut", "no frozen layers before the first thawed one: all of it runs")
        return tap_for(settings, opened, rows, self.job.augment, self._around("cut"))

    def _extracted(self, backbone: Backbone, rows: Dataset, tap: Tap | None) -> FeatureTable:
        watch = self.talk.watch("features")
        runtime, store = self.job.runtime, self.job.store
        table = extract(backbone, rows, store=store, runtime=runtime, watch=watch, tap=tap)
        _all_there(table)
        self.tables.append(table)
        self.talk.say("features", _extracted(table))
        return table

    def _split(self, rows: Dataset, checks: Checks) -> Splits:
        with self.clock("split"):
            splits = split(rows, self.job.split, together=checks.together)
            write_json(self.out / "checks.json", checks.to_plain())
            write_text(self.out / "splits.csv", splits_csv(splits))
        self.talk.say("split", _counted(splits))
        return splits

    def _candidates(
        self,
        backbone: Backbone,
        settings: FineTune,
        opened: Opened | None,
        splits: Splits,
        table: FeatureTable,
        tap: Tap | None,
    ) -> dict[str, Candidate]:
        """The head and, if there is a second phase, the fine-tuned model."""
        job, around = self.job, self._around("views")
        train, val = table.of(splits.train), table.of(splits.val)
        seed = settings.seed
        if job.augment.active and job.augment.views:
            with self.clock("views"):
                views = train_tables(backbone, splits.train, job.augment, seed, around, tap=tap)
                self.tables.append(views[0])
                self.talk.say("views", _extracted(views[0], len(views)))
        else:
            views = (train,)
        with self.clock("head"):
            head = self._head(backbone, splits, views, val)
        candidates = {"head": Candidate(head, head.model.predict_table(val))}
        if opened is not None and opened.thawed:
            with self.clock("fine-tuning"):
                tuned = self._tuned(settings, opened, head, splits, views, val, tap)
                candidates["finetune"] = Candidate(tuned, self._said(tuned, splits.val, None))
        return candidates

    def _head(
        self,
        backbone: Backbone,
        splits: Splits,
        views: tuple[FeatureTable, ...],
        val: FeatureTable,
    ) -> Fitted:
        recipe, augment = self.job.recipe, self.job.augment
        fresh = None
        around = self._around("head", self._named("head", backbone, splits))
        if recipe.by_epochs and augment.active and not augment.views:
            new = Views(augment, recipe.seed)
            fresh = engine_feed(backbone, None, splits.train, new, 0, around)
        with held_interrupts() as stop:
            around = replace(around, keeping=replace(around.keeping, stop=stop))
            fitted = fit_tables(recipe, backbone, views, val, around=around, fresh=fresh)
        self.talk.say("head", f"{_chosen(fitted)}; {_counts_said(fitted.count)}")
        return fitted

    def _tuned(
        self,
        settings: FineTune,
        opened: Opened,
        head: Fitted,
        splits: Splits,
        views: tuple[FeatureTable, ...],
        val: FeatureTable,
        tap: Tap | None,
    ) -> Fitted:
        around = self._around("finetune", self._named("finetune", opened.backbone, splits, head))
        rows: Feed
        judged: Feed
        if tap is not None:
            rows = Stored(views, cut=True, seed=settings.seed)
            judged = Stored((val,), cut=True)
        else:
            rows, judged = feeds(opened, splits, self.job.augment, settings.seed, around, None)
        with held_interrupts() as stop:
            around = replace(around, keeping=replace(around.keeping, stop=stop))
            head_lr = self.job.recipe.head_lr
            tuned = fine_tune(settings, opened, head, rows, judged, head_lr=head_lr, around=around)
        self.talk.say("finetune", f"{_chosen(tuned)}; {_counts_said(tuned.count)}")
        return tuned

    def _from_scratch(self, phase: str, backbone: Backbone, splits: Splits) -> Fitted:
        job = self.job
        around = self._around(phase, self._named(phase, backbone, splits))
        with held_interrupts() as stop:
            around = replace(around, keeping=replace(around.keeping, stop=stop))
            settings = replace(job.finetune, thaw="all", thaw_from=None)
            fitted = fit_from_scratch(job.recipe, settings, backbone, splits, job.augment, around)
        self.talk.say(phase, f"{_chosen(fitted)}; {_counts_said(fitted.count)}")
        return fitted

    def _named(
        self, phase: str, backbone: Backbone, splits: Splits, head: Fitted | None = None
    ) -> str:
        """Names everything that decides how a phase ends."""
        job = self.job
        rows = [splits.train.ids, splits.val.ids, splits.train.labels]
        start = (
            [] if head is None else [v.tobytes().hex() for v in head.model.head.tensors().values()]
        )
        spec = [to_plain(s) for s in (job.recipe, job.finetune, job.augment)]
        return fingerprint(phase, backbone.fingerprint(), rows, start, spec, job.runtime.device)

    def _said(self, fitted: Fitted, data: Dataset, table: FeatureTable | None) -> Predictions:
        """What a model says of some rows; their features are computed if they are not there."""
        if table is not None:
            return fitted.model.predict_table(table.of(data))
        own = extract(fitted.model.backbone, data, store=self.job.store, runtime=self.job.runtime)
        _all_there(own)
        self.tables.append(own)
        return fitted.model.predict_table(own)

    def _kept(self, candidates: dict[str, Candidate]) -> str:
        """The candidate that is better on validation; of equals the simpler one, which is first."""
        kept = max(candidates, key=lambda name: candidates[name].merit)
        if self.job.strategy == "finetune" and "finetune" in candidates:
            kept = "finetune"
        if len(candidates) > 1:
            shown = ", ".join(f"{n} {c.merit[0]:.3f}" for n, c in candidates.items())
            self.talk.say("kept", f"{kept} (accuracy on validation: {shown})")
        return kept

    def _baselines(self, backbone: Backbone, splits: Splits) -> dict[str, Evaluation]:
        """What the same rows teach a network that starts from nothing, on test."""
        if self.job.baseline == "none":
            return {}
        name = CNN if self.job.baseline == "cnn" else self.job.backbone
        with self.clock("baseline"):
            untrained = self.job.recipe.prepared(load_backbone(name, weights="random"))
            fitted = self._from_scratch("scratch", untrained, splits)
            said = self._said(fitted, splits.test, None)
        return {f"{name} from scratch": evaluate_predictions(said, majority=fitted.model.majority)}

    def _judged(
        self,
        test: Predictions,
        candidates: dict[str, Candidate],
        kept: str,
        majority: str,
        baselines: dict[str, Evaluation],
    ) -> dict[str, Evaluation]:
        """Evaluations on test, whose rows are read here, once, and on validation."""
        said = {"test": test, "val": candidates[kept].val}
        evaluations = {p: evaluate_predictions(s, majority=majority) for p, s in said.items()}
        others = {n: evaluate_predictions(c.val).to_plain() for n, c in candidates.items()}
        write_csv(test, self.out / "predictions.csv")
        plain: dict[str, Any] = {part: e.to_plain() for part, e in evaluations.items()}
        plain |= {"kept": kept, "candidates_on_val": others}
        plain |= {"baselines_on_test": {n: e.to_plain() for n, e in baselines.items()}}
        write_json(self.out / "evaluation.json", plain)
        return evaluations

    def _recipe(
        self,
        backbone: Backbone,
        settings: FineTune,
        candidates: dict[str, Candidate],
        kept: str,
        gain: Estimate | None,
    ) -> dict[str, Any]:
        """Every choice, "auto" resolved, and what made it; nothing that differs by the hour."""
        job = self.job
        return {
            "data": job.source,
            "backbone": job.backbone,
            "weights": {"from": backbone.card.weights, "fingerprint": backbone.fingerprint()},
            "strategy": {
                "asked": job.strategy,
                "kept": kept,
                "gain_on_val": gain.to_plain() if gain else None,
            },
            "recipe": to_plain(job.recipe.resolved(backbone)),
            "finetune": to_plain(settings) if job.strategy != "extract" else None,
            "augment": to_plain(job.augment),
            "chosen": {name: c.fitted.chosen for name, c in candidates.items()},
            "tried": [trial for c in candidates.values() for trial in c.fitted.path],
            "split": to_plain(job.split),
            "checks": to_plain(job.checks),
            "seed": job.split.seed,
            "device": job.runtime.resolved().device,
            "phases": {name: _phase(c.fitted.count) for name, c in candidates.items()},
            "versions": {"python": sys.version.split()[0], **versions()},
        }

    def _timings(self) -> dict[str, Any]:
        seconds = self.clock.seconds
        rows, busy = sum(len(t) for t in self.tables[:1]), sum(t.seconds for t in self.tables[:1])
        return {
            "seconds": seconds,
            "total_seconds": round(sum(seconds.values()), 3),
            "examples_per_second": round(rows / busy, 1) if busy else None,
            "backbone_forwards": sum(t.forwards for t in self.tables),
            "store_hits": sum(t.hits for t in self.tables),
            "peak_rss_bytes": peak_rss_bytes(),
        }


def _all_there(table: FeatureTable) -> None:
    """Raises DataError for files that could be read when they were checked and can't be now."""
    if table.left_out:
        item = table.left_out[0]
        raise DataError(
            f"Files must stay as they are during a run, but {item.path} changed after it was "
            f"checked ({item.reason}), and {len(table.left_out) - 1} more. Run it again."
        )


def _gain(candidates: dict[str, Candidate], kept: str) -> Estimate | None:
    """How much more accurate the kept one is on validation than the other, if there is another."""
    others = [c.val for name, c in candidates.items() if name != kept]
    if not others or not len(others[0]):
        return None
    return compare(candidates[kept].val, others[0])


def _phase(count: Count) -> dict[str, Any]:
    return {
        "frozen": {"parameters": count.frozen, "tensors": count.frozen_tensors},
        "trainable": {"parameters": count.trainable, "tensors": count.trainable_tensors},
    }


def _described(backbone: Backbone) -> str:
    card = backbone.card
    return (
        f"{card.name}, {backbone.parameters / 1e6:.1f} M parameters, "
        f"{card.preprocess.size} px ({card.preprocess.fit}), {card.licence}"
    )


def _extracted(table: FeatureTable, views: int = 1) -> str:
    rows = len(table) * views
    rate = rows / table.seconds if table.seconds else 0
    return (
        f"{rows:,} x {table.x.shape[1]} in {table.seconds:.1f} s ({rate:,.0f} images/s): "
        f"{table.forwards:,} backbone forwards, {table.hits:,} from the store"
    )


def _counted(splits: Splits) -> str:
    parts = (("train", splits.train), ("val", splits.val), ("test", splits.test))
    return ", ".join(f"{name} {len(part):,}" for name, part in parts)


def _chosen(fitted: Fitted) -> str:
    chosen = dict(fitted.chosen)
    name, by = chosen.pop("head", ""), chosen.pop("by")
    settings = ", ".join(f"{k} = {v:.3g}" for k, v in chosen.items())
    return f"{name}{', ' if name else ''}{settings} (by {by})"


def _counts_said(count: Count) -> str:
    return (
        f"{count.trainable:,} trainable parameters in {count.trainable_tensors} tensors, "
        f"{count.frozen:,} frozen in {count.frozen_tensors}"
    )


def _epoch_said(line: Epoch) -> str:
    def shown(loss: float | None, right: float | None) -> str:
        return "-" if loss is None or right is None else f"loss {loss:.4f} accuracy {right:.3f}"

    return (
        f"epoch {line.epoch:<3} train {shown(line.train_loss, line.train_accuracy)}   "
        f"val {shown(line.val_loss, line.val_accuracy)}   {line.seconds:.1f} s"
    )


def _counts(data: Dataset, most: int = 6) -> str:
    counts = sorted(data.counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {n:,}" for name, n in counts[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "")
