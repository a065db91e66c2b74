"""A run with a time budget: its plan, printed before the work, and its deadline."""

from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone
from headstart.base.atomic import write_json
from headstart.base.deadline import Deadline
from headstart.base.durations import spoken
from headstart.base.errors import HeadstartError, SpecError
from headstart.base.listener import Listener
from headstart.base.values import Settings, fingerprint, read_value
from headstart.data.folds import RunParts
from headstart.evaluation.budget import (
    LEAST_SIDE,
    Allowed,
    BudgetPlan,
    Paces,
    RunSize,
    planned,
)
from headstart.models.specs import FineTune
from headstart.models.training_data import Start, viewed_input
from headstart.runs.job import Job
from headstart.runs.pacing import measured
from headstart.runs.shots import heads_to_try
from headstart.runs.stages import PreparedRun, RunState, prepared

KEPT = "checkpoint-budget.json"  # in a run's folder until the run ends
ENDS = "training ends early, and the run with the best so far; Ctrl-C again stops at once"
ALONE = "the ensemble is left out: there is time for the head alone"


@dataclass(frozen=True, eq=False)
class Budgeted:
    """A prepared run that follows a plan, with the row counts and paces behind the plan.

    settled: whether the plan is final; else it is made again once the features are there.
    """

    run: PreparedRun
    plan: BudgetPlan
    size: RunSize
    paces: Paces
    settled: bool = False


def deadline_of(job: Job, began: float | None, listener: Listener) -> Deadline:
    """Return the deadline of a job, counted from `began` on the monotonic clock, or from now."""
    if not job.budget_s:
        return Deadline()

    def on_end() -> None:
        with suppress(RuntimeError):  # a signal in the middle of another line
            listener.stage("ending", ENDS)

    own = Deadline(job.budget_s, on_end=on_end)
    own.began = own.began if began is None else began
    return own


def budgeted(state: RunState, run: PreparedRun, parts: RunParts) -> Budgeted | None:
    """Make a plan of what fits into the budget, and adopt it; None without a budget.

    parts: of all rows, near duplicates not yet confirmed. A run that goes on with the same rows
    keeps its plan. Raises SpecError for a budget into which nothing fits.
    """
    if not state.job.budget_s:
        return None
    earlier = asked_of(state.job)  # as earlier versions wrote it, without the data
    rows = parts.recorded
    asked = fingerprint(earlier, [own.decisive for own in (rows.train, rows.val, rows.test)])
    if (plan := _recorded(state.out / KEPT, asked, earlier)) is not None:
        left = f"the budget of {spoken(state.job.budget_s)} counts from now"
        state.tell("plan", f"going on with {plan.choice.in_words}, as planned before; {left}")
        adopted = _adopted(state, run, plan)
        return Budgeted(adopted, plan, RunSize(len(parts.whole.train)), Paces(), settled=True)
    plan, size, paces = made_plan(state, run, parts)
    plan = replace(plan, asked=asked)
    return Budgeted(_adopted(state, run, plan), plan, size, paces)


def made_plan(
    state: RunState, run: PreparedRun, parts: RunParts
) -> tuple[BudgetPlan, RunSize, Paces]:
    """Measure a few rows, plan what fits and report it; return plan, row counts and paces.

    Raises SpecError for a budget into which nothing fits.
    """
    size = _size(state, run, parts)
    rows = parts.recorded.train_val if parts.draws else parts.whole.train
    state.tell("plan", f"measuring what fits into {spoken(state.job.budget_s)}")
    with state.clock("plan"):
        paces = measured(state, run, rows, size)
    paces = replace(paces, spent=state.context.deadline.spent)
    plan = planned(state.job.budget_s, size, paces, allowed_of(state.job, run))
    for line in (*plan.lines(), plan.tight):
        if line:
            state.tell("plan", line)
    return plan, size, paces


def settled(state: RunState, made: Budgeted) -> PreparedRun:
    """Return the run with the epochs that fit now that the features are there.

    The plan is written to the run's folder, so that a resumed run follows it.
    """
    if made.settled:
        return made.run
    plan = made.plan
    if plan.choice.epochs:
        paces = replace(made.paces, spent=state.context.deadline.spent)
        size, allowed = replace(made.size, extracted=True), allowed_of(state.original, made.run)
        with suppress(SpecError):  # nothing fits: the deadline ends what was planned
            plan = planned(plan.budget, size, paces, replace(allowed, side=0))
    plan = replace(plan, asked=made.plan.asked)
    write_json(state.out / KEPT, plan.to_plain())
    if plan.choice == made.plan.choice:
        return made.run
    state.tell("plan", f"after the features: {plan.choice.in_words}")
    run = _adopted(state, made.run, plan)
    state.plan = replace(made.plan, choice=plan.choice)
    return run


