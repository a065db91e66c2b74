"""The phases of a run: a head, fine-tuning from it, or a network from scratch."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.base.atomic import read_bytes, write_json
from headstart.base.context import Checkpointing, RunContext
from headstart.base.errors import BundleError
from headstart.base.listener import Listener
from headstart.base.runtime import held_interrupts, torch_threads
from headstart.base.store import digest
from headstart.base.values import fingerprint, to_plain
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.features.engines import check_device
from headstart.features.extract import FeatureTable, Precision, Tap, all_there, extract
from headstart.modalities.sources import load_backbone
from headstart.models.finetuning import Opened, open_up
from headstart.models.fitting import (
    Fitted,
    feeds,
    fine_tune,
    fit_from_scratch,
    fit_tables,
    fresh_features,
    tap_for,
    train_tables,
)
from headstart.models.specs import SCRATCH, FineTune
from headstart.runs.job import Job
from headstart.runs.wording import (
    ALL_ALIKE,
    chosen,
    counts_said,
    described,
    extracted,
    under_attack,
)
from headstart.targets.metrics import accuracy, log_loss
from headstart.targets.predictions import Predictions
from headstart.training.feeds import Feed, Stored

CNN = "scratch:cnn"


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


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that was trained in a run, and its features of validation."""

    fitted: Fitted
    table: FeatureTable

    @cached_property
    def val(self) -> Predictions:
        """What it says of validation."""
        return self.fitted.model.predict_table(self.table)

    @property
    def merit(self) -> tuple[float, float]:
        """More right answers are better; of equals the smaller loss."""
        if not len(self.val):
            return 0.0, 0.0
        scores, labels = self.val.scores, self.val.labels
        return accuracy(scores, labels), -log_loss(scores, labels)


@dataclass(frozen=True, eq=False)
class Ready:
    """What training starts from. opened: None if there is no second phase.

    settings: of the second phase, nothing in them "auto" any more. baseline: an untrained network
    to compare with, if one was asked for.
    """

    backbone: Backbone
    settings: FineTune
    opened: Opened | None
    baseline: Backbone | None = None


@dataclass(eq=False)
class Workshop:
    """What the phases of one run share: what was asked for, where files go, who is told."""

    out: Path
    job: Job
    listener: Listener
    clock: Stopwatch = field(default_factory=Stopwatch)
    tables: list[FeatureTable] = field(default_factory=list)  # all that were extracted

    @cached_property
    def context(self) -> RunContext:
        return RunContext(self.job.store, self.job.runtime.resolved(), self.listener)

    @contextmanager
    def training(
        self, phase: str, backbone: Backbone, splits: Splits, *starts: object
    ) -> Iterator[RunContext]:
        """What training works with: its checkpoint, and an ear for Ctrl-C between two steps.

        starts: what else decides how the phase ends, such as the arrays that it starts from.
        """
        path = self.out / f"checkpoint-{phase}.safetensors"
        name = self._name(phase, backbone, splits, starts)
        threads = self.job.runtime.resolved().threads
        with held_interrupts() as stop, torch_threads(threads):
            checkpoints = Checkpointing(path, name, self.job.checkpoint_s, stop)
            yield replace(self.context, checkpoints=checkpoints)

    def extracted(self, backbone: Backbone, rows: Dataset, tap: Tap | None) -> FeatureTable:
        job = self.job
        table = extract(
            backbone, rows, store=job.store, runtime=job.runtime, listener=self.listener, tap=tap
        )
        all_there(table)
        self.tables.append(table)
        self.listener.stage("features", extracted(table))
        if len(table) > 1 and not (table.x != table.x[0]).any():
            self.listener.stage("features", ALL_ALIKE)
        return table

    def features(self, fitted: Fitted, data: Dataset) -> FeatureTable:
        """What the backbone of a model makes of some rows."""
        backbone, job = fitted.model.backbone, self.job
        table = extract(backbone, data, store=job.store, runtime=job.runtime)
        all_there(table)
        self.tables.append(table)
        return table

    def _name(
        self, phase: str, backbone: Backbone, splits: Splits, starts: Iterable[object]
    ) -> str:
        """Names everything that decides how a phase ends: only the very same job goes on."""
        job, weights = self.job, backbone.fingerprint()
        rows = [
            (part.ids, part.labels, [content.file for content in part.contents])
            for part in (splits.train, splits.val)
        ]
        spec = [to_plain(s) for s in (job.recipe, job.finetune, job.augment)]
        begun = [
            digest(np.ascontiguousarray(s).data).hex() if isinstance(s, np.ndarray) else s
            for s in starts
        ]
        return fingerprint(phase, weights, rows, begun, spec, job.runtime.resolved().device)


