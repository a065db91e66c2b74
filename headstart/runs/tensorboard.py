"""A run in TensorBoard: its curves while it trains, settings, figures and pictures at its end."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import new_folder
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.base.paths import user_path
from headstart.data.dataset import CheckedFile
from headstart.modalities.images.event_files import add_example, add_file
from headstart.reporting.facts import read_facts, spelt
from headstart.runs.tracked import Point, TrackedRun, check_package, figures_of

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"  # in the folder of a run
SHOWN = 12  # wrong answers


class TensorBoardListener(Listener):
    """Writes the learning curves to a folder for TensorBoard after each epoch.

    The folder is made at the first epoch; it may lie in the run folder. Raises MissingPackage if
    tensorboardX is not installed.

    >>> listener = TensorBoardListener("curves/flowers")
    >>> hs.train(data, Path("runs/flowers"), listener=listener)  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        check_package("tensorboard")
        self.folder = user_path(folder)
        self.written = set[tuple[str, int]]()  # name and step of each point

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"{phase}/{name}", value, number)
            self.written.add((f"{phase}/{name}", number))
        self.writer.flush()

    @cached_property
    def writer(self) -> "SummaryWriter":
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self.folder))


class LiveRun(TensorBoardListener):
    """Writes the curves of a run that trains into RUN/tensorboard.

    What a stopped process left there is removed at the first epoch.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(run / FOLDER)

    @cached_property
    def writer(self) -> "SummaryWriter":
        shutil.rmtree(self.folder, ignore_errors=True)
        return super().writer

    def has_whole(self, curves: Iterable[Point]) -> bool:
        """Whether no curve is there in part: TensorBoard draws points in the order of writing."""
        names = {name for name, _ in self.written}
        return all((p.name, p.step) in self.written for p in curves if p.name in names)


def write_run(
    run: Path,
    tracked: TrackedRun,
    sources: Mapping[str, Path | CheckedFile],
    live: LiveRun | None = None,
) -> str:
    """Write a finished run to RUN/tensorboard; return that folder.

    sources: the example of each row, for pictures of wrong answers. live: the listener that wrote
    the curves while the run trained; if it missed no epoch, only
    what lacks is added. Raises
    SpecError if the folder exists and is not of `live`.
    """
    from tensorboardX import SummaryWriter

    folder, curves = run / FOLDER, tracked.curves
    if live is not None and live.written and live.has_whole(curves):
        with live.writer as writer:
            _add_points(writer, [p for p in curves if (p.name, p.step) not in live.written])
            _write_end(writer, run, tracked, sources)
        return str(folder)
    if live is not None:  # a process before it wrote the first epochs
        shutil.rmtree(folder, ignore_errors=True)
    try:
        with new_folder(folder) as part, SummaryWriter(str(part)) as writer:
            _add_points(writer, curves)
            _write_end(writer, run, tracked, sources)
    except FileExistsError as error:
        raise SpecError(
            f"{run} was tracked already, in {folder}. Remove that folder to write it again."
        ) from error
    return str(folder)


def _add_points(writer: "SummaryWriter", points: Iterable[Point]) -> None:
    for point in points:
        writer.add_scalar(point.name, point.value, point.step)


def _write_end(
    writer: "SummaryWriter",
    run: Path,
    tracked: TrackedRun,
    sources: Mapping[str, Path | CheckedFile],
) -> None:
    for name, value in tracked.figures.items():
        writer.add_scalar(name, value, 0)
    lines = [f"| {name} | {_cell(value)} |" for name, value in tracked.settings.items()]
    writer.add_text("recipe", "\n".join(["| setting | value |", "|---|---|", *lines]), 0)
    for path in figures_of(run):
        add_file(writer, f"figures/{path.stem}", path)
    if sources:
        _add_wrong(writer, run, sources)


def _add_wrong(
    writer: "SummaryWriter", run: Path, sources: Mapping[str, Path | CheckedFile]
) -> None:
    """Add wrong answers of the test part as "wrong/TRUTH_as_ANSWER/PATH"."""
    facts = read_facts(run, sources)
    test = facts.test
    if not test.target.counts_right:
        return
    truths = test.target.decode(test.labels)
    for row in _surest_mistakes(test.scores, test.known & ~test.correct):
        path = spelt(test.ids[row])
        name = f"wrong/{truths[row]}_as_{test.names[row]}/{path}"
        add_example(writer, name, facts.album, path)


def _surest_mistakes(
    scores: NDArray[np.float32], wrong: NDArray[np.bool_]
) -> Sequence[int] | NDArray[np.intp]:
    """Return the SHOWN wrong rows with the highest scores; none where there are no scores."""
    rows = np.flatnonzero(wrong)
    if not scores.shape[1]:
        return ()
    return rows[np.argsort(-scores[rows].max(axis=1), kind="stable")][:SHOWN]


def _cell(text: str) -> str:
    """Escape text for a Markdown table cell."""
    return " ".join(text.replace("|", "\\|").splitlines())
