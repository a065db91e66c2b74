"""The main job, from data to bundle: train a head, fine-tune, keep the better model.

Each file is written atomically as soon as its content is known. An interrupted run continues in
its folder: features come from the store, training from checkpoints.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone
from headstart.backbones.inputs import Input, check_kind
from headstart.base.atomic import write_json, write_text
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.base.notebook import html_table
from headstart.base.ranks import ALONE, Ranks, several_asked
from headstart.base.runtime import keep_memory, machine, peak_rss_bytes
from headstart.base.signals import interrupted_with
from headstart.base.threads import Ahead
from headstart.base.values import Settings
from headstart.data.checks import Checks, check, good_rows, with_parts
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.folds import RunParts
from headstart.data.splits import Splits
from headstart.data.survey import Survey
from headstart.evaluation.budget import AFTER_TEST_S
from headstart.evaluation.evaluation import (
    Estimate,
    Evaluation,
    compare,
    decimals,
    evaluate,
)
from headstart.evaluation.few_shots import FewShots
from headstart.evaluation.insights import Insights
from headstart.evaluation.judged import ConformalSets, coverage_of, limit_effects
from headstart.evaluation.view_search import ViewSearch
from headstart.features.extract import FeatureTable
from headstart.heads.families import check_supports
from headstart.modalities.reading import survey
from headstart.models.bundle import save, versions
from headstart.models.fitting import two_phases
from headstart.models.fitting_limits import limited_result
from headstart.models.model import Model
from headstart.models.results import Candidate, Candidates, FitResult, best_of
from headstart.models.viewing import has_test_views
from headstart.models.wording import counted, data_message, limits_message
from headstart.reporting.page import write_report
from headstart.reporting.run_files import (
    FoldEvaluation,
    KeptStrategy,
    RunEvaluation,
    RunRecipe,
    Timings,
    WeightsOrigin,
)
from headstart.runs.budgeting import budgeted, deadline_of, settled
from headstart.runs.changes import choose_changes
from headstart.runs.folder import (
    CHECKPOINTS,
    LAST,
    changed_files,
    claimed,
    first_few,
    history_csv,
    recorded_digests,
    splits_csv,
)
from headstart.runs.folds import CrossValidation, FoldSteps, cross_validate, judged_message
from headstart.runs.insights import (
    Budget,
    Sources,
    TestedRun,
    explain_run,
    insights_of,
    optional,
)
from headstart.runs.job import Job
from headstart.runs.provenance import data_digest
from headstart.runs.search import with_backbone
from headstart.runs.shots import with_best_head
from headstart.runs.stages import (
    LearnedRun,
    PreparedRun,
    RunState,
    baselines,
    prepared,
    train_scratch,
    with_cut,
)
from headstart.targets.classes import ClassTarget
from headstart.targets.plan import TargetPlan
from headstart.targets.predictions import Predictions, write_predictions
from headstart.targets.target import POOLED
from headstart.training.history import Count, History, read_history

INSIGHTS = 0.6  # share of what a deadline leaves for insights; the rest is for explanations


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A finished run. kept: the saved candidate: head, finetune, soup, ensemble or scratch.
    candidates: the evaluation of each on validation. counts: the parameters of each. gain:
    validation accuracy of the kept candidate minus that of the other one. baselines: the evaluation
    of each on test. beaten_by: the names of those that are better than the kept model on test.
    conformal: how often the intervals or sets of its predictions hold the label, on test.
    folds: of a cross-validated run, whose evaluation on test is of all rows, each judged by the
    model of its fold. few_shots: of heads on a few examples of each class, with `shots=K`.
    view_search: the changes that were tried, with `augment="auto"`.

    >>> run = hs.train("photos", "runs/flowers")  # doctest: +SKIP
    >>> run.evaluation.accuracy, run.model, run.folder / "report.html"  # doctest: +SKIP
    """

    folder: Path
    splits: Splits
    checks: Checks
    fitted: FitResult
    kept: str
    candidates: dict[str, Evaluation]
    counts: dict[str, Count]
    gain: Estimate | None
    evaluations: dict[str, Evaluation]  # by part: "test" and "val"
    baselines: dict[str, Evaluation]
    timings: Timings
    left_out: tuple[LeftOut, ...]
    conformal: ConformalSets | None = None
    beaten_by: tuple[str, ...] = ()
    folds: tuple[FoldEvaluation, ...] = ()
    few_shots: FewShots | None = None
    view_search: ViewSearch | None = None

    def __repr__(self) -> str:
        where = f"in {len(self.folds)}-fold cross-validation" if self.folds else "on test"
        return f"Run({str(self.folder)!r}, {self.kept}: {self.evaluation.main} {where})"

    def _repr_html_(self) -> str:
        page = self.folder / "report.html"
        return html_table([(repr(self), str(page))]) + self.evaluation._repr_html_()

    @property
    def model(self) -> Model:
        """The kept model."""
        return self.fitted.model

    @property
    def history(self) -> History:
        """The epochs of all phases in turn."""
        return History(read_history(self.folder / "history.csv"))

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation of the kept model on the test rows, or by cross-validation."""
        return self.evaluations["test"]


def train(
    data: Dataset,
    out: Path,
    job: Job | None = None,
    listener: Listener | None = None,
    *,
    began: float | None = None,
    ranks: Ranks = ALONE,
) -> Run:
    """Check, split, train, evaluate and save into folder `out`: all of `headstart train`.

    began: from when on a time budget counts, on the monotonic clock; None for now. ranks: the
    processes that fine-tune together, of which this is the first.
    Raises SpecError if `out` holds a finished run or other files, DataError for unusable data,
    Diverged if training diverges. Results computed before an error are kept and reused.
    """
    if several_asked() and not ranks.several:
        raise SpecError(
            "torchrun divides the work of a command among its processes, not that of a function: "
            "type torchrun … -m headstart train …"
        )
    listener = listener or Listener()
    job = (job or Job()).for_data(data, listener)
    if ranks.several and data.target.takes != POOLED:
        raise SpecError(
            f"Training on {data.target.noun} is by one process: type headstart train without "
            f"torchrun."
        )
    deadline = deadline_of(job, began, listener)
    with claimed(out, resume=job.resume) as finish, interrupted_with(deadline.end):
        keep_memory()
        start = with_backbone(job, data, out, listener)
        data, state = start.data, RunState.begin(out, start.job, listener, deadline)
        state.search = start.search
        state.context = replace(state.context, ranks=ranks)
        learned, judged = learn(state, data)
        state.context = replace(state.context, ranks=ALONE)  # baselines are trained by this one
        ranks.end()
        rows = learned.checks.dataset
        sources: Sources = dict(zip(data.ids, data.sources, strict=True))
        checked = dict(zip(rows.ids, rows.files, strict=True))
        return _finish(state, learned, judged, {**sources, **checked}, finish)


def learn(state: RunState, data: Dataset) -> tuple[LearnedRun, CrossValidation | None]:
    """Check and split the data, judge the folds, if there are any, and train the candidates."""
    threads = state.context.runtime.decode_threads
    look = partial(survey, data, store=state.job.store, threads=threads)
    with Ahead(lambda progress: look(progress=progress)) as seen:  # while the network is loaded
        with state.clock("backbone"):
            run = prepared(state, data)
        card = run.start.backbone.card
        check_kind(card.input, data.input, card.name)
        with state.clock("checks"):
            checks = _checked(state, data, card.input, seen)
    rows, table = checks.dataset, None
    plan = budgeted(state, run, state.job.parts(rows, checks.exact))
    run = plan.run if plan else run
    if state.job.strategy != "scratch":
        with state.clock("features"):
            run = with_cut(state, run, rows)
            table = state.extracted(run.start.backbone, rows, run.start.tap)
        checks = checks.confirmed(table.x)
        run = replace(run, start=replace(run.start, table=table))
    parts = _split(state, checks)
    run = settled(state, replace(plan, run=run)) if plan else run
    choose_changes(state, run, parts.whole)
    judged = cross_validate(state, run, checks, parts, _STEPS) if parts.folds else None
    few: FewShots | None = None
    if parts.draws and table is not None:
        state, few = with_best_head(state, table, parts)
    fitted = _fit(state, run, parts.whole)
    read = table if state.job.recipe.head.takes == POOLED else None  # by the head
    return LearnedRun(run, parts.whole, checks, fitted, read, few), judged


def _fit(state: RunState, run: PreparedRun, splits: Splits) -> Candidates:
    """Train the candidates on these parts."""
    start = run.start
    if state.job.strategy == "scratch":
        assert isinstance(start.backbone, Backbone)
        return train_scratch(state, start.backbone, splits)
    return state.add(two_phases(state.job.spec, start.backbone, splits, state.context, start))


def _finish(
    state: RunState,
    learned: LearnedRun,
    judged: CrossValidation | None,
    sources: Sources,
    finish: Callable[[], None],
) -> Run:
    """Evaluate the kept candidate on the test rows (read only here), save it and write the report.

    judged: the answers of the folds' models, which are evaluated instead.
    finish: called once the model and its metrics are written, so that no failure of the insights,
    the explanations or the report (even a crash of the process) loses the run.
    """
    splits, candidates = learned.splits, learned.fitted.made
    on_val = {
        name: evaluate(c.val, groups=_units_of_boxes(splits, c.val))
        for name, c in candidates.items()
    }
    _tell_kept(state, learned, on_val)
    gain = _gain(learned.fitted)
    write_text(state.out / "history.csv", history_csv(learned.fitted.history))
    with state.clock("trust"):
        learned = _with_limits(state, learned)
    fitted = learned.shipped
    tested = _of_folds(learned, judged) if judged else _tested(state, learned)
    test, others, limits = tested.test, tested.baselines, fitted.model.limits
    conformal = coverage_of(limits.alpha, limits, test, tested.effects()) if limits.alpha else None
    folds = judged.evaluations if judged else ()
    if judged:
        message = judged_message(folds, splits, refit=fitted.before is not None)
        state.tell("judged", message.removeprefix("judged "))
    evaluation = _evaluated(learned, on_val, test, others, folds)
    write_json(state.out / "evaluation.json", evaluation.to_plain())
    if about := write_predictions(test, state.out, judged.folds if judged else ())[1]:
        state.tell("predictions", about)
    recipe = _recipe(state.job, learned, gain)
    recipe = replace(recipe, backbone_search=state.search, view_search=state.view_search)
    if state.context.deadline.active:  # it may have left the refit out
        recipe = replace(recipe, refit=fitted.before is not None)
    write_json(state.out / "recipe.json", recipe.to_plain())
    with state.clock("save"):
        shipped = _saved(state, fitted.model, recipe)
    write_json(state.out / LAST, _timings(state).to_plain())
    finish()
    if state.job.insights != "none":
        _look_inside(state, tested, shipped, sources)
    timings = _timings(state)
    with optional(state, "timings"):
        write_json(state.out / LAST, timings.to_plain())
    with optional(state, "report", "not written", " `headstart report` makes it later."):
        progress = partial(state.context.listener.progress, "report")
        write_report(state.out, sources, state.job.language, progress=progress)
    return Run(
        folder=state.out,
        splits=splits,
        checks=learned.checks,
        fitted=fitted,
        kept=evaluation.kept,
        candidates=on_val,
        counts={name: c.fitted.count for name, c in candidates.items()},
        gain=gain,
        evaluations=evaluation.parts,
        baselines=evaluation.baselines_on_test,
        timings=timings,
        left_out=(*learned.checks.left_out, *splits.left_out),
        conformal=conformal,
        beaten_by=_better(test, others),
        folds=folds,
        few_shots=learned.few_shots,
        view_search=state.view_search,
    )


def _tested(state: RunState, learned: LearnedRun) -> TestedRun:
    """Return the predictions of the test rows by the kept model and by the baselines."""
    model = learned.shipped.model
    with state.clock("evaluation"):
        table = _of_shipped(state, learned, learned.splits.test, "evaluation")
        test = model.predict_table(table)
    state.context.deadline.evaluated(AFTER_TEST_S)
    others = baselines(state, learned.prepared.baseline, learned.splits)
    effects = cache(partial(limit_effects, model.limits, test, table.x))
    return TestedRun(learned, test, effects, others)


def _of_folds(learned: LearnedRun, judged: CrossValidation) -> TestedRun:
    """Return the answers of the folds' models as the run's test predictions."""
    target = learned.shipped.model.target
    unscaled = judged.unscaled if target.kind == ClassTarget.kind else None
    answers = judged.predictions(target), lambda: judged.effects, judged.baselines(target)
    return TestedRun(learned, *answers, unscaled)


def _saved(state: RunState, model: Model, recipe: RunRecipe) -> Model:
    """Write the bundle; return its model, which runs without PyTorch."""
    progress = partial(state.context.listener.progress, "save")
    made_by = {**recipe.strategy.to_plain(), "provenance": state.made.lasting()}
    return save(model, state.out / "model", told=made_by, progress=progress).model


def _look_inside(state: RunState, tested: TestedRun, shipped: Model, sources: Sources) -> None:
    """Write insights.json and explained.json, as far as their budget goes."""
    taken, deadline = sum(state.clock.seconds.values()), state.context.deadline
    budget = Budget.after(taken, state.job.insights, deadline)
    with state.clock("insights"):
        insights = Insights()
        with optional(state, "insights"):
            own = budget.part(INSIGHTS) if deadline.active else budget
            insights = insights_of(state, tested, own)
        with optional(state, "insights"):
            write_json(state.out / "insights.json", insights.to_plain())
    with state.clock("explained"), optional(state, "explained"):
        explain_run(state, shipped, sources, budget)


def _better(test: Predictions, others: Mapping[str, Predictions]) -> tuple[str, ...]:
    """Return the names of the baselines that are better than the model on the test rows."""
    if not test.known.all():
        return ()
    own = test.target.row_scores(test.outputs, test.labels).mean()
    scores = {n: p.target.row_scores(p.outputs, p.labels).mean() for n, p in others.items()}
    return tuple(name for name, score in scores.items() if score > own)


def _of_shipped(state: RunState, learned: LearnedRun, data: Dataset, stage: str) -> FeatureTable:
    """Return the shipped model's features of `data`."""
    return _features(state, learned, learned.shipped.model, data, stage)


