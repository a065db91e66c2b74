"""`headstart search`, and the choice of a run with `--backbone auto`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from headstart.base.atomic import make_folder, write_json
from headstart.base.context import RunContext
from headstart.base.errors import PlaceError, SpecError
from headstart.base.listener import Listener
from headstart.base.values import fingerprint, read_value, to_plain
from headstart.data.checks import CheckPlan, Checks, check, good_rows
from headstart.data.dataset import PARTS, Dataset, unexpected
from headstart.data.grouping import grouped
from headstart.data.splits import Splits, split
from headstart.evaluation.backbone_search import (
    BackboneSearch,
    SearchLimit,
    SearchPlan,
    search_backbones,
)
from headstart.modalities.packaged import KINDS, installed_names
from headstart.modalities.reading import survey
from headstart.runs.job import AUTO, Job
from headstart.targets.target import check_searched

FILE = "search.json"
JOURNAL = "trials.jsonl"  # of a search over settings, which processes share
KEPT = "checkpoint-backbone-{key}.json"  # in a run's folder until the run ends
SEARCHED, FEATURES = (
    0.2,
    0.3,
)  # shares of a time budget for the search, and for a network's features


def search(
    data: Dataset,
    plan: SearchPlan,
    context: RunContext,
    *,
    checks: CheckPlan | None = None,
    out: Path | None = None,
) -> BackboneSearch:
    """Compare backbones on a sample of the readable rows, copies and groups held out together.

    The test part that the data names, if it names one, is left out.

    out: a new folder for `search.json`. Raises PlaceError if there is a search in it already,
    SpecError without any backbone for this kind of examples.
    """
    if out is not None and any((out / name).exists() for name in (FILE, JOURNAL)):
        raise PlaceError(f"{out} holds a search, which is never written over: name another --out.")
    names = plan.backbones or usual_names(data)
    rows, checked = checked_rows(data, context, checks)
    found = search_backbones(outside_named_test(rows), names, plan, context)
    found = replace(found, unread=unexpected(checked.left_out))
    if out is not None:
        make_folder(out)
        write_json(out / FILE, found.to_plain())
    return found


def usual_names(data: Dataset) -> tuple[str, ...]:
    """Return the packaged backbones that are installed for this kind of examples."""
    kind = data.input.kind if data.input else "image"
    names = installed_names(kind)
    if not names:
        known = ", ".join(f"packaged:{id}" for id in KINDS[kind].PACKAGED) if kind in KINDS else ""
        raise SpecError(
            f"No packaged network for {data.noun} is installed{f' (of {known})' if known else ''}: "
            f"name networks with --backbones. `headstart backbones` says how each is installed."
        )
    return names


def checked_rows(
    data: Dataset, context: RunContext, plan: CheckPlan | None = None
) -> tuple[Dataset, Checks]:
    """Return the readable rows, whose groups hold copies and near copies together, and the checks.

    Raises the errors that training would raise about the data.
    """
    check_searched(data.target)
    threads, listener = context.runtime.decode_threads, context.listener
    progress = partial(listener.progress, "checks")
    seen = survey(data, store=context.store, threads=threads, progress=progress)
    found = check(data, seen, threads=threads)
    return grouped(good_rows(data, seen, plan), found.together), found


def outside_named_test(rows: Dataset) -> Dataset:
    """Return the rows outside the test part that the data names, and outside its groups."""
    named = [part == "test" for part in rows.parts]
    groups = {rows.groups[row] for row in np.flatnonzero(named) if rows.groups} - {""}
    kept = [
        row
        for row in range(len(rows))
        if not (named and named[row]) and not (rows.groups and rows.groups[row] in groups)
    ]
    return rows if len(kept) == len(rows) else rows.take(kept)


# ------------------------------------------------------------ --backbone auto
@dataclass(frozen=True, eq=False)
class ChosenStart:
    """The job of a run with its backbone named, the data with its parts, and what was tried."""

    job: Job
    data: Dataset
    search: BackboneSearch | None = None


def with_backbone(job: Job, data: Dataset, out: Path, listener: Listener) -> ChosenStart:
    """Return a run's job with the backbone that `auto` comes to; other jobs as they are.

    The backbones are compared on rows of training and validation alone. So the split is made here,
    near duplicates kept together, and the run keeps it. A stopped run finds its choice in `out`, in
    a file named by all that decides the search: other rows or settings are searched anew.
    """
    if job.backbone != AUTO:
        return ChosenStart(job, data)
    context = RunContext(job.store, job.runtime.resolved(), listener)
    rows, found = checked_rows(data, context, job.checks)
    parts = split(found.dataset, job.split, together=found.together)
    outside = _rows_of(rows, parts)
    path = out / KEPT.format(key=_key(job, outside))
    if path.exists():
        compared = read_value(path, BackboneSearch)
    else:
        compared = compare_outside_test(job, outside, context)
        write_json(path, compared.to_plain())
    listener.stage("backbone", f"{compared.chosen}, chosen by `headstart search`: {compared.why}")
    return ChosenStart(replace(job, backbone=compared.chosen), in_parts(data, parts), compared)


def _key(job: Job, rows: Dataset) -> str:
    """Return the fingerprint of all that decides a run's search. rows: outside the test part."""
    recipe, limited = job.recipe, job.budget_s > 0
    prepared = recipe.seed, recipe.size, recipe.fit, recipe.draft
    return fingerprint(rows.decisive, rows.groups, to_plain(job.target), prepared, limited)


def compare_outside_test(job: Job, rows: Dataset, context: RunContext) -> BackboneSearch:
    """Compare the usual backbones on rows that are not in the test part, as far as a time budget
    goes."""
    plan, limit = SearchPlan(seed=job.recipe.seed), limit_of(job.budget_s, len(rows))
    return search_backbones(rows, usual_names(rows), plan, context, job.recipe, limit)


def limit_of(budget: float, rows: int) -> SearchLimit:
    """Return what a run with a time budget in seconds has for its search; 0 for no budget.

    >>> limit_of(600, 2000)
    SearchLimit(seconds=120.0, ms=90.0)
    """
    if not budget:
        return SearchLimit()
    return SearchLimit(SEARCHED * budget, 1000 * FEATURES * budget / max(1, rows))


def in_parts(data: Dataset, splits: Splits) -> Dataset:
    """Return the data with the part of each row of `splits`; other rows keep what they name."""
    part_of = {id: part for part in PARTS for id in getattr(splits, part).ids}
    own = data.parts or ("",) * len(data)
    named = (part_of.get(id, part) for id, part in zip(data.ids, own, strict=True))
    return replace(data, parts=tuple(named))


def _rows_of(rows: Dataset, splits: Splits) -> Dataset:
    """Return the rows of training and validation."""
    wanted = {*splits.train.ids, *splits.val.ids}
    return rows.take(_places(rows.ids, wanted))


def _places(ids: Sequence[str], wanted: set[str]) -> list[int]:
    return [row for row, id in enumerate(ids) if id in wanted]
