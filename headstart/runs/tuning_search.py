"""`headstart search --trials N`: try settings of fine-tuning on the rows of a run's training and
validation."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.base.atomic import make_folder, write_json
from headstart.base.context import RunContext
from headstart.base.errors import MissingPackage, PlaceError, SpecError
from headstart.base.runtime import installed
from headstart.base.values import Settings, fingerprint, to_plain
from headstart.data.checks import Checks, check, good_rows
from headstart.data.dataset import Dataset, LeftOut, unexpected
from headstart.data.splits import split
from headstart.evaluation.tuning_search import TrialPlan, TriedSettings, TuningSearch
from headstart.evaluation.tuning_space import Setting, TuningSpace, tuned_by
from headstart.heads.families import check_supports
from headstart.modalities.reading import survey
from headstart.modalities.sources import load_backbone
from headstart.models.training_data import table_of
from headstart.runs.job import AUTO, Job
from headstart.runs.search import FILE, JOURNAL
from headstart.targets.plan import TargetPlan
from headstart.targets.target import check_searched

if TYPE_CHECKING:
    from headstart.evaluation.tuning_trial import TuningTrials
    from headstart.runs.tuning_study import Study

BEST = "best.json"


def search_settings(
    data: Dataset, plan: TrialPlan, space: TuningSpace, job: Job, out: Path, context: RunContext
) -> TuningSearch:
    """Try settings of fine-tuning until folder `out` holds `plan.trials` finished trials.

    job: of the run that the settings are for; it is split as that run. Test rows are not read.
    Trials that other processes are at are not waited for. Raises PlaceError for a folder that holds
    anything else, SpecError for a search over other data, rows, layers or settings and for a target
    that is not searched, MissingPackage.
    """
    check_searched(data.target)
    check_installed()
    check_place(out)
    job = _job_of(plan, job).for_data(data, context.listener)
    trials, left_out = _prepared(data, job, context)
    smooths, blocks = trials.smooths, len(trials.backbone.blocks)
    dimensions = space.dimensions(blocks, smooths=smooths)
    fixed = space.fixed(smooths=smooths)
    if not dimensions:
        raise SpecError("A search has a setting with two values or more: give one a range.")
    told = [*map(str, dimensions), *(f"{name} {value:g}" for name, value in fixed.items())]
    context.listener.stage("space", "; ".join(told))
    from headstart.runs.tuning_study import Study, at_work

    make_folder(out)
    with at_work(out) as worker:
        study = Study(out, dimensions, plan.seed, worker)
        study.begin(_asked(trials, job, [list(d.values) for d in dimensions], fixed))
        _try_all(study, trials, plan, fixed)
        found = TuningSearch(
            backbone=job.backbone,
            merit_name=trials.target.merit_name,
            train=len(trials.splits.train),
            val=len(trials.splits.val),
            seed=plan.seed,
            head=study.remembered("head", trials.head_merit),
            searched=tuple(d.name for d in dimensions),
            tried=study.tried(),
            running=study.running(),
            others=_others(job),
            left_out=left_out,
        )
    write_json(out / FILE, found.to_plain())
    if found.best:
        write_json(out / BEST, found.config())
    return found


def check_installed() -> None:
    """Raise MissingPackage unless all that trials need is installed."""
    for package in ("torch", "optuna"):
        if not installed(package):
            raise MissingPackage(package, purpose="search --trials", extra="search")


def check_place(out: Path) -> None:
    """Raise PlaceError for a folder that holds anything but such a search."""
    if out.exists() and not out.is_dir():
        raise PlaceError(f"{out} is a file: name another --out.")
    others = [p.name for p in out.iterdir() if not p.name.startswith(".")] if out.exists() else []
    if others and JOURNAL not in others:
        raise PlaceError(
            f"{out} holds other files ({min(others)}), and trials go into a new folder, or into "
            f"that of a search to go on with: name another --out."
        )


def _job_of(plan: TrialPlan, job: Job) -> Job:
    """Return the job with the backbone and the seed of the plan; fine-tuning is what it is for."""
    if plan.backbone == AUTO:
        raise SpecError(
            "Trials are of one backbone: name it. `headstart search DATA` compares them."
        )
    seeded = ("recipe", "finetune", "split")
    seeds: dict[str, Any] = {n: replace(getattr(job, n), seed=plan.seed) for n in seeded}
    return replace(job, backbone=plan.backbone, strategy="finetune", **seeds)


def _prepared(
    data: Dataset, job: Job, context: RunContext
) -> "tuple[TuningTrials, tuple[LeftOut, ...]]":
    """Check and split the data as a run of the job does, and load its backbone; return what the
    trials are given, and the files of the data that were not used."""
    from headstart.evaluation.tuning_trial import TuningTrials

    backbone = job.recipe.prepared(load_backbone(job.backbone, weights=job.weights))
    threads, listener = context.runtime.decode_threads, context.listener
    seen = survey(data, store=context.store, threads=threads)
    found = check(data, seen, threads=threads)
    rows = good_rows(data, seen, job.checks)
    check_supports(job.recipe.head, rows.target)
    together = _confirmed(found, backbone, context).together
    parts = split(found.dataset, job.split, together=together).fitted()
    counts = f"train {len(parts.train):,}, val {len(parts.val):,}"
    listener.stage("split", f"{counts}; the test rows are not read")
    parts = replace(parts, test=parts.test.take([]))
    return TuningTrials(job.spec, backbone, parts, context), unexpected(found.left_out)


def _confirmed(found: Checks, backbone: Backbone, context: RunContext) -> Checks:
    """Return the checks with the near duplicates that a run finds; reads their rows alone."""
    rows = sorted({row for pair in found.near for row in (pair.a, pair.b)})
    if not rows:
        return found
    table = table_of(backbone, found.dataset.take(rows), context)
    features = np.zeros((len(found.dataset), table.x.shape[1]), np.float32)
    features[rows] = table.x
    return found.confirmed(features)


def _asked(
    trials: "TuningTrials", job: Job, ranges: list[list[Setting]], fixed: Mapping[str, Setting]
) -> dict[str, Any]:
    """Return all that decides the results of trials, by the words of a message."""
    rows = [  # not `Dataset.decisive`: searches of earlier versions keep their fingerprint
        (p.ids, p.labels, [content.file for content in p.contents], *p.counting)
        for p in (trials.splits.train, trials.splits.val)
    ]
    spec = [to_plain(part) for part in (job.recipe, job.finetune, job.split)]
    own = trials.target.learning_key if job.target == TargetPlan() else ()  # of data read before
    return {
        "data": fingerprint(rows, to_plain(job.target), *own),
        "a backbone": f"{job.backbone} {trials.backbone.fingerprint()}",
        "settings": fingerprint(spec, ranges, dict(fixed)),
    }


def _try_all(
    study: "Study", trials: "TuningTrials", plan: TrialPlan, fixed: Mapping[str, Setting]
) -> None:
    """Take trials until all are finished or in work."""
    from headstart.evaluation.tuning_trial import usual_settings

    listener, usual = trials.context.listener, usual_settings(trials)
    asked = trials.context.runtime.compute_precision
    while taken := study.take(plan.trials, usual):
        settings = {**usual, **fixed, **taken.drawn}
        chosen = study.precision() if asked == "auto" else None
        spec = replace(tuned_by(settings, trials.usual), cut_precision="auto")
        result = trials.attempt(spec, taken.prune, chosen or asked)  # type: ignore[arg-type]
        study.finish(taken, settings, result)
        told = TriedSettings(
            taken.number, result.state, settings, result.seconds, result.merit, loss=result.loss
        )
        listener.stage("trial", _message(told, plan, taken.drawn, trials.target.merit_name))


def _message(
    told: TriedSettings, plan: TrialPlan, drawn: Mapping[str, Setting], merit_name: str
) -> str:
    """Return a line about a finished trial."""
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in drawn.items())
    merit = merit_name.replace("_", " ")
    what = told.state if told.merit is None else f"{merit} {told.merit:.3f} on validation"
    return f"{told.number} ({plan.trials} in all): {what}, {told.seconds:.1f} s ({shown})"


def _others(job: Job) -> dict[str, Any]:
    """Return what a run with the best settings has in common with the search, as a config."""
    own: dict[str, Any] = {"data": job.source} if job.source else {}
    if job.target != TargetPlan():
        own["target"] = Settings.of(job.target).values
    if job.checks != Job().checks:
        own["checks"] = Settings.of(job.checks).values
    return {**own, "recipe": {"seed": job.recipe.seed}, "split": Settings.of(job.split).values}