def allowed_of(job: Job, run: PreparedRun) -> Allowed:
    """Return the settings of a job that a plan may choose: those that its user left open."""
    tuned = job.finetune.epochs
    chosen = "epochs" in job.given or tuned != FineTune().epochs
    return Allowed(
        epochs=tuned if chosen else 0,
        head=job.strategy in ("auto", "extract"),
        tune=job.tunes,
        refit=job.refit,
        side=_side(job, run),
        insights=job.insights != "none",
        scratch=job.strategy == "scratch",
    )


def asked_of(job: Job) -> str:
    """Return a fingerprint of the settings that a plan changes or rests on."""
    own = {f.name: getattr(job, f.name) for f in fields(Job)}
    for name in (
        "budget",
        "given",
        "parent",
        "store",
        "runtime",
        "checkpoint_s",
        "resume",
        "language",
    ):
        del own[name]
    return fingerprint(Settings.of(own).values)


def _side(job: Job, run: PreparedRun) -> int:
    """Return the side of the pictures, in pixels, if a plan may make it smaller; else 0."""
    backbone = run.start.backbone
    own: Any = backbone.card.input
    if job.recipe.size or "size" in job.given or job.strategy not in ("auto", "extract"):
        return 0
    if not (side := int(getattr(own, "size", 0))) or not isinstance(backbone, Backbone):
        return 0
    try:
        replace(job.recipe, size=max(LEAST_SIDE, side // 2 // 32 * 32)).prepared(backbone)
    except HeadstartError:
        return 0
    return side


def _size(state: RunState, run: PreparedRun, parts: RunParts) -> RunSize:
    job, card, splits = state.job, run.start.backbone.card, parts.whole
    views, target = job.spec.views, splits.train.target
    named = "head" in job.given
    heads = len(heads_to_try(job.recipe.head, target, named=named)) if parts.draws else 0
    return RunSize(
        train=len(splits.train),
        val=len(splits.val),
        test=len(splits.test),
        others=len(parts.recorded.val) - len(splits.val),
        views=views.views if views.active else 0,
        test_views=viewed_input(card.input, job.tta, views).test_views,
        trainings=1 + job.folds,
        members=job.members,
        tried=heads * len(parts.draws),
        columns=card.dim * target.outputs,
    )


def _recorded(path: Path, *asked: str) -> BudgetPlan | None:
    """Return the plan of a run that goes on; None if there is none with such a fingerprint."""
    with suppress(OSError, SpecError):
        plan = read_value(path, BudgetPlan)
        if plan.asked in asked:
            return plan
    return None


def _adopted(state: RunState, run: PreparedRun, plan: BudgetPlan) -> PreparedRun:
    """Give a run the settings of a plan."""
    choice, job = plan.choice, state.job
    _leave_time(state.context.deadline, plan, folds=job.folds)
    state.plan = plan
    if choice.epochs:
        state.follow(replace(job, finetune=replace(job.finetune, epochs=choice.epochs)))
        settings = replace(run.settings, epochs=choice.epochs)
        start = replace(run.start, settings=settings if run.start.settings else None)
        return replace(run, start=start, settings=settings)
    if job.members > 1:
        state.tell("plan", ALONE)
    recipe = replace(job.recipe, size=choice.side or job.recipe.size)
    state.follow(replace(job, strategy="extract", recipe=recipe, members=1))
    if choice.side:
        return prepared(state)
    return replace(run, start=Start(run.start.backbone, table=run.start.table))


def _leave_time(deadline: Deadline, plan: BudgetPlan, *, folds: int) -> None:
    """Leave the time that a plan has for what follows training.

    With folds either all trainings are refitted or none, so that the folds judge models of the kind
    that is saved.
    """
    deadline.after, deadline.refit, deadline.baseline = plan.after, plan.again, plan.baseline
    deadline.refits = plan.choice.refit or not folds