def _features(
    state: RunState, learned: LearnedRun, model: Model, data: Dataset, stage: str
) -> FeatureTable:
    """Return a model's features of `data`; for a head, these were extracted earlier, but for means
    over test-time views."""
    if learned.fitted.kept == "head" and learned.table is not None and not has_test_views(model):
        return learned.table.of(data)
    return state.features(model, data, stage)


def _with_limits(state: RunState, learned: LearnedRun) -> LearnedRun:
    """Return `learned` with the limits of the kept model, and of its refit if there is one."""
    plan, kept, fitted = state.job.trust, learned.kept, learned.fitted

    def features(model: Model, data: Dataset) -> FeatureTable:
        return _features(state, learned, model, data, "trust")

    found = limited_result(learned.shipped, plan, learned.splits, kept.table, features)
    first = found.before or found
    noun = found.model.backbone.card.input.noun
    if found.model.target.takes == POOLED:  # what limits are found on
        state.tell("trust", limits_message(plan, found.model.limits, noun, learned.judged_rows))
    made = {**fitted.made, fitted.kept: replace(kept, fitted=first)}
    again = found if found.before else None
    return replace(learned, fitted=replace(fitted, made=made, refit=again))


_STEPS = FoldSteps(_fit, _with_limits, partial(_of_shipped, stage="evaluation"))


