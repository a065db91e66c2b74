"""`headstart train DATA --lr-find`: test learning rates, and write nothing."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.context import RunContext
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.data.checks import check, good_rows
from headstart.data.dataset import Dataset, unexpected
from headstart.heads.families import check_supports
from headstart.modalities.images.augment import AutoViews
from headstart.modalities.reading import survey
from headstart.runs.job import AUTO, Job
from headstart.runs.stages import RunState, prepared
from headstart.targets.target import check_searched

if TYPE_CHECKING:
    from headstart.models.rate_test import RateTest


def check_alone(job: Job, others: Mapping[str, bool]) -> None:
    """Raise SpecError for what a test of rates does not do. others: further flags that were given,
    by name."""
    asked = {
        **others,
        "budget": bool(job.budget_s),
        "resume": job.resume,
        "shots": bool(job.shots),
    }
    if wrong := next((name for name, given in asked.items() if given), None):
        raise SpecError(
            f"--lr-find takes a few steps of one training and writes no run, so --{wrong} would "
            f"change nothing: leave one of them out."
        )


def find_rate(data: Dataset, job: Job, listener: Listener) -> "RateTest":
    """Check and split the data, and test the rates of what the job would train.

    The rows are those of training, with folds those of the first one; near duplicates are not
    confirmed by features here. Raises the errors of `train`, SpecError for a job that trains
    nothing by steps.
    """
    if job.backbone == AUTO:
        raise SpecError(
            "A rate is found for one backbone: name it. `headstart search DATA` compares them."
        )
    if isinstance(job.spec.views, AutoViews):
        raise SpecError(
            "A rate is found for one augmentation: name the changes that --augment auto came to in "
            "a run, or leave it out."
        )
    check_searched(data.target)
    job = job.for_data(data, listener)
    context = RunContext(job.store, job.runtime.resolved(), listener)
    if not job.trains:
        raise SpecError(
            f"A {job.recipe.head.family} head is solved, and has no learning rate. Leave --lr-find "
            f"out, or name --strategy finetune, or --head linear."
        )
    from headstart.models.rate_test import rate_test  # PyTorch

    run = prepared(RunState(Path(), job, context))
    threads, progress = context.runtime.decode_threads, partial(listener.progress, "checks")
    seen = survey(data, store=job.store, threads=threads, progress=progress)
    found = check(data, seen, threads=threads)
    rows = good_rows(data, seen, job.checks)
    check_supports(job.recipe.head, rows.target)
    parts = job.parts(rows, found.together)
    splits = parts.folds[0] if parts.folds else parts.whole
    scratch = job.strategy == "scratch"
    network = run.start.backbone
    tested = rate_test(job.spec, network, splits, context, scratch=scratch)
    return replace(tested, left_out=unexpected(found.left_out))
