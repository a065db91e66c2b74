"""Write a finished run to TensorBoard or MLflow."""

from pathlib import Path

from headstart.base.errors import UnknownName
from headstart.runs import mlflow_log, tensorboard
from headstart.runs.recorded import recorded_files
from headstart.runs.tensorboard import LiveRun
from headstart.runs.tracked import PACKAGES, check_package, tracked_run


def track(run: Path, where: str, live: LiveRun | None = None) -> str:
    """Write a finished run's curves, metrics, settings and pictures; returns their location.

    where: "tensorboard" writes event files into the new folder RUN/tensorboard; "mlflow" logs a new
    run with the model, the report and the figures, as configured by MLFLOW_TRACKING_URI and
    MLFLOW_EXPERIMENT_NAME. live: what wrote to TensorBoard while the run trained. Raises
    UnknownName for an unknown tracker, DataError if `run` is not a finished run, MissingPackage if
    the library is not installed, SpecError if RUN/tensorboard exists, StoreError if MLflow rejects
    the run.
    """
    _check_known(where)
    check_package(where)
    tracked = tracked_run(run)
    if where == "mlflow":
        return mlflow_log.log_run(run, tracked)
    return tensorboard.write_run(run, tracked, recorded_files(run), live)


def check_tracker(where: str) -> None:
    """Check before training that a run can be tracked there.

    Raises UnknownName, MissingPackage, and StoreError if MLflow's store does not answer.
    """
    _check_known(where)
    check_package(where)
    if where == "mlflow":
        mlflow_log.check_store()


def live_tracker(where: str | None, run: Path) -> LiveRun | None:
    """Return the listener that writes curves while a run trains, for a tracker that has one."""
    return LiveRun(run) if where == "tensorboard" else None


def _check_known(where: str) -> None:
    if where not in PACKAGES:
        raise UnknownName("tracker", where, PACKAGES)
