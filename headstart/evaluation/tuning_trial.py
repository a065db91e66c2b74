"""A trial of settings: fine-tune as a run does, from stored activations, and judge on validation.

Test rows have no part in it: the splits of a trial have none.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from headstart.backbones.backbone import Backbone
from headstart.backbones.views import NoChange
from headstart.base.context import RunContext
from headstart.base.errors import Diverged, SpecError
from headstart.base.listener import Listener
from headstart.base.runtime import ComputePrecision, torch_threads
from headstart.data.splits import Splits
from headstart.evaluation.tuning_search import TrialState
from headstart.evaluation.tuning_space import settings_of
from headstart.models.fitting import fit_phase
from headstart.models.model import Model
from headstart.models.results import FitResult
from headstart.models.specs import FineTune, TwoPhaseSpec
from headstart.models.training_data import (
    Tables,
    TrainingData,
    prepare,
    thawed_again,
    with_tap,
)
from headstart.models.tuning import fine_tune, tuned_answers
from headstart.targets.predictions import Predictions
from headstart.targets.target import Target

Pruner = Callable[[int, float], bool]  # of an epoch and its validation loss: whether to stop


@dataclass(frozen=True, eq=False)
class TrialResult:
    """The outcome of a trial; see `TriedSettings`. value: lower is better; None unless done.
    precision: in which it computed."""

    state: TrialState
    seconds: float
    epochs: int = 0
    loss: float | None = None
    epoch: int | None = None
    merit: float | None = None
    rank: tuple[float, ...] = ()
    value: float | None = None
    precision: ComputePrecision = "float32"


@dataclass(frozen=True, eq=False)
class _Start:
    """Where fine-tuning of so many layers begins. tables: with the activations at the cut."""

    data: TrainingData
    tables: Tables
    head: Model


@dataclass(frozen=True, eq=False)
class TuningTrials:
    """Fine-tunes one backbone on the same rows with other settings each time.

    spec: whose `finetune` the settings of a trial replace. splits: without test rows. For each
    number of thawed blocks the activations at its cut are computed once.
    """

    spec: TwoPhaseSpec
    backbone: Backbone
    splits: Splits
    context: RunContext
    _starts: dict[str, _Start] = field(default_factory=dict)

    @property
    def usual(self) -> FineTune:
        """The settings of a run that asks for nothing else."""
        assert self.spec.finetune is not None
        return self.spec.finetune.resolved(self.backbone, self.spec.head.head_lr)

    @property
    def target(self) -> Target:
        return self.splits.train.target

    @property
    def smooths(self) -> bool:
        """Whether labels of the target can be smoothed."""
        try:
            self.target.soft(self.splits.train.y[:1], 0.1)
        except SpecError:
            return False
        return True

    def head_merit(self) -> float:
        """Return the merit on validation of the head that fine-tuning starts from."""
        start = self._start(self.usual.thaw)
        return merit_value(start.head.predict_table(start.tables[1]))

    def attempt(
        self, settings: FineTune, prune: Pruner, precision: ComputePrecision = "auto"
    ) -> TrialResult:
        """Fine-tune with settings, and judge what a run would keep on the rows of validation.

        prune: asked after each pass but the last. precision: in which the network computes on a
        CPU; auto may choose by times. A training that diverges is a result, too.
        """
        began, start = time.perf_counter(), self._start(settings.thaw)
        settings = settings.resolved(self.backbone, self.spec.head.head_lr)
        own = thawed_again(replace(start.data.start, settings=settings))
        assert own.settings is not None
        assert own.thawed is not None
        data, watched = replace(start.data, start=own), _Watched(prune, settings.epochs)
        runtime = replace(self.context.runtime, compute_precision=precision)
        context = replace(self.context, listener=watched, runtime=runtime)
        feeds = data.for_tuning(start.tables)
        try:
            with torch_threads(runtime.threads):
                result = fine_tune(own.settings, own.thawed, start.head, feeds, context)
        except Diverged:
            return TrialResult("diverged", _since(began), watched.epochs)
        if watched.pruned:
            return TrialResult("pruned", _since(began), watched.epochs, watched.loss)
        answers = tuned_answers(own, result, feeds[1], context)
        val = data.splits.val
        judged = Predictions(val.ids, answers, val.y, result.model.target)
        return _done(judged, result, start.head.epochs, _since(began))

    def _start(self, thaw: str) -> _Start:
        if thaw not in self._starts:
            self._starts[thaw] = self._begun(thaw)
        return self._starts[thaw]

    def _begun(self, thaw: str) -> _Start:
        """Fit the head, and store the activations at the cut before these layers."""
        assert self.spec.finetune is not None
        spec = replace(self.spec, finetune=replace(self.spec.finetune, thaw=thaw))
        quiet = replace(self.context, listener=_OnlyProgress(self.context.listener, thaw))
        begun = with_tap(prepare(spec, self.backbone), self.splits, spec.views, quiet)
        folds = spec.head.by_folds(len(self.splits.val)) and self.splits.joinable
        data = TrainingData(begun, self.splits, NoChange(), quiet, whole=folds)
        tables = data.train(spec.head.seed, cut=True), data.plain(data.splits.val)
        return _Start(data, tables, fit_phase(spec.head, data, tables, cut=True).model)


def merit_value(predictions: Predictions) -> float:
    """Return the target's merit as it is shown: an error is positive."""
    target, answers, y = predictions.target, predictions.outputs, predictions.labels
    found = target.metrics(answers, y).get(target.merit_name)
    return float(found.value if found is not None else target.merit(answers, y)[0])


