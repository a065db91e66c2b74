"""Comparison of runs by the predictions in their folders."""

from collections.abc import Sequence
from pathlib import Path

from headstart.base.errors import DataError, SpecError
from headstart.base.values import read_value
from headstart.data.dataset import LeftOut
from headstart.evaluation.comparison import Comparisons, compare_predictions
from headstart.reporting.run_files import RunEvaluation
from headstart.runs.folder import MARKER, refuse_other_examples
from headstart.targets.predictions import (
    CSV,
    PREDICTIONS,
    Predictions,
    predictions_file,
    read_predictions,
)
from headstart.targets.target import Target


def compare_runs(runs: Sequence[Path], target: str = "") -> Comparisons:
    """Evaluate each run on its test rows and compare all others with the first.

    runs: folders with a predictions.csv, or paths of such files; rows are matched by path. target:
    what the files predict; "" leaves it to their columns. Raises SpecError for fewer than two runs,
    DataError for a file without predictions, Mismatch if rows, labels or classes differ, or if the
    runs recorded different pictures under one name. Intervals of cross-validated runs are wider.
    """
    if len(runs) < 2:
        raise SpecError(f"Comparing takes two runs or more; got {len(runs)}. Name another.")
    if target and not any(run.is_file() for run in runs):
        raise SpecError("A target is for files of predictions; runs know theirs: leave it out.")
    for run in runs[1:]:
        refuse_other_examples(Path(runs[0]), Path(run))
    read = [_read(Path(run), target) for run in runs]
    folds = [_judged_by_folds(Path(run)) for run in runs]
    return compare_predictions([str(run) for run in runs], read, folds)


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


def _read(run: Path, target: str) -> Predictions:
    path = predictions_file(run) if run.is_dir() else run
    if not path.is_file():
        raise DataError(
            f"A run that is compared holds the predictions of its test rows; there is no {path}. "
            f"Name the folder of a finished run, or a file of predictions."
        )
    if run.is_dir():
        return read_predictions(path, recorded_target(run))
    return read_predictions(path, target or target_beside(path))


def target_beside(file: Path) -> Target | None:
    """Return what a file of predictions that lies in a run's folder predicts; None for others."""
    return recorded_target(file.parent) if file.name in (CSV, PREDICTIONS) else None


def recorded_target(run: Path) -> Target | None:
    """Return what a run predicts; None (classes, which predictions.csv names) if not known."""
    found = _evaluation(run)
    return found.test.target if found else None


def _judged_by_folds(run: Path) -> bool:
    """Return whether predictions, of a run's folder or of the file in it, are of folds' models."""
    found = _evaluation(run if run.is_dir() else run.parent)
    return bool(found and found.folds and (run.is_dir() or run.name in (CSV, PREDICTIONS)))


def _evaluation(run: Path) -> RunEvaluation | None:
    try:
        return read_value(run / "evaluation.json", RunEvaluation)
    except (OSError, ValueError):
        return None
