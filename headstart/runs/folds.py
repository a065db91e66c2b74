"""Cross-validation in place of a test part: every row is judged by a model that never saw it.

A finished fold is kept in the run's folder until the run ends, in files checkpoint-fold-N-KEY.*;
the key covers all that decides its result, so that an interrupted run goes on after it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import write_json
from headstart.base.errors import HeadstartError
from headstart.base.listener import Listener
from headstart.base.runtime import Stopwatch
from headstart.base.values import Record, fingerprint, read_value, to_plain
from headstart.data.checks import Checks
from headstart.data.dataset import Dataset
from headstart.data.folds import RunParts
from headstart.data.splits import Splits
from headstart.evaluation.evaluation import Estimate, Evaluation, evaluate, evaluation_rows
from headstart.evaluation.judged import LimitEffects, limit_effects
from headstart.features.extract import FeatureTable
from headstart.models.results import Candidates
from headstart.models.training_data import array_name, thawed_again
from headstart.reporting.run_files import FoldEvaluation
from headstart.runs.stages import (
    LearnedRun,
    PreparedRun,
    RunState,
    baselines,
    from_scratch_name,
)
from headstart.targets.predictions import Predictions, read_predictions, write_csv
from headstart.targets.target import Target
from headstart.targets.temperature import scaled


@dataclass(frozen=True, eq=False)
class FoldSteps:
    """The stages of a run that each fold goes through: those of the run itself.

    fit: trains the candidates on parts. limit: finds the limits of the kept one. features: returns
    the shipped model's features of a dataset.
    """

    fit: Callable[[RunState, PreparedRun, Splits], Candidates]
    limit: Callable[[RunState, LearnedRun], LearnedRun]
    features: Callable[[RunState, LearnedRun, Dataset], FeatureTable]


@dataclass(frozen=True)
class FoldRecord(Record):
    """checkpoint-fold-N-KEY.json: what a finished fold leaves beside its predictions.

    baselines: the names of those with predictions. questions: L of `held`, which is flat; 0 for one
    number per row. held, size, far, sure: the fields of LimitEffects, None for NaN.
    """

    kept: str
    temperature: float
    baselines: tuple[str, ...]
    questions: int
    held: tuple[float | None, ...] | None
    size: tuple[float | None, ...] | None
    far: tuple[bool, ...]
    sure: tuple[bool, ...]

    @property
    def effects(self) -> LimitEffects:
        held = _numbers(self.held)
        shaped = held if held is None or not self.questions else held.reshape(-1, self.questions)
        return LimitEffects(
            shaped, _numbers(self.size), np.array(self.far, bool), np.array(self.sure, bool)
        )


@dataclass(frozen=True, eq=False)
class FoldResult:
    """A judged fold. test, baselines: the predictions of its rows, the latter by name."""

    record: FoldRecord
    test: Predictions
    baselines: Mapping[str, Predictions]

    @cached_property
    def evaluation(self) -> Evaluation:
        return evaluate(self.test)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The answers to all rows, each by the model of its fold; the rows of one fold follow those of
    the fold before."""

    results: tuple[FoldResult, ...]

    @property
    def folds(self) -> tuple[int, ...]:
        """The fold of each row of `predictions`, from 1."""
        each = enumerate(self.results, 1)
        return tuple(number for number, result in each for _ in result.test.ids)

    @property
    def evaluations(self) -> tuple[FoldEvaluation, ...]:
        return tuple(
            FoldEvaluation(number, result.record.kept, len(result.test), _shown(result.evaluation))
            for number, result in enumerate(self.results, 1)
        )

    @property
    def effects(self) -> LimitEffects:
        """What the limits of each fold's model say about the fold's rows with known labels."""
        each = [result.record.effects for result in self.results]
        return LimitEffects(
            _joined([own.held for own in each]),
            _joined([own.size for own in each]),
            np.concatenate([own.far for own in each]),
            np.concatenate([own.sure for own in each]),
        )

    @property
    def unscaled(self) -> NDArray[np.float32]:
        """The scores of classes (N, C) before each fold's temperature scaled them."""
        return np.concatenate(
            [scaled(own.test.scores, 1 / own.record.temperature) for own in self.results]
        )

    def predictions(self, target: Target) -> Predictions:
        """Return the answers to all rows. target: of the saved model."""
        return _one(self.results, lambda result: result.test, target)

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The names of the baselines that every fold has."""
        first, *others = (result.baselines for result in self.results)
        return tuple(name for name in first if all(name in own for own in others))

    def baselines(self, target: Target) -> dict[str, Predictions]:
        """Return the predictions of the baselines that every fold has."""
        return {name: self._baseline(name, target) for name in self.baseline_names}

    def _baseline(self, name: str, target: Target) -> Predictions:
        return _one(self.results, lambda result: result.baselines[name], target)


class FoldListener(Listener):
    """Passes on all of a fold's reports except its messages; an epoch may stop training."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def expect(self, stage: str, rows: int, seconds: float) -> None:
        self._listener.expect(stage, rows, seconds)

    def progress(self, stage: str, done: int, total: int) -> None:
        self._listener.progress(stage, done, total)

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool | None:
        return self._listener.epoch(phase, number, figures)