def _checked(state: RunState, data: Dataset, input: Input[Any], seen: Ahead[Survey]) -> Checks:
    """Check the data, write checks.json, and only then raise errors about it.

    input: of the backbone, whose parts of long examples are counted. seen: what is in the files.
    """
    state.tell("checks", f"looking at {len(data):,} {data.noun}")
    threads = state.context.runtime.decode_threads
    surveyed = seen.result(partial(state.context.listener.progress, "checks"))
    checks = check(data, surveyed, threads=threads)
    progress = partial(state.context.listener.progress, "parts")
    checks = with_parts(checks, input, store=state.job.store, threads=threads, progress=progress)
    write_json(state.out / "checks.json", checks.findings.to_plain())
    if checks.warning:
        state.tell("warning", checks.warning)
    rows = good_rows(data, surveyed, state.job.checks)
    check_supports(state.job.recipe.head, rows.target)
    state.job.trust.check_supports(rows.target)
    state.job.parts(rows, checks.exact)  # raises before any feature is computed
    if data.choice:
        state.tell("target", data.choice)
    state.tell("data", data_message(rows))
    state.made = replace(state.made, rows=len(rows), data_sha256=data_digest(rows))
    return checks


def _split(state: RunState, checks: Checks) -> RunParts:
    rows = checks.dataset
    with state.clock("split"):
        _refuse_changed(state, rows)
        parts = state.job.parts(rows, checks.together)
        write_json(state.out / "checks.json", checks.findings.to_plain())
        write_text(state.out / "splits.csv", splits_csv(rows, parts.recorded, parts.fold_of))
    folds = f"{len(parts.folds)} folds; of the saved model: " if parts.folds else ""
    state.tell("split", folds + counted(parts.recorded))
    return parts


