"""Measure what the parts of a run take, on a few of its rows; nothing is kept but the engine."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from headstart.backbones.backbone import Backbone
from headstart.backbones.views import NoChange, Views
from headstart.base.context import RunContext
from headstart.base.listener import Listener
from headstart.base.runtime import torch_threads
from headstart.base.threads import ordered_map
from headstart.data.content import prepared as read_prepared
from headstart.data.dataset import Dataset
from headstart.data.sampling import sample
from headstart.data.splits import Splits
from headstart.evaluation.budget import OPEN_S, REPORT_S, SAVE_S, Paces, RunSize
from headstart.features.extract import FeatureTable, Tap, all_there, choose_engine, extract
from headstart.heads.specs import LinearSpec, TrainedSpec
from headstart.models.specs import FineTune
from headstart.models.training_data import Start, TrainingData, tuning_start
from headstart.runs.stages import PreparedRun, RunState, baseline_settings

if TYPE_CHECKING:
    from headstart.training.feeds import Feed
    from headstart.training.network import Network

TIMED = 64  # rows on which the network is timed
WARM = 4  # one part of so many of them warms up
DECODED = 16  # rows on which reading is timed
BATCHES = 2  # of training
COMPARED_S = 120.0  # of a budget, from which on engines are compared, which takes 10 s or more
MEASURING = 0.05  # share of the budget that timing steps may take
TUNED = 0.3  # share of the budget that fine-tuning needs to be thought of


def measured(state: RunState, run: PreparedRun, rows: Dataset, size: RunSize) -> Paces:
    """Return what a row takes in the parts of this run: read, by the network, in training.

    rows: to measure on. size: of the run. The engine of the features is chosen here, as the run
    would choose it. Training steps are not timed (inf) if a head takes nearly all of the budget.
    """
    batch = run.settings.batch_size
    few = sample(rows, max(TIMED, BATCHES * batch), state.job.recipe.seed)
    paces = _of_training(state, run, rows, few, size)
    if run.baseline is None:
        return paces
    start = _from_scratch(run.baseline, baseline_settings(state.job))
    step, judge = _training(state, start, few, size.train)
    return replace(paces, baseline_step=step, baseline_judge=judge)


def _of_training(
    state: RunState, run: PreparedRun, rows: Dataset, few: Dataset, size: RunSize
) -> Paces:
    """Return the paces of the run without its baseline. few: of the rows, to be timed."""
    job = state.job
    context = replace(state.context, store=None, listener=Listener())
    decode = _decoding(run, few, context)
    if job.strategy == "scratch":
        assert isinstance(run.start.backbone, Backbone)
        start = _from_scratch(run.start.backbone, run.settings)
        step, judge = _training(state, start, few, size.train)
        return Paces(decode, 0.0, 0.0, step, judge)
    began = time.perf_counter()
    views = job.spec.views
    passes = 1 + (views.views if views.active else 0)
    worth = job.budget_s >= COMPARED_S  # else the usual engine is taken, or one that was compared
    choose_engine(run.start.backbone, rows, state.context, passes if worth else 0)
    opening = max(OPEN_S, time.perf_counter() - began)
    start = _again(run) if job.tunes else Start(run.start.backbone)
    table, each = _features(start, few, context)
    step, judge = 0.0, 0.0
    if start.thawed is not None and job.strategy == "auto" and _full(state, size.rows * each):
        step = math.inf
    elif start.thawed is not None:
        step, judge = _training(state, replace(start, table=table), few, size.train)
    return Paces(decode, max(0.0, each - decode), opening, step, judge)


def _full(state: RunState, features: float) -> bool:
    """Return whether a head on features of so many seconds leaves no room for fine-tuning."""
    left = state.context.deadline.left - features - SAVE_S - REPORT_S
    return left < TUNED * state.job.budget_s


def _decoding(run: PreparedRun, few: Dataset, context: RunContext) -> float:
    """Return the seconds that reading and preparing a row takes."""
    input, threads = run.start.backbone.card.input, context.runtime.decode_threads
    files = few.files[:DECODED]
    began = time.perf_counter()
    for _ in ordered_map(lambda f: read_prepared(input, f), files, threads=threads, ahead=DECODED):
        pass
    return (time.perf_counter() - began) / max(1, len(files))


class _Moments(Listener):
    """Notes when each row was done."""

    def __init__(self) -> None:
        self.at = list[float]()

    def progress(self, stage: str, done: int, total: int) -> None:
        self.at.append(time.perf_counter())

    @property
    def each(self) -> float:
        """The seconds of a row after the first ones, which warm up."""
        first = len(self.at) // WARM
        return (self.at[-1] - self.at[first]) / max(1, len(self.at) - 1 - first)


def _features(start: Start, few: Dataset, context: RunContext) -> tuple[FeatureTable, float]:
    """Return the features of some rows, with activations at the cut, and the seconds of a row."""
    moments = _Moments()
    table = extract(
        start.backbone,
        few,
        runtime=context.runtime,
        listener=moments,
        tap=start.tap,
        engines=context.engines,
    )
    return all_there(table), moments.each


def _again(run: PreparedRun) -> Start:
    """Return a start of its own, which the steps may change, with a request for activations."""
    backbone, settings = run.start.backbone, run.start.settings
    assert settings is not None
    assert isinstance(backbone, Backbone)
    start = tuning_start(settings, backbone, settings.lr)
    tap: Tap | None = None
    if start.thawed is not None and start.thawed.cut is not None:
        tap = start.thawed.tap(0, "float32")
    return replace(start, tap=tap)


def _from_scratch(backbone: Backbone, settings: FineTune) -> Start:
    from headstart.models.finetuning import thaw

    return Start(backbone, settings, thaw(backbone, "all", whole=True))


def _training(state: RunState, start: Start, few: Dataset, count: int) -> tuple[float, float]:
    """Return the seconds of a row in a training step, and of one that is judged.

    count: of all rows to train on.
    """
    from headstart.training.judging import judge
    from headstart.training.loop import seconds_of_step

    context = replace(state.context, store=None, listener=Listener())
    views, settings = state.job.spec.views, start.settings
    assert settings is not None
    fresh = Views(views).count == 0
    start = replace(start, tap=None) if fresh else start  # new views in every step
    empty = few.take([])
    splits = Splits(few, few, empty)
    data = TrainingData(start, splits, views if fresh else NoChange(), context)
    tables = None
    if start.tap is not None:
        tables = data.train(settings.seed, cut=True), data.plain(data.splits.val)
    with torch_threads(context.runtime.threads):
        rows, val = data.for_tuning(tables)
        network, depth = _network(state, start, rows)
        size = min(settings.batch_size, len(few))
        many = replace(settings, epochs=max(1, settings.epochs * count // len(few)))
        most = MEASURING * state.job.budget_s
        step = seconds_of_step(network, many, rows, context=context, depth=depth, most=most)
        return step / size, _seconds(lambda: judge(network, val)) / len(few)


def _network(state: RunState, start: Start, rows: "Feed") -> "tuple[Network, dict[str, int]]":
    """Return what would be trained, under a new head."""
    from headstart.models.finetuning import what_learns
    from headstart.training.network import new_head, tied

    assert start.settings is not None
    assert start.thawed is not None
    head, dim = state.job.recipe.head, start.backbone.card.dim
    layers = head if isinstance(head, TrainedSpec) else LinearSpec(dropout=start.settings.dropout)
    new = new_head(layers, dim, rows.target.outputs, start.settings.seed)
    network = start.thawed.network(tied(new, rows.target), start.settings.norms)
    _, depth = what_learns(start.settings, start.thawed, network)
    return network, depth


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