def lower_is_better(rank: tuple[float, ...], target: Target, rows: int) -> float:
    """Return one number by which results are ordered, lower is better.

    rank: the sort key of a merit. Between equal shares of right answers, the lower loss wins.
    """
    if target.counts_right and len(rank) > 1:
        loss = max(0.0, -rank[1])
        return 1 - rank[0] + loss / (1 + loss) / rows
    return -rank[0]


def usual_settings(trials: TuningTrials) -> Mapping[str, int | float]:
    """Return the usual settings, by name."""
    return settings_of(trials.usual)


def _done(judged: Predictions, result: FitResult, before: int, seconds: float) -> TrialResult:
    """Return the result of a training that came to its end. before: the head's epochs."""
    rank = tuple(map(float, judged.target.merit(judged.outputs, judged.labels)))
    epoch = int(result.chosen["epoch"]) - before
    formed = result.chosen.get("arithmetic", "float32")
    return TrialResult(
        "done",
        seconds,
        len(result.history) - 1,
        result.history[epoch].val_loss,
        epoch,
        merit_value(judged),
        rank,
        lower_is_better(rank, judged.target, len(judged)),
        "float32" if formed == "float32" else "bfloat16",
    )


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


class _Watched(Listener):
    """Stops a training that a pruner gives up. epochs: finished; loss: on validation."""

    def __init__(self, prune: Pruner, last: int) -> None:
        self._prune, self._last = prune, last
        self.pruned, self.epochs = False, 0
        self.loss: float | None = None

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool:
        if not number or "val_loss" not in figures:
            return False
        self.epochs, self.loss = number, figures["val_loss"]
        self.pruned = self._prune(number, self.loss) and number < self._last
        return self.pruned


class _OnlyProgress(Listener):
    """Passes on progress and messages about the cut, each with the number of thawed blocks."""

    def __init__(self, listener: Listener, thaw: str) -> None:
        self._listener, self._thaw = listener, thaw

    def stage(self, name: str, message: str) -> None:
        if name == "cut":
            self._listener.stage(name, f"thaw {self._thaw}: {message}")

    def expect(self, stage: str, rows: int, seconds: float) -> None:
        self._listener.expect(stage, rows, seconds)

    def progress(self, stage: str, done: int, total: int) -> None:
        self._listener.progress(stage, done, total)