def _refuse_changed(state: RunState, rows: Dataset) -> None:
    """Raise SpecError if pictures changed since the training that the run would continue.

    Without a checkpoint and without --resume, training starts over and changes are harmless.
    """
    out = state.out
    if not (state.job.resume or any(out.glob(CHECKPOINTS + ".safetensors"))):
        return
    now = dict(zip(rows.ids, (content.file for content in rows.contents), strict=True))
    if changed := changed_files(recorded_digests(out), now):
        raise SpecError(
            f"A run goes on with the {rows.examples} that it began with, but {len(changed):,} are "
            f"not what they were when {out} was begun: {first_few(changed)}. Put them back as they "
            f"were, or name another --out."
        )


def _tell_kept(state: RunState, learned: LearnedRun, on_val: Mapping[str, Evaluation]) -> None:
    """Report which of several candidates is saved, and why."""
    made, kept = learned.fitted.made, learned.fitted.kept
    if len(made) > 1:
        name = learned.splits.train.target.merit_name
        shown = ", ".join(f"{n} {_merit(name, c, on_val[n])}" for n, c in made.items())
        why = _why_kept(state.job, kept, best_of(made), len(learned.splits.val))
        state.tell("kept", f"{kept} ({name.replace('_', ' ')} on validation: {shown}){why}")


