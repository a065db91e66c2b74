"""Comparison of runs by the predictions in their folders."""

from collections.abc import Sequence
from pathlib import Path

from headstart.base.errors import DataError, SpecError
from headstart.base.listener import Listener
from headstart.base.values import read_value
from headstart.data.dataset import LeftOut
from headstart.evaluation.comparison import Comparisons, compare_predictions
from headstart.evaluation.evaluation import Evaluation, evaluate
from headstart.reporting.run_files import RunEvaluation
from headstart.runs.folder import MARKER, refuse_other_examples
from headstart.targets.plan import TargetPlan
from headstart.targets.predictions import (
    CSV,
    PREDICTIONS,
    Predictions,
    predictions_file,
    read_predictions,
)
from headstart.targets.target import Target


def compare_runs(runs: Sequence[Path], target: str = "", ordered: str = "") -> Comparisons:
    """Evaluate each run on its test rows and compare all others with the first.

    runs: folders with a predictions.csv, or paths of such files; rows are matched by path. target,
    ordered: what the files predict, as in TargetPlan; "" leaves it to their columns. Raises
    SpecError for fewer than two runs, DataError for a file without predictions, Mismatch if rows,
    labels or classes differ, or if the runs recorded different pictures under one name. Intervals
    of cross-validated runs are wider.
    """
    plan = TargetPlan(target, ordered)
    if len(runs) < 2:
        raise SpecError(f"Comparing takes two runs or more; got {len(runs)}. Name another.")
    if plan.kind and not any(run.is_file() for run in runs):
        raise SpecError("A target is for files of predictions; runs know theirs: leave it out.")
    for run in runs[1:]:
        refuse_other_examples(Path(runs[0]), Path(run))
    read = [_read(Path(run), plan) for run in runs]
    folds = [judged_by_folds(Path(run)) for run in runs]
    return compare_predictions([str(run) for run in runs], read, folds)


def judge_file(path: Path, plan: TargetPlan, listener: Listener) -> tuple[Predictions, Evaluation]:
    """Return the predictions in a file and their evaluation, as that of the run beside it.

    plan: what they predict; open settings leave it to that run, or to the columns. Raises DataError
    for another file, and if no row has a label.
    """
    predictions = _predictions_in(path, plan)
    if not predictions.known.any():
        raise DataError(f"There is nothing to judge by: no row of {path} has a label.")
    if plan.kind and not plan.ordered and predictions.target.ordered:
        order = predictions.target.described
        listener.stage("order", f"{order}, as the columns stand; --ordered names another")
    return predictions, evaluate(predictions, folds=judged_by_folds(path))


def finished_runs(folders: Sequence[Path]) -> tuple[list[Path], list[LeftOut]]:
    """Separate the runs from other folders, which a pattern like `runs/*` includes."""
    kept, left_out = list[Path](), list[LeftOut]()
    for run in folders:
        unfinished = (run / MARKER).exists()
        if run.is_dir() and (unfinished or not predictions_file(run).exists()):
            why = "the run is not finished" if unfinished else "holds no run"
            left_out.append(LeftOut(str(run), why))
        else:
            kept.append(run)
    return kept, left_out


def _read(run: Path, plan: TargetPlan) -> Predictions:
    path = predictions_file(run) if run.is_dir() else run
    if not path.is_file():
        raise DataError(
            f"A run that is compared holds the predictions of its test rows; there is no {path}. "
            f"Name the folder of a finished run, or a file of predictions."
        )
    if run.is_dir():
        return read_predictions(path, recorded_target(run))
    return _predictions_in(path, plan)


def _predictions_in(path: Path, plan: TargetPlan) -> Predictions:
    return read_predictions(path, plan.kind or target_beside(path), ordered=plan.ordered)


def target_beside(file: Path) -> Target | None:
    """Return what a file of predictions that lies in a run's folder predicts; None for others."""
    return recorded_target(file.parent) if file.name in (CSV, PREDICTIONS) else None


def recorded_target(run: Path) -> Target | None:
    """Return what a run predicts; None (classes, which predictions.csv names) if not known."""
    found = _evaluation(run)
    return found.test.target if found else None


def judged_by_folds(run: Path) -> bool:
    """Return whether predictions, of a run's folder or of the file in it, are of folds' models."""
    found = _evaluation(run if run.is_dir() else run.parent)
    return bool(found and found.folds and (run.is_dir() or run.name in (CSV, PREDICTIONS)))


def _evaluation(run: Path) -> RunEvaluation | None:
    try:
        return read_value(run / "evaluation.json", RunEvaluation)
    except (OSError, ValueError):
        return None
