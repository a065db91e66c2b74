"""Fit what was chosen again, on the rows of training and validation together."""

from collections.abc import Mapping
from dataclasses import replace

from headstart.backbones.frozen import Frozen
from headstart.base.listener import NeverStops
from headstart.features.extract import FeatureTable
from headstart.heads.families import HEADS, fit_head, solve_head
from headstart.heads.head import Fitted
from headstart.heads.specs import TrainedSpec
from headstart.modalities.sources import reopened
from headstart.models.model import Model
from headstart.models.results import FitResult
from headstart.models.specs import FeatureExtraction, TwoPhaseSpec
from headstart.models.training_data import (
    Tables,
    TrainingData,
    stacked,
    table_of,
    thawed_again,
)
from headstart.models.viewing import has_test_views, with_input
from headstart.models.wording import refit_message


def refit_lost(data: TrainingData, made: Mapping[str, FitResult], name: str) -> str:
    """Return why what was kept under that name can't be fitted again; "" if it can."""
    splits, deadline = data.splits, data.context.deadline
    if not splits.joinable:
        return "rows of training and validation have the same ids, as of two data sets"
    if name == "head" or not deadline.active:
        return ""
    if not deadline.refits:
        return "the budget has no time for one in every fold"
    more = (len(splits.train) + len(splits.val)) / max(1, len(splits.train))
    seconds = more * sum(map(_seconds_of, made[name].members or (made[name],)))
    if deadline.fits(seconds + deadline.refit):
        return ""
    return f"it takes about {seconds + deadline.refit:.0f} s, which the budget does not have"


def _seconds_of(result: FitResult) -> float:
    """Return how long fine-tuning took up to the kept epoch; the history may have others' lines."""
    own, kept = result.history[0].phase, result.chosen["epoch"]
    return sum(line.seconds for line in result.history if line.phase == own and line.epoch <= kept)


def refit(
    spec: TwoPhaseSpec,
    data: TrainingData,
    made: Mapping[str, FitResult],
    kept: FitResult,
    name: str,
) -> FitResult | None:
    """Return the kept result fitted again on all rows outside the test part.

    made: the results of the phases by name, before test-time views. kept: the chosen one of that
    name, with its views. Every choice stays: the setting of a solved head, the epochs of what is
    trained by epochs (on the same schedule), the share of averaged weights, the test-time views,
    the decisions of the target. None if the kept epoch of a head is the one before training, or the
    deadline came first.
    """
    own = has_test_views(kept.model) and not isinstance(spec.head.head, TrainedSpec)
    first = kept if name == "head" and own else made["head"]
    head = _head_again(spec.head, data, first, cut=spec.same_views)
    if head is None:
        return None
    model = head if name == "head" else _tuned_again(data, head, made, name)
    if model is None:
        data.context.listener.stage("refit", "left out: its time is over")
        return None
    backbone = kept.model.backbone  # of a head the same object: its features are known
    if name != "head":
        backbone = with_input(model.backbone, backbone.card.input)
    model = replace(model, target=kept.model.target, backbone=backbone, refitted=True)
    noun = data.start.backbone.card.input.noun
    message = refit_message(name, len(data.splits.train), len(data.splits.val), noun)
    data.context.listener.stage("refit", message)
    return replace(kept, model=model, before=kept)


def _head_again(
    spec: FeatureExtraction, data: TrainingData, first: FitResult, *, cut: bool
) -> Model | None:
    """Fit the head with the setting that `first` chose; on mean features if it has test-time
    views."""
    if isinstance(spec.head, TrainedSpec):
        return _trained_again(spec, data, first)
    plain = _untapped(data)
    tables: tuple[FeatureTable, ...]
    if has_test_views(first.model):
        tables = (table_of(first.model.backbone, data.splits.train_val, data.context),)
    else:
        tables = data.extracted_before(spec.seed, cut) or plain.train_val(spec.seed, cut=False)
    rows = stacked([replace(t, target=first.model.target) for t in tables])
    with data.clock("refit"):
        if HEADS[spec.head.family].fit is fit_head:
            from headstart.heads.fit import fit_at

            found: Fitted = fit_at(spec.head.chosen(first.chosen), rows)
        else:
            none = plain.plain(data.splits.val.take([]))
            found = solve_head(spec.head, rows, replace(none, target=rows.target))
    return replace(first.model, head=found.head)


def _trained_again(spec: FeatureExtraction, data: TrainingData, first: FitResult) -> Model | None:
    """Train a head for the chosen epochs; None for no epoch, and if it was ended early."""
    from headstart.models.tuning import train_head

    assert isinstance(spec.head, TrainedSpec)
    if not (epochs := int(first.chosen["epoch"])):
        return None
    whole = _whole(data, first.model)
    views, val = whole.train(spec.seed, cut=False), whole.plain(whole.splits.val)
    backbone, own = data.start.backbone, replace(spec.head, epochs=epochs, keep="last")
    context = whole.phase("refit-head", backbone, *(v.x for v in views))
    with data.clock("refit"):
        network = reopened(backbone) if isinstance(backbone, Frozen) else backbone
        feed = whole.new_features(spec) or views
        again = train_head(spec, own, network, feed, val, context, phase="refit-head")
    return None if "stopped_after" in again.chosen else replace(first.model, head=again.model.head)


def _tuned_again(
    data: TrainingData, head: Model, made: Mapping[str, FitResult], name: str
) -> Model | None:
    """Fine-tune from the refitted head for the epochs that were chosen; average as was chosen.

    None if time was short.
    """
    from headstart.models.ensembling import averaged, of_member, phase_of
    from headstart.models.tuning import tune_again

    first, settings = made[name], data.start.settings
    assert settings is not None
    whole = replace(_whole(data, first.model), start=thawed_again(data.start))
    models, tables = list[Model](), None
    for result in first.members or (first,):
        if int(result.chosen["epoch"]) == made["head"].model.epochs:  # before fine-tuning
            models.append(head)
            continue
        tables = tables or _tables_again(data, whole)
        number = result.chosen.get("seed", settings.seed) - settings.seed
        own = of_member(whole, settings.seed + number) if number else whole
        with data.clock("refit"):
            again = tune_again(own, head, tables, result, phase_of("refit", number))
        if again is None:
            return None
        models.append(again)
    return averaged(name, models, settings) if first.members else models[0]


def _tables_again(data: TrainingData, whole: TrainingData) -> Tables | None:
    """Return the features from which fine-tuning starts again; None if they are computed anew."""
    settings = data.start.settings
    if data.start.tap is None or settings is None:
        return None
    views = data.extracted_before(settings.seed, True) or whole.train(settings.seed, cut=True)
    target = whole.splits.train.target
    return tuple(replace(t, target=target) for t in views), whole.plain(whole.splits.val)


def _whole(data: TrainingData, model: Model) -> TrainingData:
    """Return the data with the validation rows among the training rows.

    A listener cannot stop what learns from them: it repeats epochs that were chosen before.
    """
    own = _untapped(data)
    context = replace(own.context, listener=NeverStops(own.context.listener))
    return TrainingData(own.start, own.splits.whole(), own.views, context, target=model.target)


def _untapped(data: TrainingData) -> TrainingData:
    """Return the data without the request for activations, whose layers fine-tuning has changed."""
    return replace(data, start=replace(data.start, tap=None))
