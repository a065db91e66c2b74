"""Fit a model's head again on the features of a narrower copy of its backbone."""

from dataclasses import replace

import numpy as np

from headstart.base.context import RunContext
from headstart.base.errors import HeadstartError
from headstart.exporting.rows import ExportRows
from headstart.features.extract import FeatureTable, extract
from headstart.heads.families import HEADS, fit_head, head_for, solve_head
from headstart.heads.head import Head
from headstart.heads.specs import UsualSpec
from headstart.models.distance import Seen
from headstart.models.fitting_limits import remembered
from headstart.models.limits import Limits
from headstart.models.model import Model


def refitted_for(
    model: Model, small: Model, rows: ExportRows, before: FeatureTable, context: RunContext
) -> tuple[Model, bool]:
    """Return `small` with the head that changes fewer of `model`'s answers to validation rows: its
    own, or one fitted again; and whether it is the latter.

    small: the model with a narrower backbone. before: the validation features of `model`.
    """
    both = rows.train.joined(rows.val)
    table = extract(small.backbone, both, store=None, runtime=context.runtime)
    val = table.of(rows.val)
    if model.limits.seen is not None:
        few = remembered(rows.train)
        if len(model.limits.seen.rows) > len(few):  # a refit learned from validation too
            few = remembered(both)
        limits = replace(model.limits, seen=Seen.of(table.of(few).x))
        small = replace(small, limits=_with_far(limits, val, model.limits, before))
    try:
        again = replace(small, head=_fitted(small, rows, table))
    except HeadstartError as error:
        context.listener.stage("int8", f"its head stays as it was: {error}")
        return small, False
    answers, target = model.answers(before.x), model.target
    kept, new = (
        target.answers_changed(answers, each.answers(val.x)).mean() for each in (small, again)
    )
    message = f"{kept:.2%} of the answers change with the old head, {new:.2%} with a refitted one"
    context.listener.stage("int8", message)
    return (again, True) if new <= kept else (small, False)


def _with_far(
    limits: Limits, val: FeatureTable, before: Limits, val_before: FeatureTable
) -> Limits:
    """Return limits beyond whose distance are as many validation rows as were before, since
    narrower features lie at other distances."""
    old, new = np.sort(before.distance(val_before.x)), np.sort(limits.distance(val.x))
    within = int((old <= before.far).sum())
    if not 0 < within <= len(new) or not old[within - 1] or not np.isfinite(before.far):
        return limits
    low, high = new[within - 1], new[within] if within < len(new) else np.inf
    far = max(low, before.far * low / old[within - 1])
    if far >= high:  # a row that was beyond the limit would not be beyond it
        far = (low + high) / 2 if low < high else low
    return replace(limits, far=float(far))


def _fitted(model: Model, rows: ExportRows, table: FeatureTable) -> Head:
    """Return a head solved on both parts, its setting chosen on validation."""
    asked = UsualSpec() if rows.head.by_epochs else rows.head
    spec, _ = head_for(asked, model.target)
    train, val, both = (
        _as_learned(model, t) for t in (*map(table.of, (rows.train, rows.val)), table)
    )
    found = solve_head(spec, train, val)
    if HEADS[spec.family].fit is not fit_head:
        return found.head
    from headstart.heads.fit import fit_at

    return fit_at(spec.chosen(found.chosen), both).head


def _as_learned(model: Model, table: FeatureTable) -> FeatureTable:
    """Return features with their labels as the model's target encodes them."""
    y = model.target.translate(table.y, table.target)
    return replace(table, y=y, target=model.target)
