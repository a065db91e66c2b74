"""Train by epochs: heads that are not solved, thawed layers, and networks from scratch."""

from collections.abc import Sized
from dataclasses import replace
from typing import Any

from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.views import ViewSpec
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import Mismatch, SpecError
from headstart.base.ranks import ALONE
from headstart.base.runtime import ON_CPU, torch_threads
from headstart.data.splits import Splits
from headstart.features.extract import FeatureTable
from headstart.heads.families import check_supports
from headstart.heads.module import ModuleSpec
from headstart.heads.specs import LinearSpec, TrainedSpec
from headstart.models.finetuning import ThawedBackbone, Tuned, thaw, tune
from headstart.models.limits import Limits
from headstart.models.model import Model
from headstart.models.results import Candidate, FitResult
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.models.training_data import (
    Feeds,
    Start,
    Tables,
    TrainingData,
    tuning_start,
    viewed_input,
    with_tap,
)
from headstart.models.viewing import one_view, with_test_views
from headstart.models.wording import attack_message, result_message
from headstart.targets.target import Outputs, Target
from headstart.training.feeds import Feed, Stored
from headstart.training.judging import raw_outputs
from headstart.training.loop import Again, Trained, train
from headstart.training.network import (
    Network,
    count,
    head_module,
    new_head,
    tied,
    trained_head,
)
from headstart.training.plan import head_plan


def tune_phase(
    data: TrainingData, head: Model, tables: Tables | None = None, name: str = "finetune"
) -> FitResult:
    """Run the second phase: fine-tune from a model with a fitted head.

    tables: features of the training views and validation rows, if extracted already. name: of the
    phase, in the history and of its checkpoint.
    """
    start = data.start
    assert start.settings is not None
    assert start.thawed is not None
    tables = tables or tuning_tables(data)
    kept = start.tap.precision if start.tap else "nothing"
    begun = (kept, *head.head.tensors().values(), *data.drawn)
    context = data.phase(name, start.thawed.backbone, *begun)
    with data.clock("fine-tuning"), torch_threads(context.runtime.threads):
        feeds = data.for_tuning(tables)
        result = fine_tune(start.settings, start.thawed, head, feeds, context, name)
    tell(name, start.settings, result, data.splits, context)
    return result


def tuning_tables(data: TrainingData) -> Tables | None:
    """Return the features that fine-tuning starts from; None if they are computed anew."""
    if data.start.tap is None or data.start.settings is None:
        return None
    return data.train(data.start.settings.seed, cut=True), data.plain(data.splits.val)


def tune_again(
    data: TrainingData, head: Model, tables: Tables | None, first: FitResult, name: str = "refit"
) -> Model | None:
    """Fine-tune on other rows for the epochs that `first` kept, with what else it chose.

    data: its splits have no validation rows. head: where fine-tuning starts. name: as in
    `tune_phase`. None if training was ended early: on a part of its schedule a network is worse.
    """
    start = data.start
    assert start.settings is not None
    assert start.thawed is not None
    chosen, began = first.chosen, first.history[0].epoch
    again = Again(
        chosen["epoch"] - began, chosen.get("arithmetic", "float32"), chosen.get("wise", 1.0)
    )
    begun = (*head.head.tensors().values(), *data.drawn)
    context = data.phase(name, start.thawed.backbone, *begun)
    with torch_threads(context.runtime.threads):
        tuned = tune(
            start.settings,
            start.thawed,
            head.head,
            data.for_tuning(tables),
            first.model.target,
            context=context,
            phase=name,
            after=began,
            again=again,
        )
    if tuned.trained.stopped:
        return None
    return replace(first.model, backbone=tuned.backbone, head=tuned.head)


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
    context = data.phase(phase, backbone, *data.drawn)
    with torch_threads(context.runtime.threads):
        new = new_head(layers, backbone.card.dim, target.outputs, settings.seed)
        own_module = isinstance(layers, ModuleSpec)
        head = trained_head(new, layers, backbone.card.dim) if own_module else new
        tuned = tune(settings, thawed, head, data.for_tuning(), context=context, phase=phase)
    model = Model(tuned.backbone, tuned.head, tuned.target)
    result = _result(tuned, model, settings, splits.val)
    tell(phase, settings, result, splits, context)
    return _viewed(phase, result, spec, data)


