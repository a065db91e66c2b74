"""Fit a model from a spec, a backbone and split data: first the head, then the thawed layers.

Nothing here loads PyTorch for a head that is solved; what is trained by epochs is in `tuning`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.views import NoChange, ViewSpec
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.base.mapped import rows_of_array
from headstart.base.runtime import Runtime
from headstart.base.store import USUAL, Store
from headstart.data.splits import Splits
from headstart.features.engine_table import check_device
from headstart.features.extract import FeatureTable
from headstart.heads.families import check_supports, solve_head
from headstart.heads.head import FeatureRows, Rows, blocks
from headstart.heads.specs import TrainedSpec
from headstart.modalities.sources import load_backbone, reopened
from headstart.models.model import Model
from headstart.models.results import (
    Candidate,
    Candidates,
    FitResult,
    HeldOut,
    best_of,
    worth_keeping,
)
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.models.training_data import (
    Start,
    Tables,
    TrainingData,
    prepare,
    stacked,
    viewed_input,
    with_tap,
)
from headstart.models.viewing import Refit, with_test_views
from headstart.models.wording import result_message
from headstart.targets.predictions import Predictions
from headstart.targets.target import POOLED, Array, Target
from headstart.training.history import NOTHING, Count, Epoch, Figures, ParameterCount

if TYPE_CHECKING:
    from headstart.heads.fit import CrossValidated
    from headstart.training.feeds import Feed

SOLVED = 1  # the number of epochs that a solved head counts as


def fit(
    spec: TwoPhaseSpec | FeatureExtraction | FineTune,
    start: str | Backbone | Frozen | Model | FitResult,
    data: Splits,
    *,
    views: ViewSpec | None = None,
    tta: str = "none",
    store: Store | None = USUAL,
    runtime: Runtime | None = None,
    listener: Listener | None = None,
) -> FitResult:
    """Fit a model on `data.train`, choosing everything on `data.val`; `data.test` is not used.

    start: a backbone or its name for a TwoPhaseSpec or FeatureExtraction, a fitted model for a
    FineTune. views: replaces the views of the spec. tta: as in TwoPhaseSpec, for the other specs.
    Raises SpecError for the wrong kind of start, DataError for a class named "unknown" or "?".

    >>> fitted = fit(TwoPhaseSpec(), "timm:resnet50", split(data))  # doctest: +SKIP
    >>> fitted.chosen, fitted.predict(new)  # doctest: +SKIP
    """
    data.train.target.check_names()
    check_device(runtime or Runtime())
    context = RunContext(store, (runtime or Runtime()).resolved(), listener or Listener())
    if isinstance(spec, FineTune):
        from headstart.models.tuning import fit_second

        return fit_second(spec, start, data, views or NoChange(), context, tta)
    if isinstance(start, Model | FitResult):
        raise SpecError(f"{type(spec).__name__} starts from a backbone; give fit() model.backbone.")
    # a phase alone is not refitted: fine-tuning may go on from it, judged on validation
    whole = (
        spec if isinstance(spec, TwoPhaseSpec) else TwoPhaseSpec(spec, None, tta=tta, refit=False)
    )
    whole = whole if views is None else replace(whole, views=views)
    backbone = load_backbone(start) if isinstance(start, str) else start
    return two_phases(whole, backbone, data, context).result


def two_phases(
    spec: TwoPhaseSpec,
    backbone: Backbone | Frozen,
    splits: Splits,
    context: RunContext,
    start: Start | None = None,
) -> Candidates:
    """Fit a head, fine-tune it if the spec says so, and keep what is `worth_keeping`.

    start: the result of `prepare`, if it has run already.
    """
    head = spec.head.for_target(splits.train.target, context.listener)
    spec = replace(spec, head=head)
    if head.head.takes != POOLED:
        from headstart.models.detection import phases_on_levels

        return phases_on_levels(spec, backbone, splits, context, start)
    if start is None:
        rows, features = len(splits.train), backbone.card.dim
        head = head.for_rows(splits.train.target, rows, features, context.listener)
        spec = replace(spec, head=head)
    start = start or with_tap(prepare(spec, backbone), splits, spec.views, context)
    folds = head.by_folds(len(splits.val)) and splits.joinable
    views = NoChange() if _only_mean_features(spec, start) else spec.views
    data = TrainingData(start, splits, views, context, whole=folds)
    tables = data.train(spec.head.seed, cut=spec.same_views), data.plain(data.splits.val)
    fitted = fit_phase(spec.head, data, tables, cut=spec.same_views)
    made = {"head": Candidate(fitted, tables[1])}
    if start.thawed is not None and context.deadline.late:
        context.listener.stage("finetune", "left out: its time is over")
    elif start.thawed is not None:
        made |= _fine_tuned(spec, data, fitted.model, tables if spec.same_views else None)
    plain = {name: c.fitted for name, c in made.items()}
    made = with_test_views(made, spec, data, _refit(spec.head, data))
    kept = _kept(spec, made)
    again = None
    if spec.refit and len(splits.val):
        from headstart.models.refitting import refit, refit_lost

        if why := refit_lost(data, plain, kept):
            context.listener.stage("refit", f"left out: {why}")
        else:
            again = refit(spec, data, plain, made[kept].fitted, kept)
    return Candidates(made, kept, data.clock.seconds, tuple(data.tables), again)


def _only_mean_features(spec: TwoPhaseSpec, start: Start) -> bool:
    """Return whether nothing would learn from stored views: a solved head, fitted on the mean
    features of the test-time views that were asked for, is all that there is."""
    if spec.tta in ("none", "auto") or spec.head.head.by_epochs or start.thawed is not None:
        return False
    return viewed_input(start.backbone.card.input, spec.tta, spec.views).test_views > 1


def _fine_tuned(
    spec: TwoPhaseSpec, data: TrainingData, head: Model, tables: Tables | None
) -> dict[str, Candidate]:
    """Run the second phase as often as the spec says; return its candidates by name."""
    if spec.members > 1:
        from headstart.models.ensembling import tune_members

        return tune_members(spec.members, data, head, tables)
    from headstart.models.tuning import tune_phase

    tuned = tune_phase(data, head, tables)
    return {"finetune": Candidate(tuned, data.of_model(tuned.model, data.splits.val))}


def _kept(spec: TwoPhaseSpec, made: Mapping[str, Candidate]) -> str:
    """Return the name of the candidate to keep: of several fine-tuned ones the best."""
    if spec.keep not in made:
        return worth_keeping(made)
    tuned = {name: c for name, c in made.items() if name != "head"}
    if spec.keep == "head" or len(tuned) == 1:
        return spec.keep
    unjudged = not len(tuned["finetune"].table)
    return "soup" if unjudged else best_of(tuned)


def _refit(spec: FeatureExtraction, data: TrainingData) -> Refit | None:
    """Return what fits the head of `spec` on other features of the rows of training and validation;
    None if it is trained by epochs."""
    if spec.head.by_epochs:
        return None

    def fitted(backbone: Backbone | Frozen, whole: FeatureTable) -> tuple[FitResult, FeatureTable]:
        train, val = whole.of(data.splits.train), whole.of(data.splits.val)
        chosen = chosen_by_folds(spec, data.splits, whole, (whole,)) if data.whole else None
        only = replace(spec, head=chosen.found.spec) if chosen else spec
        result = fit_tables(only, backbone, (train,), val, context=data.context)
        return chosen.told(result) if chosen else result, val

    return fitted


def fit_phase(
    spec: FeatureExtraction, data: TrainingData, tables: Tables, *, cut: bool = False
) -> FitResult:
    """Run the first phase: fit a head on features of the frozen backbone.

    cut: whether the views of the tables hold activations at the cut, too.
    """
    backbone, (views, val) = data.start.backbone, tables
    context = data.phase("head", backbone, val.x, *(v.x for v in views))
    with data.clock("head"):
        new = data.new_features(spec)
        chosen = None
        check_supports(spec.head, data.splits.train.target)
        if data.whole:
            whole = data.plain(data.splits.train_val), data.train_val(spec.seed, cut=cut)
            chosen = chosen_by_folds(spec, data.splits, *whole)
        only = replace(spec, head=chosen.found.spec) if chosen else spec
        result = fit_tables(only, backbone, views, val, context=context, new=new)
        result = chosen.told(result) if chosen else result
    context.listener.stage("head", result_message(result))
    return result


@dataclass(frozen=True, eq=False)
class ChosenByFolds:
    """A head's setting, chosen on all rows outside the test part. plain: features of these rows."""

    found: "CrossValidated"
    plain: FeatureTable

    def told(self, result: FitResult) -> FitResult:
        """Return the head's result with what was chosen, and with the out-of-fold answers."""
        out, target = np.flatnonzero(self.found.held_out), result.model.target
        answers = self.found.answers_of(target)
        y, ids = self.plain.y[out], tuple(self.plain.ids[i] for i in out)
        if target.decides:
            target = target.decided(answers, y)
        groups = tuple(self.plain.groups[i] for i in out)
        x = rows_of_array(self.plain.x, out)
        held_out = HeldOut(Predictions(ids, answers, y, target), x, groups)
        return replace(
            result,
            model=replace(result.model, target=target),
            chosen={**result.chosen, "by": self.found.by},
            path=self.found.path,
            held_out=held_out,
        )