def cross_validate(
    state: RunState, run: PreparedRun, checks: Checks, parts: RunParts, steps: FoldSteps
) -> CrossValidation:
    """Judge each fold by a model that the whole recipe makes of the other folds.

    run: with the features of all rows, if any are frozen. Finished folds are read from the folder.
    With a deadline each fold has a part of the time, so that the saved model has its own.
    """
    results, count = list[FoldResult](), len(parts.folds)
    deadline = state.context.deadline
    for number, splits in enumerate(parts.folds, 1):
        deadline.share(count - number + 2)  # this fold, the later ones and the saved model
        with state.clock("folds"):
            results.append(_judged_fold(state, run, checks, (number, splits), steps))
        state.tell("fold", _message(number, count, results[-1]))
    deadline.share(1)
    deadline.baseline = 0.0  # the saved model has none: it would be judged on no rows
    found = CrossValidation(tuple(results))
    own = run.baseline
    if own is not None and from_scratch_name(own) not in found.baseline_names:
        state.tell("baseline", "left out: it was not trained to its end in every fold")
    return found


def judged_message(folds: Sequence[FoldEvaluation], splits: Splits, *, refit: bool) -> str:
    """Return how a cross-validated run was judged, and what its saved model learned from.

    refit: whether it was fitted again on the validation rows too.
    """
    rows, val = len(splits.train) + len(splits.val), len(splits.val)
    by = f", {val:,} of them to choose by" if val and not refit else ""
    return (
        f"judged by {len(folds)}-fold cross-validation: each row by a model that did not learn "
        f"from it; the saved model learned from all {rows:,} rows{by}"
    )


def _message(number: int, count: int, result: FoldResult) -> str:
    (name, value), *_ = evaluation_rows(result.evaluation)[0]
    return f"{number} of {count}: {name} {value}; {result.record.kept} kept"


def _judged_fold(
    state: RunState,
    run: PreparedRun,
    checks: Checks,
    fold: tuple[int, Splits],
    steps: FoldSteps,
) -> FoldResult:
    """Return the result of one fold: from its files, or by training, which writes them."""
    number, splits = fold
    name = f"checkpoint-fold-{number}-{_key(state, run, splits)}"
    target = splits.train.target
    with suppress(OSError, HeadstartError, ValueError):  # without files, or altered ones: train
        return _read(state, name, target)
    own = _fold_state(state, number)
    learned = LearnedRun(run, splits, checks, steps.fit(own, _fresh(run), splits), run.start.table)
    learned = steps.limit(own, learned)
    model, table = learned.shipped.model, steps.features(own, learned, splits.test)
    test = model.predict_table(table)
    others = baselines(own, run.baseline, splits)
    for at, predictions in enumerate((test, *others.values())):
        write_csv(predictions, state.out / f"{name}-{at}.csv")
    effects = limit_effects(model.limits, test, table.x)
    record = _record(learned.fitted.kept, model.limits.temperature, tuple(others), effects)
    write_json(state.out / f"{name}.json", record.to_plain())  # last: it completes the files
    for path in state.out.glob(f"checkpoint-fold-{number}-*.safetensors"):
        path.unlink(missing_ok=True)
    return _read(state, name, target)


