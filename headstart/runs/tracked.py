"""What trackers get of a finished run: curves, figures and settings, read from its folder."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.base.errors import DataError, MissingPackage
from headstart.base.values import entries, read_json, read_value
from headstart.reporting.figure_files import FIGURES
from headstart.reporting.run_files import RunEvaluation
from headstart.runs.folder import is_finished
from headstart.training.history import HISTORY, Epoch, read_history

PACKAGES = {  # of each tracker: modules, the package to name, the purpose
    "tensorboard": (("tensorboardX",), "tensorboardX", "Tracking in TensorBoard"),
    "mlflow": (("mlflow", "pandas"), "mlflow-skinny", "Tracking in MLflow"),
}


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


def check_package(where: str) -> None:
    """Raise MissingPackage if the library of a tracker is not installed."""
    modules, package, purpose = PACKAGES[where]
    for module in modules:
        if find_spec(module) is None:
            name = package if module == modules[0] else module
            raise MissingPackage(name, purpose=purpose, extra="track")


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


def figures_of(run: Path) -> list[Path]:
    """Return the PNG files of RUN/figures, sorted by name; empty for a run without them."""
    return sorted((run / FIGURES).glob("*.png"))


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