def train_head(
    spec: FeatureExtraction,
    layers: TrainedSpec,
    backbone: Backbone,
    given: Feed | tuple[FeatureTable, ...],
    val: FeatureTable,
    context: RunContext,
    phase: str = "head",
) -> FitResult:
    """Train a new head by epochs; on the CPU, because it is small.

    given: the feed of its rows, or a table for each of their views.
    """
    rows = Stored(given, False, spec.seed) if isinstance(given, tuple) else given
    target, threads = rows.target, context.runtime.resolved().threads
    module = tied(new_head(layers, backbone.card.dim, target.outputs, spec.seed), target)
    network = Network(nn.Identity(), module, ())
    context = replace(context, runtime=ON_CPU, ranks=ALONE)
    feeds = rows, Stored((val,), cut=False)
    plan = head_plan(layers, spec.seed)
    with torch_threads(threads):
        trained = train(network, plan, *feeds, phase=phase, context=context)
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
    phase: str = "finetune",
) -> FitResult:
    """Fine-tune the thawed layers from `start`; epoch numbers continue those of `start`."""
    tuned = tune(
        settings,
        thawed,
        start.head,
        feeds,
        start.target,
        context=context,
        phase=phase,
        after=start.epochs,
    )
    return _result(tuned, start, settings, feeds[1].ids)


def tuned_answers(start: Start, tuned: FitResult, rows: Feed, context: RunContext) -> Outputs:
    """Return the answers of a fine-tuned model to rows, computed from the cut.

    start: where its fine-tuning began. rows: activations at its cut, or prepared examples without
    one, as `TrainingData.for_tuning` gives them.
    """
    settings, model = start.settings, tuned.model
    assert settings is not None
    assert isinstance(model.backbone, Backbone)
    thawed = thaw(model.backbone, settings.thaw, settings.thaw_from)
    network = thawed.network(head_module(model.head), settings.norms)
    with torch_threads(context.runtime.threads):
        network.to(context.runtime.device)
        raw = raw_outputs(network, rows, tuned.chosen.get("arithmetic", "float32"))
        return model.target.activate(raw)


def tell(
    phase: str, settings: FineTune, result: FitResult, splits: Splits, context: RunContext
) -> None:
    """Report the result of a fine-tuning phase, and its accuracy under attack if adversarial."""
    context.listener.stage(phase, result_message(result))
    if settings.adversarial and len(splits.val):
        context.listener.stage(phase, attack_message(result))


def fit_second(
    settings: FineTune,
    given: object,
    splits: Splits,
    views: ViewSpec,
    context: RunContext,
    tta: str = "none",
) -> FitResult:
    """Fine-tune a model that was fitted before, as it was before its refit if it had one.

    Raises SpecError if `given` is something else, or a model that has learned from validation.
    """
    if isinstance(given, FitResult):  # a refit has learned from the rows of validation
        given = (given.before or given).model
    start = given
    if not isinstance(start, Model):
        raise SpecError(NO_START)
    if start.refitted:
        raise SpecError(REFITTED)
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
    backbone = one_view(backbone)
    viewed_input(backbone.card.input, tta, views)  # raises for views that there are not
    start = replace(start, backbone=backbone)
    thawed = with_tap(tuning_start(settings, backbone, start.head_lr), splits, views, context)
    target = start.target.learning(target)
    data = TrainingData(thawed, splits, views, context, target=target)
    return _viewed("finetune", tune_phase(data, start), TwoPhaseSpec(views=views, tta=tta), data)


def _viewed(name: str, result: FitResult, spec: TwoPhaseSpec, data: TrainingData) -> FitResult:
    """Return a result with the test-time views of `spec`."""
    if spec.tta == "none":
        return result
    plain = Candidate(result, data.of_model(result.model, data.splits.val))
    return with_test_views({name: plain}, spec, data)[name].fitted


REFITTED = (
    "Fine-tuning is judged on validation, and this model has learned from its rows in a refit: "
    "give fit() the result itself (model=fitted), which holds the model as it was before."
)
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
    if trained.arithmetic != "float32":
        chosen["arithmetic"] = trained.arithmetic
    return FitResult(model, chosen, (), trained.history, tuned.count)


def _stop_of(trained: Trained) -> dict[str, Any]:
    """Return the entries of `chosen` about an early stop; {} without one.

    They are the epoch after which training stopped and, if the listener did not stop it, the cause.
    """
    if not trained.stopped:
        return {}
    by = {"stopped_by": "the budget"} if trained.late else {}
    return {"stopped_after": trained.history[-1].epoch, **by}


def _kept(keep: str, val: Sized, target: Target, *, under_attack: bool = False) -> str:
    if keep != "best" or not len(val):
        return "the last epoch"
    if not target.counts_right:
        return "loss on validation"
    return f"accuracy {'under attack ' if under_attack else ''}on validation"
