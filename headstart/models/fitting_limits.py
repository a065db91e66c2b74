"""Find a fitted model's limits on rows that it did not learn from."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.base.mapped import rows_of_array
from headstart.base.runtime import Runtime
from headstart.base.store import USUAL, Store
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.features.extract import FeatureTable, extract
from headstart.models.distance import Seen
from headstart.models.limits import Judged, Limits, TrustPlan, find_limits
from headstart.models.model import Model
from headstart.models.results import FitResult, HeldOut

ROWS = 1000  # stored training rows: 2.5 MB for 1,280 features
Features = Callable[[Model, Dataset], FeatureTable]


def with_limits(
    model: Model,
    data: Splits,
    plan: TrustPlan | None = None,
    *,
    store: Store | None = USUAL,
    runtime: Runtime | None = None,
) -> Model:
    """Return the model with the limits of `plan`, found on `data.val`; `data.test` is not used."""

    def features(model: Model, rows: Dataset) -> FeatureTable:
        return extract(model.backbone, rows, store=store, runtime=runtime)

    plan = plan or TrustPlan()
    held_out = on_validation(model, features(model, data.val), data)
    return limited(model, plan, held_out, data, data.train, features)


def limited_result(
    result: FitResult, plan: TrustPlan, data: Splits, val: FeatureTable | None, features: Features
) -> FitResult:
    """Return the result, and what it was before its refit, with the limits of `plan`.

    They are found on out-of-fold answers, or else on validation; a refitted network inherits those
    of the one before. val: features of the validation rows before a refit, if they are known.
    """
    first = result.before or result
    held_out = first.held_out
    if held_out is None:
        table = features(first.model, data.val) if val is None else val
        held_out = on_validation(first.model, table, data)
    if result.before is None:
        model = limited(first.model, plan, held_out, data, data.train, features)
        return replace(result, model=model)
    if first.held_out is not None and first.model.backbone is result.model.backbone:
        model = limited(result.model, plan, held_out, data, data.train_val, features)
        before = replace(first.model, limits=model.limits)
    else:
        before = limited(first.model, plan, held_out, data, data.train, features)
        model = replace(result.model, limits=_inherited(before, result.model, data, features))
    return replace(result, model=model, before=replace(first, model=before))


def on_validation(model: Model, val: FeatureTable, data: Splits) -> HeldOut:
    """Return the model's answers to validation rows whose labels it knows."""
    predictions = replace(model, limits=Limits()).predict_table(val)
    known = np.flatnonzero(predictions.known)
    answered = predictions.take(known)
    return HeldOut(answered, rows_of_array(val.x, known), data.groups_of(answered.ids))


def limited(
    model: Model,
    plan: TrustPlan,
    held_out: HeldOut,
    data: Splits,
    learned: Dataset,
    features: Features,
) -> Model:
    """Return `model` with the limits of `plan`, found on `held_out`. learned: what it learned from,
    of which some rows are stored with it."""
    answered = held_out.predictions
    judged = Judged(model.target, answered.outputs, answered.labels, held_out.x)
    if not plan.false_alarms:
        return replace(model, limits=find_limits(plan, judged, None))
    few = remembered(learned)
    own = _own_rows(held_out.groups, data.groups_of(few.ids))
    seen = Seen.of(features(model, few).x)
    return replace(model, limits=find_limits(plan, replace(judged, own=own), seen))


def _inherited(before: Model, after: Model, data: Splits, features: Features) -> Limits:
    """Return the limits of the network before its refit, with the rows seen by the refitted one."""
    limits = before.limits
    if limits.seen is None:
        return limits
    return replace(limits, seen=Seen.of(features(after, remembered(data.train_val)).x))


def _own_rows(rows: Sequence[str], seen: Sequence[str]) -> NDArray[np.bool_] | None:
    """Return which seen rows are of each row's own group, (N, M); None where none is."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys((*rows, *seen)))}
    a, b = (np.array([numbers[name] for name in names], np.int64) for names in (rows, seen))
    own: NDArray[np.bool_] = a[:, None] == b[None, :]
    return own if own.any() else None


def remembered(train: Dataset, seed: int = 0) -> Dataset:
    """Return the training rows stored with a model: at most 1,000, drawn at random."""
    if len(train) <= ROWS:
        return train
    return train.take(np.sort(np.random.default_rng(seed).permutation(len(train))[:ROWS]))
