"""Few examples: the heads that suit K rows of each class are compared, and the best is taken."""

from dataclasses import replace
from functools import partial

from headstart.data.folds import RunParts
from headstart.evaluation.few_shots import FewShots, few_shots
from headstart.features.extract import FeatureTable
from headstart.heads.families import HEADS, spec_named
from headstart.heads.specs import HeadSpec, LogisticSpec
from headstart.runs.stages import RunState
from headstart.targets.target import Target

TRIED = ("mean", "nearest", "ridge", "logistic")  # ties go to the first


def with_best_head(
    state: RunState, table: FeatureTable, parts: RunParts
) -> tuple[RunState, FewShots]:
    """Return the state whose job has the head that is best over the draws, and the comparison.

    table: features of all rows. The test rows are in no draw.
    """
    job = state.job
    specs = heads_to_try(job.recipe.head, table.target, named="head" in job.given)
    with state.clock("shots"):
        draws = [(table.of(train), table.of(rest)) for train, rest in parts.draws]
        progress = partial(state.context.listener.progress, "shots")
        found = few_shots(specs, draws, job.shots, progress)
    state.tell("shots", _message(found))
    best = next(spec for spec in specs if spec.family == found.best)
    return replace(state, job=replace(job, recipe=replace(job.recipe, head=best))), found


def heads_to_try(head: HeadSpec, target: Target, *, named: bool = False) -> list[HeadSpec]:
    """Return the heads of TRIED that can predict the target, or the one that was asked for.

    named: whether `head` was, as the usual one is equal to a logistic head with usual settings.
    """
    if named or head != LogisticSpec(class_weights=head.class_weights):
        return [head]
    return [spec_named(name, head) for name in TRIED if HEADS[name].supports(target)]


def _message(found: FewShots) -> str:
    own = found.heads[found.best]
    return (
        f"{found.shots} of each class, {found.draws} draws: {found.best} is best, with a mean "
        f"{found.metric.replace('_', ' ')} of {own.mean:.3f} and a deviation of {own.sd:.3f}"
    )
