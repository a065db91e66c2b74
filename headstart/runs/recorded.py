"""The data of a finished run, found again where the run recorded it."""

from pathlib import Path

from headstart.base.errors import DataError, HeadstartError, SpecError
from headstart.base.listener import Listener
from headstart.data.dataset import CheckedFile, Dataset
from headstart.explaining.pixels.squares import stratified_rows
from headstart.modalities.reading import read_as
from headstart.runs.demos import BUILT_IN
from headstart.runs.folder import (
    recorded_contents,
    recorded_plan,
    recorded_rows,
    recorded_source,
)
from headstart.targets.plan import TargetPlan

USUAL = TargetPlan()
KNOWN = 5_000  # training rows searched for neighbours, at most


def data_from(source: Path | str, plan: TargetPlan = USUAL) -> Dataset:
    """Read the data at a path, or the built-in example that a run recorded."""
    built_in = BUILT_IN.get(str(source))
    return read_as(built_in() if built_in else source, plan)


def recorded_data(run: Path, data: Path | None = None) -> Dataset:
    """Read the data of a run from `data`, else from its recorded source.

    Raises SpecError if no source is known, DataError if it is unreadable.
    """
    source = recorded_source(run)
    if not data and not source:
        raise SpecError(f"{run} does not say where its examples are: name them with --data.")
    return data_from(data or source, recorded_plan(run))


def recorded_files(
    run: Path, data: Path | None = None, listener: Listener | None = None
) -> dict[str, CheckedFile]:
    """Return the file of each row of a run by id, with its recorded content.

    If `data` is None and the source is gone, the listener gets a message, and {} is returned.
    """
    try:
        found = recorded_data(run, data)
    except HeadstartError as error:
        if data is not None or isinstance(error, SpecError):
            raise
        message = f"left out: {error} (name where they are now with --data)"
        (listener or Listener()).stage("examples", message)
        return {}
    return dict(zip(found.ids, recorded_contents(run, found).files, strict=True))


def part_of(run: Path, data: Dataset, part: str) -> Dataset:
    """Return the rows of `data` that were in this part of the run, by name; their recorded
    contents are verified on reading. Raises DataError if there are none."""
    recorded_source(run)  # raises DataError for a folder that holds no run
    recorded = recorded_rows(run)
    rows = [i for i, id in enumerate(data.ids) if id in recorded and recorded[id].part == part]
    if part == "test" and any(row.fold for row in recorded.values()):
        raise DataError(
            f"There must be test rows, and {run} was judged by cross-validation: its saved model "
            f"learned from all its rows. Name other {data.examples}, or a run without --folds."
        )
    if recorded and all(row.part != part for row in recorded.values()):
        raise DataError(
            f"There must be {part} rows, and {run} was trained without any: its data left none "
            f"for that part. Train again, on more {data.examples} or with a part {part} of "
            f"their own."
        )
    if not rows:
        raise DataError(
            f"There must be {part} rows of {run}; the {len(data):,} found are none of them. "
            f"Name where they are now with --data."
        )
    return recorded_contents(run, data.take(rows))


def known_rows(run: Path, data: Dataset, listener: Listener) -> Dataset:
    """Return the training rows to search for neighbours: at most KNOWN, stratified by class.
    Raises DataError if there are none."""
    train = part_of(run, data, "train")
    if len(train) > KNOWN:
        found = f"neighbours are looked for among {KNOWN:,} of {len(train):,} training rows"
        listener.stage("known", found)
    return train.take(stratified_rows(train.y, KNOWN))
