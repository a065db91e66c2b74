"""The rows of a model's data that an export measures on: those of its run, or of other data."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.context import RunContext
from headstart.base.errors import HeadstartError, SpecError
from headstart.data.checks import CheckPlan, check, good_rows
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits, split
from headstart.exporting.rows import ExportRows
from headstart.heads.specs import HeadSpec
from headstart.modalities.reading import read_for, survey
from headstart.models.model import Model
from headstart.runs.config import read_config
from headstart.runs.folder import read_record
from headstart.runs.recorded import part_of, recorded_data
from headstart.targets.target import Target


def export_rows(
    model: Model, folder: Path | None, data: Any, needed: bool, context: RunContext
) -> ExportRows | None:
    """Return training and validation rows: of the run that `folder` is or is in, else of `data`,
    split here; None without either.

    needed: whether to raise SpecError, rather than return None, if the run's data is not there.
    """
    if folder is not None and read_record(folder) is not None:
        run = folder if (folder / "splits.csv").is_file() else folder.resolve().parent
        try:
            return _of_run(model, run, data)
        except HeadstartError as error:
            if needed:
                raise SpecError(
                    f"What an export changes is measured on the run's rows: {error}"
                ) from error
            context.listener.stage("rows", f"none to compare on: {error}")
            return None
    if data is None:
        return None
    rows = read_for(data, model.target)
    threads, progress = context.runtime.decode_threads, partial(context.listener.progress, "checks")
    seen = survey(rows, store=context.store, threads=threads, progress=progress)
    checks = check(rows, seen, threads=threads)
    return rows_of(model, split(good_rows(rows, seen, CheckPlan()), together=checks.together))


def rows_of(model: Model, splits: Splits, head: HeadSpec | None = None) -> ExportRows:
    """Return the rows of splits whose labels the model's target has."""
    train, val = (_known(part, model.target) for part in (splits.train, splits.val))
    if not len(train) or not len(val):
        raise SpecError(
            f"An export is measured on training and validation rows; there are {len(train):,} and "
            f"{len(val):,} with labels that the model has. Name other --data."
        )
    found = ExportRows(train, val)
    return found if head is None else replace(found, head=head)


def _of_run(model: Model, run: Path, data: Any) -> ExportRows:
    rows = recorded_data(run, None if data is None else Path(data))
    train, val = (part_of(run, rows, part) for part in ("train", "val"))
    splits = Splits(train, val, val.take([]))
    return rows_of(model, splits, read_config(run).recipe.head)


def _known(rows: Dataset, target: Target) -> Dataset:
    known = target.known(target.translate(rows.y, rows.target))
    return rows if known.all() else rows.take(np.flatnonzero(known))