def prepare(shop: Workshop) -> Ready:
    """Load the backbone and thaw what will be: a wrong name is told before files are decoded."""
    job = shop.job
    check_device(job.runtime)
    weights = job.weights
    if job.strategy == "scratch" and weights == "pretrained":
        weights = "random"
    backbone = job.recipe.prepared(load_backbone(job.backbone, weights=weights))
    shop.listener.stage("backbone", described(backbone))
    job.recipe.check_room(backbone.card.dim)
    beside = _untrained(job)
    if job.strategy == "scratch":
        return Ready(backbone, job.finetune.from_scratch(job.recipe.head_lr), None, beside)
    settings = job.finetune.resolved(backbone, job.recipe.head_lr)
    if not job.tunes:
        return Ready(backbone, settings, None, beside)
    whole = settings.adversarial > 0
    opened = open_up(backbone, settings.thaw, settings.thaw_from, whole=whole)
    return Ready(backbone, settings, opened if opened.thawed else None, beside)


def _untrained(job: Job) -> Backbone | None:
    """The baseline's network; the small CNN is of one size, whatever the other is given."""
    if job.baseline == "none":
        return None
    if job.baseline == "cnn":
        return replace(job.recipe, size=0).prepared(load_backbone(CNN))
    return job.recipe.prepared(load_backbone(job.backbone, weights="random"))


def tap_of(shop: Workshop, ready: Ready, rows: int) -> tuple[Tap | None, Ready]:
    """What to keep at the cut, if there will be a second phase; the precision is settled by it."""
    if ready.opened is None:
        return None, ready
    tap = _decided(shop, ready.settings, ready.opened, rows)
    if tap is not None:
        ready = replace(ready, settings=replace(ready.settings, cut_precision=tap.precision))
    return tap, ready


def _decided(shop: Workshop, settings: FineTune, opened: Opened, rows: int) -> Tap | None:
    """As `tap_for` decides; a run that goes on keeps to what it decided at its beginning."""
    path = shop.out / "checkpoint-cut.json"
    if os.path.lexists(path) and opened.cut is not None:
        precision = _recorded(path, settings)
        return opened.tap(rows, precision) if precision else None
    tap = tap_for(settings, opened, rows, shop.job.augment, shop.context)
    write_json(path, {"precision": tap.precision if tap else None})
    return tap


def _recorded(path: Path, settings: FineTune) -> Precision | None:
    """The precision that a run decided on at its beginning; None if it keeps nothing at the cut.

    Raises BundleError for anything else than what `_decided` wrote.
    """
    asked = settings.cut_precision
    precisions = get_args(Precision) if asked == "auto" else (asked,)
    known: dict[str, Precision | None] = {json.dumps({"precision": p}): p for p in precisions}
    known[json.dumps({"precision": None})] = None
    try:
        return known[json.dumps(json.loads(read_bytes(path)))]
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise BundleError(
            f"{path} must hold the precision at the cut that this run decided on at its beginning "
            f"({' or '.join(precisions)}, or null for none), and holds something else. Remove it "
            f"to decide again."
        ) from error