def _fold_state(state: RunState, number: int) -> RunState:
    """Return the state for training a fold: checkpoints and seconds of its own, no messages."""
    listener, checkpoints = state.context.listener, state.context.checkpoints
    checkpoints = replace(checkpoints, prefix=f"fold-{number}-")
    context = replace(state.context, listener=FoldListener(listener), checkpoints=checkpoints)
    return replace(state, context=context, clock=Stopwatch())


def _fresh(run: PreparedRun) -> PreparedRun:
    """Return the run with a new copy of its thawed layers, since training changes them in place."""
    start = run.start
    if start.thawed is None or start.settings is None:
        return run
    return replace(run, start=thawed_again(start))


def _key(state: RunState, run: PreparedRun, splits: Splits) -> str:
    """Return the fingerprint of all that decides a fold's result."""
    job, start = state.job, run.start
    rows = [part.decisive for part in (splits.train, splits.val, splits.test)]
    x = array_name(start.table.x) if start.table else ""
    kept = start.tap.precision if start.tap else "nothing"
    asked = (job.strategy, job.baseline, job.tta, job.refit, to_plain(job.trust), kept)
    network, members = start.backbone.fingerprint(), (job.members,) if job.members > 1 else ()
    budget = ("budget",) if job.budget_s else ()  # whose deadline may cut a fold short
    return fingerprint(state.context.checkpoints.job, network, rows, x, asked, *members, *budget)


def _record(
    kept: str, temperature: float, names: tuple[str, ...], effects: LimitEffects
) -> FoldRecord:
    held = effects.held
    return FoldRecord(
        kept=kept,
        temperature=temperature,
        baselines=names,
        questions=held.shape[1] if held is not None and held.ndim > 1 else 0,
        held=_plain(held),
        size=_plain(effects.size),
        far=tuple(effects.far.tolist()),
        sure=tuple(effects.sure.tolist()),
    )


def _read(state: RunState, name: str, target: Target) -> FoldResult:
    """Read a fold's files; raises OSError or ValueError without them.

    An unbroken run reads them too, so that both end alike.
    """
    record = read_value(state.out / f"{name}.json", FoldRecord)
    files = (state.out / f"{name}-{at}.csv" for at in range(1 + len(record.baselines)))
    test, *others = (read_predictions(file, target) for file in files)
    return FoldResult(record, test, dict(zip(record.baselines, others, strict=True)))


def _shown(evaluation: Evaluation) -> dict[str, Estimate | None]:
    names = evaluation.target.shown or tuple(evaluation.metrics)
    return {name: evaluation.metrics[name] for name in names}


def _one(
    results: Iterable[FoldResult], of: Callable[[FoldResult], Predictions], target: Target
) -> Predictions:
    """Return the predictions of all folds as one value."""
    each = [of(result) for result in results]
    outputs = {name: np.concatenate([p.outputs[name] for p in each]) for name in each[0].outputs}
    regions = [name for name in each[0].region if all(name in p.region for p in each)]
    region = {name: np.concatenate([p.region[name] for p in each]) for name in regions}
    ids = tuple(id for p in each for id in p.ids)
    labels: Any = np.concatenate([p.labels for p in each])
    return Predictions(ids, outputs, labels, target, region=region)


def _joined(arrays: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    """Return the rows of all arrays; None unless every fold has one."""
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if len(there) == len(arrays) else None


def _plain(array: NDArray[np.float64] | None) -> tuple[float | None, ...] | None:
    """Return the numbers of an array for JSON, None for those that are not finite."""
    if array is None:
        return None
    return tuple(n if np.isfinite(n) else None for n in array.ravel().tolist())


def _numbers(values: tuple[float | None, ...] | None) -> NDArray[np.float64] | None:
    return None if values is None else np.array(values, np.float64)
