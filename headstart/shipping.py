"""Functions of the public API for models that leave Headstart: `export` and `verify`."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.api import Trained, loaded
from headstart.base.context import RunContext
from headstart.base.errors import PlaceError, SpecError
from headstart.base.listener import Listener
from headstart.base.paths import user_path
from headstart.base.runtime import Runtime, cores
from headstart.base.store import USUAL, Store
from headstart.exporting.plan import Exported, ExportPlan, Verified
from headstart.in_python import as_listener, as_store, speaks_python
from headstart.models.model import Model
from headstart.runs.config import read_config
from headstart.runs.run import Run
from headstart.runs.settings import check_known, with_settings

if TYPE_CHECKING:
    from headstart.exporting.rows import ExportRows

Where = str | Path


@speaks_python
def export(
    model: Trained,
    out: Where,
    *,
    data: Any = None,
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> Exported:
    """Write a model to a new folder as one graph from pixels or tokens to calibrated scores.

    model: the folder of a run or bundle, or what `fit`, `train` and `load` return. data: labelled
    examples, for a bundle or where those of the run are now; fp16 and int8 need them. settings:
    `to`, `precision`, `max_changed`, `threads` and `decode_threads`. Raises PlaceError if `out`
    exists, SpecError without rows that a precision needs, Mismatch if the graph's answers differ
    from the model's by more than 1e-4, or if fp16 or int8 change more than the allowed share.

    >>> hs.export("runs/flowers", "flowers-int8", precision="int8").changed  # doctest: +SKIP
    0.004
    """
    from headstart.exporting.export import export_model

    check_known(settings, {f.name for f in fields(ExportPlan)} | {"threads", "decode_threads"})
    plan, runtime = with_settings(ExportPlan(), settings), with_settings(Runtime(), settings)
    context = RunContext(as_store(store), runtime.resolved(), as_listener(listener))
    own, folder = loaded(model), user_path(out)
    try:
        return export_model(own, plan, folder, _rows(model, own, data, plan, context), context)
    except FileExistsError as error:
        raise PlaceError(f"{out} is there already: name another folder.") from error


@speaks_python
def verify(folder: Where, *, threads: int = 0) -> Verified:
    """Run the golden examples of an export again, on this machine; needs no PyTorch.

    threads: of the engine; 0 for all cores. Raises BundleError if a file of the export was altered,
    or if an answer is not what it was when the export was made.

    >>> hs.verify("flowers-onnx").difference  # doctest: +SKIP
    2.4e-07
    """
    from headstart.exporting.verifying import verify_export

    if threads < 0:
        raise SpecError(f"threads is a number of threads, or 0 for all cores; got {threads}.")
    return verify_export(user_path(folder), threads or cores())


def _rows(
    given: Trained, model: Model, data: Any, plan: ExportPlan, context: RunContext
) -> "ExportRows | None":
    """Return the rows that an export is measured on: named ones, or those of the model."""
    from headstart.runs.export_rows import export_rows, rows_of

    splits = getattr(given, "splits", None)
    if splits is not None and data is None:
        head = read_config(given.folder).recipe.head if isinstance(given, Run) else None
        return rows_of(model, splits, head)
    folder = user_path(given) if isinstance(given, str | Path) else None
    return export_rows(model, folder, data, plan.narrow, context)
