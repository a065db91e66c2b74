"""Fit a model from a spec, a backbone and split data: first the head, then the thawed layers."""

from collections.abc import Sequence, Sized
from dataclasses import replace

import torch
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.views import NoChange, ViewSpec
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import Mismatch, SpecError
from headstart.base.listener import Listener
from headstart.base.runtime import ON_CPU, Runtime, torch_threads
from headstart.base.store import USUAL, Store
from headstart.data.splits import Splits
from headstart.features.engines import check_device
from headstart.features.extract import FeatureTable
from headstart.heads.families import check_supports, solve_head
from headstart.heads.head import FeatureRows, Rows
from headstart.heads.module import ModuleSpec
from headstart.heads.specs import LinearSpec, TrainedSpec
from headstart.modalities.sources import load_backbone
from headstart.models.finetuning import ThawedBackbone, Tuned, thaw, tune
from headstart.models.limits import Limits
from headstart.models.model import Model
from headstart.models.results import Candidate, Candidates, FitResult, best_of
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.models.training_data import (
    Feeds,
    Start,
    Tables,
    TrainingData,
    prepare,
    stacked,
    tuning_start,
    with_tap,
)
from headstart.models.wording import attack_message, result_message
from headstart.targets.target import Target
from headstart.training.feeds import Feed, Stored
from headstart.training.history import Count, Epoch, ParameterCount
from headstart.training.judging import NOTHING, Figures
from headstart.training.loop import Trained, train
from headstart.training.network import Network, count, new_head, parameters_of, tied, trained_head
from headstart.training.plan import head_plan

SOLVED = 1  # the number of epochs that a solved head counts as


def fit(
    spec: TwoPhaseSpec | FeatureExtraction | FineTune,
    start: str | Backbone | Model | FitResult,
    data: Splits,
    *,
    views: ViewSpec | None = None,
    store: Store | None = USUAL,
    runtime: Runtime | None = None,
    listener: Listener | None = None,
) -> FitResult:
    """Fit a model on `data.train`, choosing everything on `data.val`; `data.test` is not used.

    start: a backbone or its name for a TwoPhaseSpec or FeatureExtraction, a fitted model for a
    FineTune. views: replaces the views of the spec. Raises SpecError for the wrong kind of start,
    DataError for a class named "unknown" or "?".

    >>> fitted = fit(TwoPhaseSpec(), "timm:resnet50", split(data))  # doctest: +SKIP
    >>> fitted.chosen, fitted.predict(new)  # doctest: +SKIP
    """
    data.train.target.check_names()
    check_device(runtime or Runtime())
    context = RunContext(store, (runtime or Runtime()).resolved(), listener or Listener())
    with torch_threads(context.runtime.threads):
        if isinstance(spec, FineTune):
            return _fit_second(spec, _model_of(start), data, views or NoChange(), context)
        if isinstance(start, Model | FitResult):
            raise SpecError(
                f"{type(spec).__name__} starts from a backbone; give fit() model.backbone."
            )
        whole = spec if isinstance(spec, TwoPhaseSpec) else TwoPhaseSpec(spec, None)
        whole = whole if views is None else replace(whole, views=views)
        backbone = load_backbone(start) if isinstance(start, str) else start
        return two_phases(whole, backbone, data, context).result


def two_phases(
    spec: TwoPhaseSpec,
    backbone: Backbone,
    splits: Splits,
    context: RunContext,
    start: Start | None = None,
) -> Candidates:
    """Fit a head, fine-tune it if the spec says so, and keep the better on validation.

    start: the result of `prepare`, if it has run already.
    """
    head = spec.head.for_target(splits.train.target, context.listener)
    spec = replace(spec, head=head)
    start = start or with_tap(prepare(spec, backbone), splits, spec.views, context)
    data = TrainingData(start, splits, spec.views, context)
    tables = data.train(spec.head.seed, cut=spec.same_views), data.plain(data.splits.val)
    fitted = fit_phase(spec.head, data, tables)
    made = {"head": Candidate(fitted, tables[1])}
    if start.thawed is not None:
        tuned = tune_phase(data, fitted.model, tables if spec.same_views else None)
        made["finetune"] = Candidate(tuned, data.of_model(tuned.model, data.splits.val))
    kept = spec.keep if spec.keep in made else best_of(made)
    return Candidates(made, kept, data.clock.seconds, tuple(data.tables))