def train_transfer(
    shop: Workshop, ready: Ready, splits: Splits, table: FeatureTable, tap: Tap | None
) -> dict[str, Candidate]:
    """The head and, if there is a second phase, the fine-tuned model.

    table: plain features of all rows, and what crosses the cut if `tap` says so.
    """
    seed, second = shop.job.recipe.seed, ready.settings.seed
    val = table.of(splits.val)
    views = _views(shop, ready, splits, table, tap if seed == second else None, seed)
    with shop.clock("head"):
        head = _train_head(shop, ready, splits, views, val)
    candidates = {"head": Candidate(head, val)}
    if ready.opened is not None:
        if seed != second:  # each phase draws its own views, as `fit` does
            views = _views(shop, ready, splits, table, tap, second)
        with shop.clock("fine-tuning"):
            rows: tuple[Feed, Feed] = (
                (Stored(views, True, ready.settings.seed), Stored((val,), True))
                if tap is not None
                else feeds(
                    ready.opened,
                    splits,
                    shop.job.augment,
                    ready.settings.seed,
                    shop.context,
                    None,
                )
            )
            kept = tap.precision if tap else "nothing"
            tuned = _tune(shop, ready.settings, ready.opened, head, splits, rows, kept)
            candidates["finetune"] = Candidate(tuned, shop.features(tuned, splits.val))
    return candidates


def train_scratch(
    shop: Workshop,
    backbone: Backbone,
    splits: Splits,
    settings: FineTune,
    phase: str = "scratch",
) -> Fitted:
    """A network from nothing, all of it, from pixels."""
    job = shop.job
    with shop.training(phase, backbone, splits) as context:
        fitted = fit_from_scratch(
            job.recipe, settings, backbone, splits, job.augment, context, phase
        )
    _tell(shop, phase, fitted)
    _tell_attack(shop, phase, settings, fitted, splits)
    return fitted


def train_baseline(
    shop: Workshop, untrained: Backbone | None, splits: Splits
) -> tuple[str, Predictions] | None:
    """What the same rows teach a network that starts from nothing: its name, and test rows.

    By the tutorials' schedule for a network from scratch, not by that of the second phase.
    """
    if untrained is None:
        return None
    with shop.clock("baseline"):
        settings = replace(SCRATCH, seed=shop.job.finetune.seed)
        fitted = train_scratch(shop, untrained, splits, settings, "baseline")
        said = fitted.model.predict_table(shop.features(fitted, splits.test))
        return f"{untrained.card.name} from scratch", said


def _views(
    shop: Workshop, ready: Ready, splits: Splits, table: FeatureTable, tap: Tap | None, seed: int
) -> tuple[FeatureTable, ...]:
    """A table for each stored view of the training rows, or the plain one alone."""
    augment, plain = shop.job.augment, table.of(splits.train)
    if not (augment.active and augment.views):
        return (plain,)
    with shop.clock("views"):
        views = train_tables(ready.backbone, splits.train, augment, seed, shop.context, tap=tap)
    shop.tables.append(views[0])
    shop.listener.stage("views", extracted(views[0], len(views)))
    return views


def _train_head(
    shop: Workshop,
    ready: Ready,
    splits: Splits,
    views: tuple[FeatureTable, ...],
    val: FeatureTable,
) -> Fitted:
    recipe, augment = shop.job.recipe, shop.job.augment
    with shop.training("head", ready.backbone, splits, val.x, *(v.x for v in views)) as context:
        fresh = fresh_features(recipe, ready.backbone, splits.train, augment, context)
        fitted = fit_tables(recipe, ready.backbone, views, val, context=context, fresh=fresh)
    _tell(shop, "head", fitted)
    return fitted


def _tune(
    shop: Workshop,
    settings: FineTune,
    opened: Opened,
    head: Fitted,
    splits: Splits,
    rows: tuple[Feed, Feed],
    kept: str,
) -> Fitted:
    start = head.model.head.tensors().values()
    with shop.training("finetune", opened.backbone, splits, kept, *start) as context:
        fitted = fine_tune(settings, opened, head, *rows, context=context)
    _tell(shop, "finetune", fitted)
    _tell_attack(shop, "finetune", settings, fitted, splits)
    return fitted


def _tell(shop: Workshop, phase: str, fitted: Fitted) -> None:
    shop.listener.stage(phase, f"{chosen(fitted)}; {counts_said(fitted.count)}")


def _tell_attack(
    shop: Workshop, phase: str, settings: FineTune, fitted: Fitted, splits: Splits
) -> None:
    """What was bought, if it was trained against attacks."""
    if settings.adversarial and len(splits.val):
        shop.listener.stage(phase, under_attack(fitted))