def _merit(name: str, candidate: Candidate, on_val: Evaluation) -> str:
    """Return the metric by which a candidate was chosen; its sort key if that is no metric."""
    metric = on_val.metrics.get(name)
    if metric is None or on_val.classes:
        return f"{candidate.merit[0]:.3f}"
    return f"{metric.value:.{decimals([metric.value])}f}"


def _why_kept(job: Job, kept: str, best: str, rows: int) -> str:
    """Return the reason for keeping a candidate although another was better; else "".

    rows: of validation.
    """
    if kept == best:
        return ""
    if job.strategy == "auto":
        return f"; the {best} was better by no more than the error of {rows:,} rows of validation"
    why = f"; the {best} was better, but strategy {job.strategy} was asked for, by flag or recipe"
    if job.finetune.adversarial:
        return why
    return f"{why}: --strategy auto keeps the better one"


def _gain(fitted: Candidates) -> Estimate | None:
    """Compare the kept candidate with the other on validation; None without another."""
    others = [c.val for name, c in fitted.made.items() if name != fitted.kept]
    if not others or not len(others[0]):
        return None
    return compare(fitted.made[fitted.kept].val, others[0])


def _evaluated(
    learned: LearnedRun,
    on_val: dict[str, Evaluation],
    test: Predictions,
    baselines: Mapping[str, Predictions],
    folds: tuple[FoldEvaluation, ...] = (),
) -> RunEvaluation:
    """Evaluate the kept candidate on test and validation, and the baseline on test.

    on_val: of the candidates before limits were fitted. folds: whose predictions `test` are.
    """

    def judged(some: Predictions, folds: bool = False) -> Evaluation:
        target, groups = learned.shipped.model.target, _units_of_boxes(learned.splits, some)
        return evaluate(some, fitted=target, groups=groups, folds=folds)

    return RunEvaluation(
        test=judged(test, folds=bool(folds)),
        val=judged(learned.kept.val),
        kept=learned.fitted.kept,
        candidates_on_val=on_val,
        baselines_on_test={name: judged(p) for name, p in baselines.items()},
        folds=folds,
        few_shots=learned.few_shots,
    )