def fit_phase(spec: FeatureExtraction, data: TrainingData, tables: Tables) -> FitResult:
    """Run the first phase: fit a head on features of the frozen backbone."""
    backbone, (views, val) = data.start.backbone, tables
    context = data.phase("head", backbone, val.x, *(v.x for v in views))
    with data.clock("head"), torch_threads(context.runtime.threads):
        new = data.new_features(spec)
        result = fit_tables(spec, backbone, views, val, context=context, new=new)
    context.listener.stage("head", result_message(result))
    return result


def tune_phase(data: TrainingData, head: Model, tables: Tables | None = None) -> FitResult:
    """Run the second phase: fine-tune from a model with a fitted head.

    tables: features of the training views and validation rows, if extracted already.
    """
    start = data.start
    assert start.settings is not None
    assert start.thawed is not None
    if tables is None and start.tap is not None:
        tables = data.train(start.settings.seed, cut=True), data.plain(data.splits.val)
    kept = start.tap.precision if start.tap else "nothing"
    context = data.phase("finetune", start.thawed.backbone, kept, *head.head.tensors().values())
    with data.clock("fine-tuning"), torch_threads(context.runtime.threads):
        result = fine_tune(start.settings, start.thawed, head, data.for_tuning(tables), context)
    tell("finetune", start.settings, result, data.splits, context)
    return result


def from_scratch(
    spec: TwoPhaseSpec,
    backbone: Backbone,
    splits: Splits,
    context: RunContext,
    phase: str = "scratch",
) -> FitResult:
    """Train all of an untrained backbone and a new head, from prepared examples.

    Uses the schedule of `spec.finetune`; its learning rate 0 means the head's learning rate.
    """
    assert spec.finetune is not None
    settings = spec.finetune.from_scratch(spec.head.head_lr)
    thawed, own = thaw(backbone, "all", whole=True), spec.head.head
    data = TrainingData(Start(backbone, settings, thawed), splits, spec.views, context)
    target = data.splits.train.target
    layers = own if isinstance(own, TrainedSpec) else LinearSpec(dropout=settings.dropout)
    check_supports(layers, target)
    context = data.phase(phase, backbone)
    with torch_threads(context.runtime.threads):
        new = new_head(layers, backbone.card.dim, target.outputs, settings.seed)
        own_module = isinstance(layers, ModuleSpec)
        head = trained_head(new, layers, backbone.card.dim) if own_module else new
        tuned = tune(settings, thawed, head, data.for_tuning(), context=context, phase=phase)
    model = Model(tuned.backbone, tuned.head, tuned.target)
    result = _result(tuned, model, settings, splits.val)
    tell(phase, settings, result, splits, context)
    return result


def fit_tables(
    spec: FeatureExtraction,
    backbone: Backbone,
    views: Sequence[FeatureTable],
    val: FeatureTable,
    *,
    context: RunContext = IN_MEMORY,
    new: Feed | None = None,
) -> FitResult:
    """Fit the head of `spec` on features of a prepared backbone.

    views: one table per view. new: the feed for a head trained by epochs, instead of `views`.
    """
    target = views[0].target.fitted(views[0].y)
    check_supports(spec.head, target)
    views, val = [replace(v, target=target) for v in views], replace(val, target=target)
    if isinstance(spec.head, TrainedSpec):
        return _trained_head(
            spec, spec.head, backbone, new or Stored(tuple(views), False, spec.seed), val, context
        )
    judged = stacked(views if len(val) else views[:1])  # folds must not separate views of a row
    solved = solve_head(spec.head, judged, val)
    model = Model(
        backbone, solved.head, solved.target or target, head_lr=spec.head_lr, epochs=SOLVED
    )
    learned = ParameterCount(solved.head.parameters, len(solved.head.tensors()))
    counted = Count(parameters_of(backbone.module), learned)
    history = (_solved_line(model, judged, val),)
    return FitResult(model, solved.chosen, solved.path, history, counted)


