"""Stages that a run adds to fitting: its preparation, timings and a baseline."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import get_args

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.views import Views
from headstart.base.atomic import read_bytes, write_json
from headstart.base.context import Checkpointing, Precision, RunContext
from headstart.base.deadline import Deadline
from headstart.base.errors import BundleError, Diverged, MissingPackage
from headstart.base.listener import Listener, ProgressOnly
from headstart.base.runtime import Runtime, Stopwatch
from headstart.base.values import fingerprint, to_plain
from headstart.data.checks import Checks
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.evaluation.backbone_search import BackboneSearch
from headstart.evaluation.budget import BudgetPlan
from headstart.evaluation.few_shots import FewShots
from headstart.evaluation.view_search import ViewSearch
from headstart.features.engine_table import check_device
from headstart.features.extract import FeatureTable, Tap, all_there, extract
from headstart.features.loading import load_for_features
from headstart.heads.head import blocks
from headstart.modalities.sources import load_backbone
from headstart.models.model import Model
from headstart.models.results import Candidate, Candidates, FitResult
from headstart.models.specs import SCRATCH, FineTune
from headstart.models.training_data import (
    Start,
    kept_at_cut,
    prepare,
    rows_at_cut,
    tap_for,
    viewed_input,
)
from headstart.models.wording import ALL_ALIKE, described, extracted
from headstart.reporting.run_files import Provenance
from headstart.runs.folder import CHECKPOINTS
from headstart.runs.job import Job
from headstart.runs.provenance import provenance
from headstart.targets.predictions import Predictions
from headstart.targets.target import POOLED

CNN = "scratch:cnn"
RANDOM = (
    "--weights random was asked for: the network has learned nothing before, so there is nothing "
    "to transfer; leave the flag out, unless random weights are what you want to compare with"
)
CUT = "checkpoint-cut.json"  # what a run decided to keep at the cut
ASKED = "asked"  # the key in it of the fingerprint that the decision is for


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run's backbone and settings before training. settings: for fine-tuning, with "auto"
    resolved. baseline: the untrained network to compare with; None if not requested."""

    start: Start
    settings: FineTune
    baseline: Backbone | None = None


@dataclass(frozen=True, eq=False)
class LearnedRun:
    """The results of training. table: features of all rows by the backbone before training.
    few_shots: of heads on a few examples of each class."""

    prepared: PreparedRun
    splits: Splits
    checks: Checks
    fitted: Candidates
    table: FeatureTable | None = None
    few_shots: FewShots | None = None

    @property
    def kept(self) -> Candidate:
        """The chosen candidate, as it was judged on validation."""
        return self.fitted.made[self.fitted.kept]

    @property
    def shipped(self) -> FitResult:
        """The chosen candidate, fitted again on more rows if that was asked for."""
        return self.fitted.refit or self.kept.fitted

    @property
    def judged_rows(self) -> int:
        """The number of rows on which the limits were found."""
        held_out = self.kept.fitted.held_out
        return len(held_out.x if held_out else self.kept.table)

    @property
    def parts(self) -> dict[str, str]:
        """The part of each row, by its id."""
        parts = {"train": self.splits.train, "val": self.splits.val, "test": self.splits.test}
        return {id: name for name, part in parts.items() for id in part.ids}


