"""The insights of a run and the explanations of some of its answers, within a budget of time.

How much is computed is decided by fixed limits (`InsightEffort`), so that two runs of a seed give
the same files. The time is a last guard.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.deadline import Deadline
from headstart.data.dataset import CheckedFile, LeftOut
from headstart.evaluation.budget import REPORT_S
from headstart.evaluation.effort import FULL, QUICK, Detail, InsightEffort
from headstart.evaluation.embedding_map import embedding_map
from headstart.evaluation.insights import Insights
from headstart.evaluation.judged import LimitEffects, doubts, gains, temperature_scaling
from headstart.evaluation.learning_curve import fitted_rows, learning_curve
from headstart.evaluation.missing_labels import missing_labels
from headstart.evaluation.mistakes import mistakes, outliers, row_errors
from headstart.evaluation.precision_curves import precision_curves
from headstart.evaluation.score_curve import score_curve
from headstart.explaining.kinds import ONE_BY_ONE, explaining
from headstart.features.extract import FeatureTable
from headstart.heads.basis import Rotation
from headstart.heads.families import HEADS
from headstart.heads.fit import FOLDS
from headstart.heads.head import FeatureRows
from headstart.heads.specs import HeadSpec, LogisticSpec, RidgeSpec
from headstart.models.model import Model
from headstart.runs.stages import LearnedRun, RunState
from headstart.targets.boxes import BoxesTarget
from headstart.targets.predictions import Predictions
from headstart.targets.target import Target

Sources = Mapping[str, Path | CheckedFile]  # of rows, by their ids
Steps = dict[str, Callable[[], Any]]  # what makes a field of `Insights`, by the field's name

USUAL_L2 = 0.03  # of the heads fitted for insights if the trained head is not logistic
SHARE = 0.15  # insights and explanations together may take this share of the run's seconds so far
LEAST_S = 20.0  # or so many seconds, after a short run such as one with all features in the store
# Seconds that must be left before a deadline to begin an insight, or explanations.
USUAL_S, LONG_S = 2.0, {"map": 10.0, "learning_curve": 4.0, "mistakes": 4.0, "explained": 10.0}
EFFORTS = {"quick": QUICK, "full": FULL}


@dataclass(frozen=True)
class Budget:
    """The most seconds that insights and explanations take, from now on.

    hard: whether a deadline sets them, so that nothing is begun that would take longer.
    """

    seconds: float
    began: float = field(default_factory=time.perf_counter)
    hard: bool = False

    @classmethod
    def after(cls, seconds: float, detail: Detail, deadline: Deadline) -> "Budget":
        """Return the budget for the insights of a run that took `seconds`.

        Full insights have no limit, unless the run has a deadline.
        """
        own = np.inf if detail == "full" else max(LEAST_S, SHARE * seconds)
        if not deadline.active:
            return cls(own)
        return cls(min(own, max(0.0, deadline.left - REPORT_S)), hard=True)

    def part(self, share: float) -> "Budget":
        """Return a budget of a share of these seconds."""
        return replace(self, seconds=share * self.seconds)

    @property
    def spent(self) -> bool:
        return time.perf_counter() - self.began > self.seconds

    def begins(self, name: str) -> bool:
        """Return whether there is time to begin something."""
        left = self.seconds - (time.perf_counter() - self.began)
        return not self.hard or left >= LONG_S.get(name, USUAL_S)


@dataclass(frozen=True, eq=False)
class TestedRun:
    """What insights are found in.

    test: predictions of the test rows, or of the rows of all folds. effects: returns what the
    limits say about them. baselines: predictions of the same rows by name. unscaled: scores (N, C)
    before scaling, where folds have several temperatures.
    """

    learned: LearnedRun
    test: Predictions
    effects: Callable[[], LimitEffects]
    baselines: Mapping[str, Predictions]
    unscaled: NDArray[np.float32] | None = None


def insights_of(state: RunState, tested: TestedRun, budget: Budget) -> Insights:
    """Compute the insights one by one; one that fails or is beyond the limits is named."""
    effort = EFFORTS[state.job.insights]
    if state.context.deadline.active:
        effort = effort.within(budget.seconds)
    steps = _steps(state, tested, effort)
    found, progress = Insights(), partial(state.context.listener.progress, "insights")
    late = list[str]()
    progress(0, len(steps))
    for done, (name, make) in enumerate(steps.items()):
        if budget.spent:
            names = ", ".join(_spoken(late) for late in list(steps)[done:])
            state.tell("insights", _out_of_time(names, budget))
            break
        if not budget.begins(name):
            late.append(_spoken(name))
            continue
        with optional(state, "insights"):
            found = replace(found, **{name: make()})
        progress(done + 1, len(steps))
    if late:
        state.tell("insights", _out_of_time(", ".join(late), budget))
    return found


def explain_run(state: RunState, model: Model, sources: Sources, budget: Budget) -> None:
    """Explain the worst and some good answers on the test rows, for the report."""
    if model.backbone.card.input.kind in ONE_BY_ONE:
        return
    how = explaining(model.backbone.card.input)
    effort = how.EFFORTS[state.job.insights]
    total = how.count_of_run(state.out, model, sources, effort)
    progress = partial(state.context.listener.progress, "explained")
    if not budget.begins("explained"):
        state.tell("explained", _out_of_time(f"{total} answers", budget))
        return
    progress(0, total)
    each = how.explain_run(state.out, model, sources, effort)
    for done, explained in enumerate(each, 1):
        if isinstance(explained, LeftOut):
            state.tell("explained", f"left out: {explained.path}: {explained.reason}")
        progress(done, total)
        if budget.spent and done < total:
            state.tell("explained", _out_of_time(f"{total - done} of {total} answers", budget))
            each.close()
            break


@contextmanager
def optional(
    state: RunState, stage: str, lost: str = "left out", remedy: str = ""
) -> Iterator[None]:
    """Report an error of a stage instead of raising it: the model is already saved."""
    try:
        yield
    except Exception as error:
        state.tell(stage, f"{lost}: {str(error) or type(error).__name__}{remedy}")
    except KeyboardInterrupt as error:
        done = f"the run is finished, and `headstart report {quote(str(state.out))}` makes its page"
        error.args = error.args or (done,)
        raise


def _out_of_time(what: str, budget: Budget) -> str:
    if budget.hard:
        return f"left out: {what}; the run's time is over"
    return (
        f"left out: {what}; there were {budget.seconds:.0f} s for all of them, and "
        f"--insights full takes the time it needs"
    )


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _steps(state: RunState, tested: TestedRun, effort: InsightEffort) -> Steps:
    """Return what makes each insight that these rows allow, in order."""
    learned, test = tested.learned, tested.test
    limits, trust, kept = learned.shipped.model.limits, state.job.trust, learned.fitted.kept
    on_val = {name: c.val for name, c in learned.fitted.made.items()}
    own: Mapping[str, Predictions] = {kept: test}
    steps: Steps = {
        "doubt": lambda: doubts(limits, trust, test, tested.effects()),
        "compared": lambda: (
            gains(kept, on_val, "val") + gains(kept, {**own, **tested.baselines}, "test")
        ),
    }
    if test.classes:
        temperature = limits.temperature
        fitted_on = learned.judged_rows if temperature != 1.0 else 0
        steps["calibration"] = lambda: temperature_scaling(
            test, temperature, fitted_on, tested.unscaled
        )
    else:
        known = test.take(np.flatnonzero(test.known))
        steps["charts"] = lambda: known.target.charts(known.outputs, known.labels)
        if of_kind := _of_kind(learned, known):
            return steps | of_kind
    if learned.table is None:  # a network from scratch has no cached features
        return steps
    plain, parts = learned.table, learned.parts
    refitted = _of_classes if test.classes else _of_other_targets
    return steps | {
        **_affordable(state, refitted(_Refitted(learned, plain, effort)), effort, tested),
        "outliers": lambda: outliers(plain, effort.compared),
        "map": lambda: embedding_map(plain, parts, effort=effort),
    }


def _of_kind(learned: LearnedRun, known: Predictions) -> Steps:
    """Return what the answers to the test rows show for this kind of target alone."""
    if not isinstance(known.target, BoxesTarget):
        return {}
    groups = learned.splits.groups_of(known.ids)
    return {
        "precision_curves": lambda: precision_curves(known, groups),
        "missing_labels": lambda: missing_labels((learned.kept.val, known)),
    }


@dataclass(frozen=True, eq=False)
class _Refitted:
    """The features that heads are refitted on. plain: of all rows, before training."""

    learned: LearnedRun
    plain: FeatureTable
    effort: InsightEffort

    def rows(self, target: Target | None = None) -> tuple[FeatureTable, FeatureTable, FeatureTable]:
        """Return the tables of training, validation and all rows, with another target if given."""
        splits = self.learned.splits
        tables = self.plain.of(splits.train), self.plain.of(splits.val), self.plain
        train, val, whole = (replace(t, target=target) if target else t for t in tables)
        return train, val, whole

    def turned(self, *tables: FeatureTable) -> tuple[FeatureRows, ...]:
        """Return the tables in the leading directions of the first, if the effort limits them."""
        columns, width = self.effort.columns, tables[0].x.shape[1]
        if not 0 < columns < width:
            return tables
        turn = Rotation.of(tables[0].x, columns)
        return tuple(turn(table) for table in tables)


def _of_classes(rows: _Refitted) -> Steps:
    chosen = rows.learned.fitted.made["head"].fitted.chosen
    l2 = float(chosen["l2"]) if chosen["head"] == "logistic" else USUAL_L2  # ridge: another scale
    train, val, whole = rows.rows()
    turned = cache(lambda: rows.turned(train, val, whole))  # for the first step that needs it
    return {
        "learning_curve": lambda: learning_curve(
            l2, turned()[0], turned()[1], draws=rows.effort.draws
        ),
        "mistakes": lambda: mistakes(l2, whole, rows=turned()[2]),
    }


def _of_other_targets(rows: _Refitted) -> Steps:
    """Return what a solved head on the frozen features shows of a target without classes."""
    spec = _solved(rows.learned)
    if spec is None:
        return {}
    target = rows.learned.fitted.made["head"].fitted.model.target  # with the scale of training rows
    train, val, whole = rows.rows(target)
    turned = cache(lambda: rows.turned(train, val, whole))
    draws = rows.effort.draws
    return {
        "score_curve": lambda: score_curve(spec, turned()[0], turned()[1], draws=draws),
        "errors": lambda: row_errors(spec, whole, rows=turned()[2]),
    }


def _affordable(state: RunState, steps: Steps, effort: InsightEffort, tested: TestedRun) -> Steps:
    """Return the steps that refit heads without those beyond the limit of the effort."""
    learned, outputs = tested.learned, tested.test.target.outputs
    assert learned.table is not None  # as these steps refit heads on it
    train, columns = len(learned.splits.train), learned.table.x.shape[1]
    rows = {name: fitted_rows(train, effort.draws) for name in steps}
    rows |= {name: len(learned.checks.dataset) * FOLDS for name in ("mistakes", "errors")}
    kept = {name: s for name, s in steps.items() if effort.allows(rows[name], columns, outputs)}
    if lost := [_spoken(name) for name in steps if name not in kept]:
        names = " and ".join(lost)
        state.tell("insights", f"left out: {names}, which take long here: --insights full has them")
    return kept


def _solved(learned: LearnedRun) -> HeadSpec | None:
    """Return the head's own spec with its chosen strength, or else a usual one; None if no head
    without epochs can predict the target."""
    chosen, target = learned.fitted.made["head"].fitted.chosen, learned.splits.train.target
    for spec in (LogisticSpec, RidgeSpec):
        if HEADS[spec.family].supports(target):
            own = chosen["head"] == spec.family
            return spec(l2=(float(chosen["l2"]) if own else USUAL_L2,))
    return None
