"""Test-time views: predict from the mean features of several views of an example.

An input with such views prepares them as the parts of an example, whose mean features stand for it
everywhere: in predictions, limits and bundles. So a linear head answers with the mean of its raw
outputs over the views: of a number the mean answer, of classes the normalised geometric mean of the
probabilities. A solved head is fitted again, on mean features.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Input
from headstart.data.dataset import Dataset
from headstart.features.extract import FeatureTable
from headstart.models.model import Model
from headstart.models.results import Candidate, FitResult, decided
from headstart.models.specs import TwoPhaseSpec
from headstart.models.training_data import TrainingData, table_of, viewed_input
from headstart.models.wording import merit_text

AnyBackbone = TypeVar("AnyBackbone", bound=Backbone | Frozen)
# Fits the head of the first phase on other features: backbone, rows of training and validation.
# Returns it with the features of the validation rows.
Refit = Callable[[Backbone | Frozen, FeatureTable], tuple[FitResult, FeatureTable]]


def one_view(backbone: AnyBackbone) -> AnyBackbone:
    """Return the backbone without test-time views."""
    return with_input(backbone, backbone.card.input.averaging(None, 1))


def has_test_views(model: Model) -> bool:
    return model.backbone.card.input.test_views > 1


def with_test_views(
    made: Mapping[str, Candidate],
    spec: TwoPhaseSpec,
    data: TrainingData,
    refit: Refit | None = None,
) -> dict[str, Candidate]:
    """Return the candidates with the test-time views of `spec.tta`.

    refit: of a solved head; the others, and without it all, only predict from mean features. "auto"
    keeps the views for each candidate that is better with them on validation. Raises SpecError for
    a number of views that there are not.
    """
    if spec.tta == "none":
        return dict(made)
    input, why = viewed_input(data.start.backbone.card.input, spec.tta, spec.views), ""
    if input.test_views == 1:
        why = "nothing that training draws is a flip, a quarter turn or a crop"
    elif spec.tta == "auto" and not len(data.splits.val):
        why = "there are no validation rows to judge them by"
    if why:
        data.context.listener.stage("tta", f"one view: {why}")
        return dict(made)
    found = dict[str, Candidate]()
    for name, plain in made.items():
        again = refit if name == "head" else None
        averaged = _refitted(plain, input, data, again) if again else _averaged(plain, input, data)
        found[name] = _kept(name, plain, averaged, spec.tta, data)
    return found


def _refitted(plain: Candidate, input: Input[Any], data: TrainingData, refit: Refit) -> Candidate:
    """Fit a solved head again, on mean features."""
    backbone = with_input(plain.fitted.model.backbone, input)
    return Candidate(*refit(backbone, _table(backbone, data.splits.train_val, data)))


def _averaged(plain: Candidate, input: Input[Any], data: TrainingData) -> Candidate:
    """Let a trained model predict from mean features; thresholds of labels are chosen again."""
    model = plain.fitted.model
    backbone = with_input(model.backbone, input)
    val = _table(backbone, data.splits.val, data)
    return decided(replace(plain.fitted, model=replace(model, backbone=backbone)), val)


def _kept(
    name: str, plain: Candidate, averaged: Candidate, tta: str, data: TrainingData
) -> Candidate:
    """Return the candidate with test-time views, or `plain` if "auto" finds it no worse."""
    better = tta != "auto" or averaged.merit > plain.merit
    kept = averaged if better else plain
    count = averaged.fitted.model.backbone.card.input.test_views
    line = f"one view; {count} views are no better"
    if better:
        line = f"the mean features of {count} views; a prediction takes {count} times as long"
    if len(plain.table):
        merit = plain.val.target.merit_name.replace("_", " ")
        one, several = merit_text(plain), merit_text(averaged)
        line += f" ({merit} on validation: {one} of one, {several} of {count})"
    data.context.listener.stage("tta", f"{name}: {line}")
    chosen = {**kept.fitted.chosen, "tta": count if better else 1}
    return replace(kept, fitted=replace(kept.fitted, chosen=chosen))


def _table(backbone: Backbone | Frozen, rows: Dataset, data: TrainingData) -> FeatureTable:
    with data.clock("tta"):
        table = table_of(backbone, rows, data.context)
    data.tables.append(table)
    return table


def with_input(backbone: AnyBackbone, input: Input[Any]) -> AnyBackbone:
    """Return the backbone with another way to prepare examples."""
    return replace(backbone, card=replace(backbone.card, input=input))