@dataclass(eq=False)
class RunState:
    """A run in progress: its job, its folder, and the times and tables of its stages."""

    out: Path
    job: Job
    context: RunContext
    clock: Stopwatch = field(default_factory=Stopwatch)
    tables: list[FeatureTable] = field(default_factory=list)  # all that were extracted
    search: BackboneSearch | None = None  # by which the backbone was chosen
    view_search: ViewSearch | None = None  # by which the augmentation was chosen
    plan: BudgetPlan | None = None  # of a run with a time budget
    made: Provenance = Provenance()  # when and from what

    def __post_init__(self) -> None:
        self.original = self.job  # as it was asked for, before a plan

    @classmethod
    def begin(
        cls, out: Path, job: Job, listener: Listener, deadline: Deadline | None = None
    ) -> "RunState":
        runtime, checkpoints = job.runtime.resolved(), _checkpoints(out, job)
        context = RunContext(job.store, runtime, listener, checkpoints)
        context = replace(context, deadline=deadline or Deadline())
        return cls(out, job, context, made=provenance(job.parent))

    def follow(self, job: Job) -> None:
        """Go on with other settings, before training."""
        self.job = job
        self.context = replace(self.context, checkpoints=_checkpoints(self.out, job))

    def tell(self, stage: str, message: str) -> None:
        self.context.listener.stage(stage, message)

    def extracted(
        self, backbone: Backbone | Frozen, rows: Dataset, tap: Tap | None
    ) -> FeatureTable:
        """Extract the features of all rows and report them to the listener."""
        store, runtime, listener = self.job.store, self.job.runtime, self.context.listener
        augment = self.job.augment
        table = extract(
            backbone,
            rows,
            store=store,
            runtime=runtime,
            listener=listener,
            tap=tap,
            engines=self.context.engines,
            passes=1 + (augment.views if augment.active else 0),
        )
        self.tables.append(all_there(table))
        self.tell("features", extracted(table, noun=rows.noun))
        if len(table) > 1 and all((table.x[b] == table.x[0]).all() for b in blocks(len(table))):
            self.tell("features", ALL_ALIKE.format(rows.examples))
        return table

    def features(self, model: Model, data: Dataset, stage: str = "features") -> FeatureTable:
        """Extract features by a trained model's backbone; progress is that of the stage."""
        table = extract(
            model.backbone,
            data,
            store=self.job.store,
            runtime=self.job.runtime,
            listener=ProgressOnly(self.context.listener),
            stage=stage,
            engines=self.context.engines,
        )
        self.tables.append(all_there(table))
        return table

    def add(self, candidates: Candidates) -> Candidates:
        """Record the times and the tables of fitting."""
        self.clock.seconds |= candidates.seconds
        self.tables += candidates.extracted
        return candidates


def _checkpoints(out: Path, job: Job) -> Checkpointing:
    runtime = job.runtime.resolved()
    spec = [to_plain(s) for s in (job.recipe, job.finetune, job.augment)]
    # Of the target the rows have the rest: see `Dataset.decisive`.
    loss = (job.target.loss, job.target.focal_gamma) if job.target.loss else ()
    asked = fingerprint([*spec, *loss], runtime.device, *_forced(runtime))
    return Checkpointing(out, asked, job.checkpoint_s)


def _forced(runtime: Runtime) -> tuple[str, ...]:
    """Return the precision if it is not "auto", whose outcome the checkpoints hold."""
    return () if runtime.compute_precision == "auto" else (runtime.compute_precision,)


def prepared(state: RunState, data: Dataset | None = None) -> PreparedRun:
    """Load and thaw the backbone: called before files are decoded, so wrong names fail early.

    data: by whose pictures a head that reads activations chooses the size of the input.
    """
    job = state.job
    check_device(job.runtime)
    weights = job.weights
    if weights == "random" and job.strategy != "scratch":
        state.tell("warning", RANDOM)
    if job.recipe.head.takes != POOLED:
        assert data is not None
        return _prepared_on_levels(state, data)
    if job.strategy == "scratch" and weights == "pretrained":
        weights = "random"
    backbone = job.recipe.prepared(_network(job, weights))
    state.tell("backbone", described(backbone))
    job.recipe.head.check_room(backbone.card.dim)
    if data is not None and job.strategy != "scratch":
        job = _within_limit(state, data, backbone.card.dim)
    baseline = _untrained(job)
    if job.strategy == "scratch":
        assert isinstance(backbone, Backbone)
        viewed_input(backbone.card.input, job.tta, job.augment)  # raises for no such views
        return PreparedRun(Start(backbone), job.finetune.from_scratch(job.recipe.head_lr), baseline)
    start = prepare(job.spec, backbone)
    settings = start.settings or job.finetune
    if isinstance(backbone, Backbone) and not start.settings:
        settings = settings.resolved(backbone, job.recipe.head_lr)
    return PreparedRun(start, settings, baseline)