def _trained_head(
    spec: FeatureExtraction,
    layers: TrainedSpec,
    backbone: Backbone,
    rows: Feed,
    val: FeatureTable,
    context: RunContext,
) -> FitResult:
    """Train a new head by epochs; on the CPU, because it is small."""
    target = rows.target
    module = tied(new_head(layers, backbone.card.dim, target.outputs, spec.seed), target)
    network, context = Network(nn.Identity(), module, ()), replace(context, runtime=ON_CPU)
    feeds = rows, Stored((val,), cut=False)
    trained = train(network, head_plan(layers, spec.seed), *feeds, phase="head", context=context)
    last = trained.history[-1].epoch
    head = trained_head(module, layers, backbone.card.dim)
    if target.decides and len(val):
        target = target.decided(target.activate(head.raw(val.x)), val.y)
    model = Model(backbone, head, target, head_lr=spec.head_lr, epochs=last)
    chosen = {"head": layers.family, "epoch": trained.chosen, "by": _kept(layers.keep, val, target)}
    chosen |= _stop_of(trained)
    counted = count(backbone.module, network)
    return FitResult(model, chosen, (), trained.history, counted)


def fine_tune(
    settings: FineTune,
    thawed: ThawedBackbone,
    start: Model,
    feeds: Feeds,
    context: RunContext = IN_MEMORY,
) -> FitResult:
    """Fine-tune the thawed layers from `start`; epoch numbers continue those of `start`."""
    tuned = tune(
        settings, thawed, start.head, feeds, start.target, context=context, after=start.epochs
    )
    return _result(tuned, start, settings, feeds[1].ids)


def tell(
    phase: str, settings: FineTune, result: FitResult, splits: Splits, context: RunContext
) -> None:
    """Report the result of a fine-tuning phase, and its accuracy under attack if adversarial."""
    context.listener.stage(phase, result_message(result))
    if settings.adversarial and len(splits.val):
        context.listener.stage(phase, attack_message(result))


def _fit_second(
    settings: FineTune, start: Model, splits: Splits, views: ViewSpec, context: RunContext
) -> FitResult:
    """Fine-tune a model that was fitted before."""
    backbone, target = start.backbone, splits.train.target
    if not isinstance(backbone, Backbone):
        raise SpecError(NO_START)
    if not start.target.agrees(target):
        raise Mismatch(
            f"A model goes on learning {start.target.described}; the data has {target.described}."
        )
    if not settings.thaws:
        raise SpecError(
            "Fine-tuning is of layers that are thawed, and thaw=none leaves none to learn. Name "
            "what may learn."
        )
    thawed = with_tap(tuning_start(settings, backbone, start.head_lr), splits, views, context)
    target = start.target.learning(target)
    return tune_phase(TrainingData(thawed, splits, views, context, target=target), start)


def _model_of(start: str | Backbone | Model | FitResult) -> Model:
    model = start.model if isinstance(start, FitResult) else start
    if not isinstance(model, Model):
        raise SpecError(NO_START)
    return model


NO_START = (
    "Fine-tuning goes on from a model with a fitted head, in PyTorch: fit one with "
    "FeatureExtraction first, and give fit() that model."
)


def _result(tuned: Tuned, start: Model, settings: FineTune, val: Sized) -> FitResult:
    trained = tuned.trained
    model = replace(
        start,
        backbone=tuned.backbone,
        head=tuned.head,
        target=tuned.target,
        limits=Limits(),
        epochs=trained.history[-1].epoch,
    )
    by = _kept(settings.keep, val, tuned.target, under_attack=settings.adversarial > 0)
    wise = {"wise": tuned.wise} if settings.wise else {}
    chosen = {"epoch": trained.chosen, "by": by, **wise, **_stop_of(trained)}
    return FitResult(model, chosen, (), trained.history, tuned.count)


def _stop_of(trained: Trained) -> dict[str, int]:
    """Return the epoch after which the listener stopped training, as an entry of `chosen`."""
    return {"stopped_after": trained.history[-1].epoch} if trained.stopped else {}


def _kept(keep: str, val: Sized, target: Target, *, under_attack: bool = False) -> str:
    if keep != "best" or not len(val):
        return "the last epoch"
    if not target.counts_right:
        return "loss on validation"
    return f"accuracy {'under attack ' if under_attack else ''}on validation"


def _solved_line(model: Model, train: Rows, val: FeatureTable) -> Epoch:
    """Return a solved head's only line of history."""
    target = model.target

    def figures(rows: FeatureRows) -> Figures:
        if not len(rows.y):
            return NOTHING
        if target.counts_right:
            answers = target.activate(model.head.raw(rows.x))
            right = float(target.row_scores(answers, rows.y).mean())
            return float(target.row_losses(answers, rows.y).mean()), right
        losses = target.loss(torch.from_numpy(model.head.raw(rows.x)), target.soft(rows.y))
        return float(losses.double().mean()), None

    return Epoch("head", SOLVED, None, *figures(train), *figures(val), 0.0)