def chosen_by_folds(
    spec: FeatureExtraction, splits: Splits, plain: FeatureTable, views: Sequence[FeatureTable]
) -> ChosenByFolds | None:
    """Choose the setting of a solved head by folds; None where there are too few rows.

    plain, views: features of all rows outside the test part, and of the views of them that a head
    learns from. Rows of a group, and copies of each other, are held out together.
    """
    from headstart.heads.fit import cross_validate

    target = splits.train.target
    together = replace(plain, target=target, groups=splits.groups_of(plain.ids))
    views = [replace(t, target=target) for t in views]
    found = cross_validate(spec.head, stacked(views), together)
    return ChosenByFolds(found, together) if found else None


def fit_tables(
    spec: FeatureExtraction,
    backbone: Backbone | Frozen,
    views: Sequence[FeatureTable],
    val: FeatureTable,
    *,
    context: RunContext = IN_MEMORY,
    new: "Feed | None" = None,
) -> FitResult:
    """Fit the head of `spec` on features of a prepared backbone.

    views: one table per view. new: the feed for a head trained by epochs, instead of `views`.
    """
    target = views[0].target.fitted(views[0].y)
    check_supports(spec.head, target)
    views, val = [replace(v, target=target) for v in views], replace(val, target=target)
    if isinstance(spec.head, TrainedSpec):
        from headstart.models.tuning import train_head

        network = reopened(backbone) if isinstance(backbone, Frozen) else backbone
        return train_head(spec, spec.head, network, new or tuple(views), val, context)
    judged = stacked(views if len(val) else views[:1])  # folds must not separate views of a row
    return solved_result(spec, backbone, judged, val, target)


