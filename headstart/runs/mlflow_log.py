"""A run in MLflow: its curves, figures and settings, its report, and its bundle as a model."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from headstart.base.errors import StoreError
from headstart.models.bundle import versions
from headstart.reporting.figure_files import FIGURES
from headstart.runs.tracked import Point, TrackedRun

BATCH = 100  # params per request to an MLflow server; its limit for metrics is higher
LONGEST = 500  # characters of a param that every MLflow server accepts
MODEL = "model"  # the name of the model in the run, and of the bundle in the folder
LOADER = "headstart.runs.mlflow_model"
FILES = ("report.html", "recipe.json", "evaluation.json", "history.csv", "predictions.csv")
PATIENCE = {  # of the first request, unless the user has set them: by default it waits minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def check_store() -> None:
    """Raise StoreError unless MLflow's store answers and takes runs of the experiment."""
    import mlflow

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    with _one_sentence("can't be used"), _set(PATIENCE):
        found = mlflow.MlflowClient().get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        raise StoreError(
            f"MLflow takes runs of an active experiment; {name!r} at {mlflow.get_tracking_uri()} "
            f"was deleted. Set MLFLOW_EXPERIMENT_NAME to another name."
        )


def log_run(run: Path, tracked: TrackedRun) -> str:
    """Log a finished run as a new run of MLflow; return which one it is, and where.

    Beneath a run of MLflow that is under way, it becomes a nested run.
    """
    import mlflow

    beneath = mlflow.active_run() is not None
    with (
        _one_sentence(f"did not take {run}"),
        redirect_stdout(sys.stderr),  # MLflow prints links; stdout is for results
        mlflow.start_run(run_name=tracked.name, nested=beneath) as active,
    ):
        id = active.info.run_id
        _log_values(id, tracked)
        _log_files(id, run)
        _log_model(run)
    return f"run {id} of {mlflow.get_tracking_uri()}"


def _log_values(id: str, tracked: TrackedRun) -> None:
    import mlflow
    from mlflow.entities import Metric, Param

    now = time.time_ns() // 1_000_000
    points = [*tracked.curves, *(Point(name, value, 0) for name, value in tracked.figures.items())]
    metrics = [Metric(p.name, p.value, now, p.step) for p in points]
    params = [Param(name, value[:LONGEST]) for name, value in tracked.settings.items()]
    for i in range(0, max(len(metrics), len(params)), BATCH):
        mlflow.MlflowClient().log_batch(id, metrics[i : i + BATCH], params[i : i + BATCH])


def _log_files(id: str, run: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    for name in FILES:
        if (run / name).is_file():
            client.log_artifact(id, str(run / name))
    if (run / FIGURES).is_dir():
        client.log_artifacts(id, str(run / FIGURES), FIGURES)


def _log_model(run: Path) -> None:
    """Log the bundle as a model that `mlflow.pyfunc.load_model` loads; nothing is pickled."""
    if not (run / MODEL).is_dir():
        return
    with _without_warnings():
        import mlflow.pyfunc

        mlflow.pyfunc.log_model(
            name=MODEL,
            loader_module=LOADER,
            data_path=str(run / MODEL),
            pip_requirements=[f"headstart=={versions()['headstart']}"],
        )


@contextmanager
def _one_sentence(what: str) -> Iterator[None]:
    """Turn every error of MLflow in the block into a StoreError of one sentence."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, ImportError, OSError) as error:
        raise StoreError(
            f"MLflow at {mlflow.get_tracking_uri()} {what}: {_first_line(error)} "
            f"Set MLFLOW_TRACKING_URI to your server or to a database such as "
            f"sqlite:///mlflow.db."
        ) from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).strip().splitlines() if line), type(error).__name__)


@contextmanager
def _set(environment: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set for the length of the block."""
    new = {name: value for name, value in environment.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide what MLflow says of its own type hints, and that the model has no signature: it takes
    paths, pictures, arrays and texts alike."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