def _within_limit(state: RunState, data: Dataset, features: int) -> Job:
    """Return the job, its head one that the training rows leave time for, if none was named."""
    job = state.job
    rows = round(len(data) * job.split.share("train"))
    recipe = job.recipe.for_rows(data.target, rows, features, state.context.listener)
    if recipe != job.recipe:
        state.follow(replace(job, recipe=recipe))
    return state.job


def _prepared_on_levels(state: RunState, data: Dataset) -> PreparedRun:
    from headstart.models.detection import begin

    job = state.job
    start = begin(job.spec, load_backbone(job.backbone, weights=job.weights), data)
    state.tell("backbone", described(start.backbone))
    compared = job.insights == "full" and job.weights != "random"
    other = load_backbone(job.backbone, weights="random") if compared else None
    return PreparedRun(start, start.settings or job.finetune, other)


def _network(job: Job, weights: str) -> Backbone | Frozen:
    """Load the backbone of a run; its shipped graph for a head that is solved, where that does."""
    if job.strategy != "extract" or job.needs_torch:
        return load_backbone(job.backbone, weights=weights)
    return load_for_features(job.backbone, weights, job.runtime, job.recipe.size)


def _untrained(job: Job) -> Backbone | None:
    """Load the baseline's untrained network; the small CNN ignores the recipe's input size."""
    if job.baseline == "none":
        return None
    if job.baseline == "cnn":
        return replace(job.recipe, size=0).prepared(load_backbone(CNN))
    return job.recipe.prepared(load_backbone(job.backbone, weights="random"))


def with_cut(state: RunState, run: PreparedRun, data: Dataset) -> PreparedRun:
    """Decide which activations to keep at the cut, if there is a second phase.

    The decision is written to checkpoint-cut.json, with a fingerprint of the settings and the data
    that it is for; a resumed run reads it from there, unless views are drawn anew in every epoch:
    their activations cannot be kept.
    """
    thawed, path = run.start.thawed, state.out / CUT
    if run.start.levels is not None:  # they are kept whatever learns
        from headstart.models.level_data import tell_room

        tell_room(run.start, len(data), state.job.augment, state.context)
        return run
    if thawed is None:
        return run
    rows = rows_at_cut(thawed, data, state.context)
    stored_views = Views(state.job.augment).count > 0
    asked = _cut_key(state, run, data)
    if thawed.cut is not None and stored_views and _is_for(path, asked):
        precision = _recorded(path, run.settings)
        tap = thawed.tap(rows, precision) if precision else None
    else:
        tap = tap_for(run.settings, thawed, rows, state.job.augment, state.context)
        # A training that was begun keeps the decision that it was begun with.
        if not any(state.out.glob(f"{CHECKPOINTS}.safetensors")):
            write_json(path, {"precision": tap.precision if tap else None, ASKED: asked})
    start = kept_at_cut(run.start, tap)
    return replace(run, start=start, settings=start.settings or run.settings)


def _cut_key(state: RunState, run: PreparedRun, data: Dataset) -> str:
    """Return the fingerprint of all that a decision on the cut is for; a plan may change epochs."""
    network, thawed = run.start.backbone.fingerprint(), run.start.thawed
    layers = thawed.thawed if thawed else ()
    views, precision = to_plain(state.job.augment), run.settings.cut_precision
    return fingerprint(network, layers, views, precision, data.decisive)


def _is_for(path: Path, asked: str) -> bool:
    """Return whether a file holds a decision for this fingerprint, or something that `_recorded`
    refuses. Decisions of earlier versions have no fingerprint, and are taken for any."""
    with suppress(OSError, ValueError, RecursionError):
        plain = json.loads(read_bytes(path))
        return not isinstance(plain, dict) or plain.get(ASKED, asked) == asked
    return os.path.lexists(path)


def _recorded(path: Path, settings: FineTune) -> Precision | None:
    """Read the precision at the cut written by `with_cut`; None if nothing is kept there.

    Raises BundleError for any other content.
    """
    asked = settings.cut_precision
    precisions = get_args(Precision) if asked == "auto" else (asked,)
    try:
        plain = json.loads(read_bytes(path))
        if isinstance(plain, dict):
            plain.pop(ASKED, None)
        if plain not in [{"precision": precision} for precision in (None, *precisions)]:
            raise ValueError(plain)
        return plain["precision"]
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} must hold the precision at the cut that this run decided on at its beginning "
            f"({' or '.join(precisions)}, or null for none), and holds something else. Remove it "
            f"to decide again."
        ) from error