def solved_result(
    spec: FeatureExtraction,
    backbone: Backbone | Frozen,
    rows: Rows,
    val: FeatureTable,
    target: Target,
) -> FitResult:
    """Solve the head of `spec` on the rows, its setting chosen on `val`."""
    solved = solve_head(spec.head, rows, val)
    model = Model(
        backbone, solved.head, solved.target or target, head_lr=spec.head_lr, epochs=SOLVED
    )
    learned = ParameterCount(solved.head.parameters, len(solved.head.tensors()))
    counted = Count(_count(backbone), learned)
    history = (_solved_line(model, rows, val),)
    return FitResult(model, solved.chosen, solved.path, history, counted)


def _count(backbone: Backbone | Frozen) -> ParameterCount:
    """Count the values and tensors of a network's state: as in Keras, with running statistics."""
    state = backbone.weights if isinstance(backbone, Frozen) else backbone.module.state_dict()
    sizes = [math.prod(t.shape) for name, t in state.items() if not name.endswith("_tracked")]
    return ParameterCount(sum(sizes), len(sizes))


def _solved_line(model: Model, train: Rows, val: FeatureTable) -> Epoch:
    """Return a solved head's only line of history."""
    return Epoch("head", SOLVED, None, *_figures(model, train), *_figures(model, val), 0.0)


def _figures(model: Model, rows: FeatureRows) -> Figures:
    """Return a head's loss and share of right answers, a block of rows at a time."""
    target, losses, right = model.target, list[Array](), list[Array]()
    for some in blocks(len(rows.y)):
        raw, y = model.head.raw(rows.x[some]), rows.y[some]
        if target.counts_right:
            answers = target.activate(raw)
            right.append(target.row_scores(answers, y))
            losses.append(target.row_losses(answers, y))
        else:
            losses.append(target.raw_losses(raw, y))
    if not losses:
        return NOTHING
    share = float(np.concatenate(right).mean()) if right else None
    return float(np.concatenate(losses).mean()), share
