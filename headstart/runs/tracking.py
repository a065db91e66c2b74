"""Write a finished run to TensorBoard or MLflow."""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.base.atomic import new_folder
from headstart.base.errors import DataError, MissingPackage, SpecError, StoreError, UnknownName
from headstart.base.listener import Listener
from headstart.base.values import entries, read_json, read_value
from headstart.reporting.run_files import RunEvaluation
from headstart.runs.folder import is_finished
from headstart.training.history import HISTORY, Epoch, read_history

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

BATCH = 100  # params per request to an MLflow server; its limit for metrics is higher
LONGEST = 500  # characters of a param that every MLflow server accepts


@dataclass(frozen=True)
class Point:
    name: str
    value: float
    step: int


@dataclass(frozen=True)
class TrackedRun:
    """The tracked values of a run.

    curves: PHASE/train_loss etc. by epoch; epoch 0 is before training. figures: test/accuracy
    etc., with test/accuracy_low and _high for its interval. settings: recipe.json by dotted name.
    """

    name: str
    curves: tuple[Point, ...]
    figures: dict[str, float]
    settings: dict[str, str]


class TensorBoardListener(Listener):
    """Writes the learning curves to a folder for TensorBoard after each epoch.

    The folder is made at the first epoch; it may lie in the run folder. Raises MissingPackage if
    tensorboardX is not installed.

    >>> listener = TensorBoardListener("curves/flowers")
    >>> hs.train(data, Path("runs/flowers"), listener=listener)  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        check_tracker("tensorboard")
        self.folder = Path(folder)

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"{phase}/{name}", value, number)
        self._writer.flush()

    @cached_property
    def _writer(self) -> "SummaryWriter":
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self.folder))


def track(run: Path, where: str) -> str:
    """Write a finished run's curves, metrics and settings; returns their location.

    where: "tensorboard" writes event files into the new folder RUN/tensorboard; "mlflow" logs a new
    run as configured by MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME. Raises UnknownName for an
    unknown tracker, DataError if `run` is not a finished run, MissingPackage if the library is not
    installed, SpecError if RUN/tensorboard exists, StoreError if MLflow rejects the run.
    """
    if where not in _TRACKERS:
        raise UnknownName("tracker", where, _TRACKERS)
    check_tracker(where)
    return _TRACKERS[where](run, tracked_run(run))


def check_tracker(where: str) -> None:
    """Raise MissingPackage if the tracker's library is not installed; called before training."""
    module, package, purpose = _PACKAGES[where]
    if find_spec(module) is None:
        raise MissingPackage(package, purpose=purpose, extra="track")


def tracked_run(run: Path) -> TrackedRun:
    """Read the tracked values of a finished run; raises DataError for any other folder."""
    if not is_finished(run):
        raise DataError(f"What is tracked is a finished run; {run} holds none. Name its folder.")
    try:
        curves = tuple(_curves(read_history(run / "history.csv")))
        figures = dict(_figures(read_value(run / "evaluation.json", RunEvaluation)))
        settings = dict(_settings(entries(read_json(run / "recipe.json"))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{run} is not as a run leaves it ({type(error).__name__}: {error}). Train it again."
        ) from error
    return TrackedRun(run.resolve().name, curves, figures, settings)


def _curves(history: Sequence[Epoch]) -> Iterator[Point]:
    """Yield the finite values of history.csv in order; epochs count from 1 in each phase."""
    for phase in dict.fromkeys(line.phase for line in history):
        lines = [line for line in history if line.phase == phase]
        before = lines[0].lr is None and len(lines) > 1  # the first line is from before training
        first = lines[0].epoch - (not before)
        for line in lines:
            for name in HISTORY[2:]:
                value = getattr(line, name)
                if value is not None and math.isfinite(value):
                    yield Point(f"{phase}/{name}", value, line.epoch - first)


def _figures(evaluations: RunEvaluation) -> Iterator[tuple[str, float]]:
    for part, evaluation in evaluations.parts.items():
        for name in evaluation.target.shown or evaluation.metrics:
            if estimate := evaluation.metrics[name]:
                yield f"{part}/{name}", estimate.value
                yield f"{part}/{name}_low", estimate.low
                yield f"{part}/{name}_high", estimate.high
        yield f"{part}/n", float(evaluation.n)


def _settings(plain: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings by dotted name; "tried" holds results and is skipped."""
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{before}{name}.")
        elif before + name != "tried" and value is not None:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield before + name, shown


def _to_tensorboard(run: Path, tracked: TrackedRun) -> str:
    from tensorboardX import SummaryWriter

    folder = run / "tensorboard"
    try:
        with new_folder(folder) as part, SummaryWriter(str(part)) as writer:
            _write_events(writer, tracked)
    except FileExistsError as error:
        raise SpecError(
            f"{run} was tracked already, in {folder}. Remove that folder to write it again."
        ) from error
    return str(folder)


def _write_events(writer: "SummaryWriter", tracked: TrackedRun) -> None:
    for point in tracked.curves:
        writer.add_scalar(point.name, point.value, point.step)
    for name, value in tracked.figures.items():
        writer.add_scalar(name, value, 0)
    lines = [f"| {name} | {_cell(value)} |" for name, value in tracked.settings.items()]
    writer.add_text("recipe", "\n".join(["| setting | value |", "|---|---|", *lines]), 0)


def _cell(text: str) -> str:
    """Escape text for a Markdown table cell."""
    return " ".join(text.replace("|", "\\|").splitlines())


def _to_mlflow(run: Path, tracked: TrackedRun) -> str:
    import mlflow
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    now = time.time_ns() // 1_000_000
    points = [*tracked.curves, *(Point(name, value, 0) for name, value in tracked.figures.items())]
    metrics = [Metric(p.name, p.value, now, p.step) for p in points]
    params = [Param(name, value[:LONGEST]) for name, value in tracked.settings.items()]
    beneath = mlflow.active_run() is not None
    try:
        with (
            redirect_stdout(sys.stderr),  # MLflow prints links; stdout is for results
            mlflow.start_run(run_name=tracked.name, nested=beneath) as active,
        ):
            client, id = mlflow.MlflowClient(), active.info.run_id
            for i in range(0, max(len(metrics), len(params)), BATCH):
                client.log_batch(id, metrics[i : i + BATCH], params[i : i + BATCH])
    except (MlflowException, ImportError) as error:  # ImportError: a database needs full mlflow
        raise StoreError(
            f"MLflow at {mlflow.get_tracking_uri()} did not take {run}: {_first_line(error)} "
            f"Set MLFLOW_TRACKING_URI to your server; a database needs the whole package 'mlflow'."
        ) from error
    return f"run {id} of {mlflow.get_tracking_uri()}"


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).strip().splitlines() if line), type(error).__name__)


_PACKAGES = {
    "tensorboard": ("tensorboardX", "tensorboardX", "Tracking in TensorBoard"),
    "mlflow": ("mlflow", "mlflow-skinny", "Tracking in MLflow"),
}
_TRACKERS = {"tensorboard": _to_tensorboard, "mlflow": _to_mlflow}