def train_scratch(state: RunState, backbone: Backbone, splits: Splits) -> Candidates:
    from headstart.models.tuning import from_scratch

    with state.clock("training"):
        fitted = from_scratch(state.job.spec, backbone, splits, state.context)
    only = Candidate(fitted, state.features(fitted.model, splits.val))
    return Candidates({"scratch": only}, "scratch", {})


def baselines(
    state: RunState, untrained: Backbone | None, splits: Splits
) -> dict[str, Predictions]:
    """Train the baselines, if there are any; returns their test predictions by name.

    One that diverges, whose library is missing, or whose time is over is left out and named.
    """
    pooled = state.job.recipe.head.takes == POOLED
    found, other = dict[str, Predictions](), _from_scratch if pooled else _on_random_weights
    for train in (
        partial(_usual_baseline, state, splits),
        partial(other, state, untrained, splits),
    ):
        try:
            found |= train()
        except (Diverged, MissingPackage) as error:
            state.tell("baseline", f"left out: {error}")
    return found


def _usual_baseline(state: RunState, splits: Splits) -> dict[str, Predictions]:
    """Fit the baseline that always stands beside a result of this kind of data, if there is one."""
    test, input, clock = splits.test, splits.train.input, Stopwatch()
    if input is None or not len(test):
        return {}
    with clock("baseline"):
        fitted = input.baseline(splits.train, splits.val)
        if fitted is None:
            return {}
        target = fitted.target
        answers, y = target.activate(fitted.raw(test)), target.translate(test.y, test.target)
    state.clock.seconds |= clock.seconds
    return {fitted.name: Predictions(test.ids, answers, y, target)}


def baseline_settings(job: Job) -> FineTune:
    """Return the schedule of a baseline from scratch: the tutorials', not the second phase's."""
    return replace(SCRATCH, seed=job.finetune.seed).from_scratch(job.recipe.head_lr)


def from_scratch_name(untrained: Backbone) -> str:
    """Return the name under which a network trained from scratch stands beside the model."""
    return f"{untrained.card.name} from scratch"


def _from_scratch(
    state: RunState, untrained: Backbone | None, splits: Splits
) -> dict[str, Predictions]:
    """Train the untrained network, if one was asked for, in the time that a plan has for it.

    One that a deadline ends early would be compared unfairly: it is left out and named.
    """
    if untrained is None:
        return {}
    from headstart.models.tuning import from_scratch

    deadline = state.context.deadline
    with state.clock("baseline"), deadline.in_baseline():
        spec = replace(state.job.spec, finetune=baseline_settings(state.job), tta="none")
        train = partial(from_scratch, spec, untrained, splits, state.context, "baseline")
        result = None if deadline.late else train()
        if result is None or "stopped_by" in result.chosen:
            state.tell("baseline", "left out: its time is over")
            return {}
        predictions = result.model.predict_table(state.features(result.model, splits.test))
        return {from_scratch_name(untrained): predictions}


def _on_random_weights(
    state: RunState, untrained: Backbone | None, splits: Splits
) -> dict[str, Predictions]:
    """Train the same head on the activations of the untrained network, which stays as it is: what
    pretraining adds is the difference."""
    if untrained is None or not len(splits.test):
        return {}
    from headstart.models.detection import phases_on_levels

    listener = ProgressOnly(state.context.listener)
    context = replace(state.context, checkpoints=Checkpointing(), listener=listener)
    spec = replace(state.job.spec, finetune=None)
    state.tell("baseline", "the same head on the network with random weights")
    with state.clock("baseline"):
        made = phases_on_levels(spec, untrained, splits, context).made["head"]
        predictions = made.fitted.model.predict_table(
            state.features(made.fitted.model, splits.test)
        )
    return {f"{untrained.card.name} with random weights": predictions}
