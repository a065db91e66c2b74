"""Estimate the cost of a run without writing anything: `headstart train --dry-run`."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.data.checks import check, good_rows
from headstart.data.dataset import PARTS, Dataset, LeftOut
from headstart.data.splits import Splits
from headstart.evaluation.budget import BudgetPlan
from headstart.evaluation.view_search import ROWS, VIEWS
from headstart.features.extract import extract
from headstart.heads.families import check_supports
from headstart.modalities.images.augment import AutoViews
from headstart.modalities.reading import survey
from headstart.models.training_data import rows_at_cut, tap_for, viewed_input
from headstart.runs.budgeting import deadline_of, made_plan
from headstart.runs.folder import check_free
from headstart.runs.job import AUTO, Job
from headstart.runs.stages import PreparedRun, RunState, prepared

TIMED = 96  # pictures timed to estimate the time of all
FETCHED = ("timm", "keras")  # sources whose pretrained weights may have to be downloaded


@dataclass(frozen=True, eq=False, repr=False)
class Forecast:
    """The splits and the cost of a run. feature_bytes, cut_bytes: upper bounds on the stored
    features and activations at the cut. feature_seconds: upper bound on the time of the frozen
    layers; None if none are frozen. plan: of a run with a time budget."""

    splits: Splits
    left_out: tuple[LeftOut, ...] = ()
    feature_bytes: int = 0
    cut_bytes: int = 0
    feature_seconds: float | None = None
    plan: BudgetPlan | None = None

    def __repr__(self) -> str:
        parts = ", ".join(f"{part} {len(getattr(self.splits, part)):,}" for part in PARTS)
        seconds = f", frozen layers {self.feature_seconds:.1f} s" if self.feature_seconds else ""
        stored = (self.feature_bytes + self.cut_bytes) / 1e6
        return f"Forecast({parts}{seconds}, at most {stored:,.1f} MB stored)"


def forecast(data: Dataset, out: Path, job: Job, listener: Listener) -> Forecast:
    """Check and split the data, and time the frozen layers on a few pictures.

    Raises the errors of `train` up to the features. Weights that might need a download are
    replaced by random ones, which take the same time. Near duplicates are not confirmed by
    features here, so a few rows may be in another part than in the run.
    """
    check_free(out, job.resume)
    if job.backbone == AUTO:
        raise SpecError(
            "The cost of a run is that of its backbone, which --backbone auto finds by a search: "
            "name one. `headstart search DATA` compares them."
        )
    job = job.for_data(data, listener)
    if job.weights == "pretrained" and job.backbone.partition(":")[0] in FETCHED:
        job = replace(job, weights="random")
    state = RunState.begin(out, job, listener, deadline_of(job, None, listener))
    run = prepared(state, data)
    threads = state.context.runtime.decode_threads
    seen = survey(data, threads=threads, progress=partial(listener.progress, "checks"))
    checks = check(data, seen, threads=threads)
    rows = good_rows(data, seen, job.checks)
    check_supports(job.recipe.head, rows.target)
    parts = job.parts(rows, checks.together)
    splits = parts.recorded
    if job.budget_s:
        state.context = replace(state.context, store=None)
        plan, _, _ = made_plan(state, run, parts)
        state.plan = plan
    if job.strategy == "scratch":
        return Forecast(splits, checks.left_out, plan=state.plan)
    found = _of_features(state, run, rows, splits)
    return replace(found, left_out=checks.left_out, plan=state.plan)


def _of_features(state: RunState, run: PreparedRun, rows: Dataset, splits: Splits) -> Forecast:
    augment = state.job.augment
    views = len(splits.train) * augment.views if augment.active else 0
    judged = 0  # changed pictures of a search
    if isinstance(augment, AutoViews):
        tried = 2 * len(augment.changes) - 1  # alone, and added to others
        judged = min(ROWS, len(splits.train) + len(splits.val)) * VIEWS * tried
        augment = augment.together(tuple(augment.changes))
    input = viewed_input(run.start.backbone.card.input, state.job.tta, augment)
    averaged = len(rows) * input.test_views if input.test_views > 1 else 0
    count = len(rows) + views + averaged + judged
    tap, kept = None, 0
    backbone, thawed = run.start.backbone, run.start.thawed
    if run.start.levels is not None:
        kept, tap = len(rows), run.start.tap
    elif thawed is not None:
        kept = rows_at_cut(thawed, rows, state.context)
        tap = tap_for(run.settings, thawed, kept, augment, state.context)
    few = rows.take(range(min(TIMED, len(rows))))
    timer = _Timer()
    table = extract(backbone, few, runtime=state.context.runtime, listener=timer)
    each = timer.seconds_each or table.seconds / max(1, len(table))
    size = count * backbone.card.dim * 4  # float32
    stored = (kept + views) * tap.row_bytes if tap else 0
    return Forecast(splits, (), size, stored, each * count)


class _Timer(Listener):
    """Keeps the seconds per row, measured after the warm-up."""

    seconds_each = 0.0

    def expect(self, stage: str, rows: int, seconds: float) -> None:
        self.seconds_each = seconds / rows