def _units_of_boxes(splits: Splits, predictions: Predictions) -> tuple[str, ...]:
    """Return a name for each row with boxes; () for other targets, most of whose figures have no
    bootstrap over groups. Rows of a group, and copies, which the split kept together, share it."""
    return splits.groups_of(predictions.ids) if predictions.target.listing else ()


def _recipe(job: Job, learned: LearnedRun, gain: Estimate | None) -> RunRecipe:
    """Return all choices, "auto" resolved, and the versions; nothing that depends on the time."""
    backbone, candidates = learned.prepared.start.backbone, learned.fitted.made
    return RunRecipe(
        data=job.source,
        data_licence=job.data_licence,
        backbone=job.backbone,
        weights=WeightsOrigin(job.weights, backbone.card.origin, backbone.fingerprint()),
        strategy=KeptStrategy(
            job.strategy, learned.fitted.kept, gain, learned.fitted.refit is not None
        ),
        target=Settings.of(job.target) if job.target != TargetPlan() else None,
        recipe=Settings.of(job.recipe.resolved(backbone)),
        finetune=None if job.strategy == "extract" else Settings.of(learned.prepared.settings),
        augment=Settings.of(job.augment),
        trust=Settings.of(job.trust),
        tta=job.tta,
        baseline=job.baseline,
        chosen={name: Settings.of(c.fitted.chosen) for name, c in candidates.items()},
        tried=tuple(Settings.of(trial) for c in candidates.values() for trial in c.fitted.path),
        split=Settings.of(job.split),
        checks=Settings.of(job.checks),
        seed=job.split.seed,
        folds=job.folds,
        shots=job.shots,
        draws=job.draws,
        head_named=bool(job.shots) and "head" in job.given and job.recipe.head.family == "logistic",
        members=job.members,
        language=job.language,
        insights=job.insights,
        refit=job.refit,
        budget=job.budget_s,
        device=job.runtime.resolved().device,
        phases={name: c.fitted.count for name, c in candidates.items()},
        versions={"python": sys.version.split()[0], **versions()},
    )


def _timings(state: RunState) -> Timings:
    seconds, tables = state.clock.seconds, state.tables
    fresh = [t for t in tables if t.forwards >= len(t) > 0 and t.seconds]  # none from the store
    largest = max(fresh, key=len, default=None)
    return Timings(
        seconds=dict(seconds),
        total_seconds=round(sum(seconds.values()), 3),
        examples_per_second=round(len(largest) / largest.seconds, 1) if largest else None,
        backbone_forwards=sum(t.forwards for t in tables),
        store_hits=sum(t.hits for t in tables),
        peak_rss_bytes=peak_rss_bytes(),
        machine=machine(),
        engine=next((t.engine for t in tables if t.engine is not None), None),
        plan=state.plan,
        made=state.made,
    )
