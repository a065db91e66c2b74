"""Read datasets from folders and manifests, by default of pictures."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.inputs import INPUTS, PATH, Encoded, Input, input_class
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.base.store import Store
from headstart.base.tables import Cells, column_names
from headstart.data import finding, readers
from headstart.data import survey as surveying
from headstart.data.choosing import planned, with_kind
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.survey import Survey
from headstart.modalities.images.inputs import ImageInput
from headstart.targets.classes import ClassTarget
from headstart.targets.plan import TargetPlan
from headstart.targets.registry import TARGETS
from headstart.targets.target import Target

USUAL: Input[Any] = ImageInput()


def read(
    source: Any,
    target: str = "",
    *,
    ordered: str | Sequence[str] = "",
    input: Input[Any] | None = None,
) -> Dataset:
    """Read labelled examples from a folder, a manifest, a data frame, pairs or arrays.

    source: a folder with one folder per class, or with parts (train, val, test) of such folders;
    the path of a CSV or Parquet manifest; a DataFrame with a manifest's columns; a list of pairs
    (example, label); a pair of arrays (examples, labels), such as `(x, y)`; a Dataset, which is
    returned. An example is a path or, in pairs and arrays, a PIL image or an array (H, W, 3) uint8.

    A folder that holds the unpacked archives of CIFAR-10 (binary or Python version) or of the
    Oxford-IIIT pets is recognised by its files; their split into train and test is kept.

    A row's id is its path relative to the folder (or to the manifest's folder), or its number from
    1 for an example in memory; a class is named by its folder or label in NFC, and classes are
    sorted by name. Unused files are in `left_out`. No picture is decoded.

    target: the kind of target. "" follows the data: folders, arrays and a column `label` are
    classes, `labels` (or one column of 0 and 1 per label) several labels; `choice` says so.
    ordered: the names of grades, the lowest first.

    Raises DataError if the path does not exist, has no example, or is an incomplete manifest, or
    for a wrong label; UnknownName for an unknown kind of target; MissingPackage for Parquet
    without pyarrow.

    >>> pixels = np.zeros((2, 8, 8, 3), np.uint8)
    >>> read((pixels, ["cat", "dog"])).classes
    ('cat', 'dog')
    """
    if not isinstance(target, str):  # read(x, y)
        source, target = (source, target), ""
    names = ordered if isinstance(ordered, str) else ",".join(ordered)
    return read_as(source, TargetPlan(target, names), input=input)


def read_as(source: Any, plan: TargetPlan, *, input: Input[Any] | None = None) -> Dataset:
    """Read labelled examples as `read` does, with all the settings of a target."""
    if isinstance(source, Dataset) and not (plan.kind or plan.loss):
        return source
    return planned(_read(source, plan.kind, input), plan)


def read_for(source: Any, target: Target, *, input: Input[Any] | None = None) -> Dataset:
    """Read labelled examples to judge a model of this target by."""
    return source if isinstance(source, Dataset) else _read(source, target.kind, input)


def _read(source: Any, kind: str, input: Input[Any] | None) -> Dataset:
    """Return the examples, with labels of the given kind of target; "" leaves it to the data."""
    if isinstance(source, Dataset):
        return with_kind(source, kind)
    own = input or USUAL
    if not isinstance(source, str | os.PathLike):
        records = _records(source, own, TARGETS[kind] if kind else ClassTarget)
        return replace(readers.read_records(records, "the rows", own, kind), input=own)
    path = Path(source).expanduser()
    if path.is_dir():
        return with_kind(replace(_folder(path, own), input=own), kind)
    if not path.exists():
        raise DataError(f"There is no folder or file {display(path)}. Check the path.")
    if path.suffix.lower() not in readers.MANIFESTS:
        raise DataError(f"{display(path)} is a file and no manifest. {readers.LAYOUT}")
    own = input or _input_of(path)
    return replace(readers.read_manifest(path, own, kind), input=own)


def _records(source: Any, kind: Input[Any], target: type[Target]) -> list[Cells]:
    """Return rows by column from a data frame, from pairs or from a pair of arrays."""
    for rows_of in (("to_dict", "records"), ("to_dicts",), ("to_pylist",)):  # pandas, Polars, Arrow
        if hasattr(source, "columns") and hasattr(source, rows_of[0]):
            return list(getattr(source, rows_of[0])(*rows_of[1:]))
    pairs = isinstance(source, tuple) and all(isinstance(row, tuple) for row in source)
    if isinstance(source, tuple) and len(source) == 2 and _is_column(source[1]) and not pairs:
        examples, labels = source
        if len(examples) != len(labels):
            raise DataError(
                f"Every example needs a label; got {len(examples)} examples and {len(labels)} "
                f"labels."
            )
    elif not isinstance(source, list | tuple) or not all(_is_pair(row) for row in source):
        raise DataError(
            f"Data is a path, a data frame, a list of pairs (example, label), or a pair of arrays "
            f"(examples, labels); got a {type(source).__name__}."
        )
    else:
        examples, labels = [row[0] for row in source], [row[1] for row in source]
    if not len(examples):
        raise DataError("There are no examples: the list is empty.")
    rows = zip(examples, target.cells(labels), strict=True)
    return [{kind.column: _in_memory(example), **cells} for example, cells in rows]


def _in_memory(example: Any) -> Any:
    """Return bytes, the content of a file, as an example in memory; others as they are."""
    return Encoded("", example) if isinstance(example, bytes) else example


def _is_column(values: Any) -> bool:
    """Whether values are the labels of many examples, and not one label."""
    return hasattr(values, "__len__") and not isinstance(values, str | bytes)


def _is_pair(row: Any) -> bool:
    return isinstance(row, list | tuple) and len(row) == 2


def _folder(path: Path, input: Input[Any]) -> Dataset:
    known: Dataset | None = input.known_set(path)
    return readers.read_folder(path, input) if known is None else known


def _input_of(manifest: Path) -> Input[Any]:
    """The kind of input whose column a manifest has; one of paths is of the usual kind."""
    named = {kind: input_class(kind) for kind in INPUTS.names() if kind != USUAL.kind}
    columns = {kind.column: kind for kind in named.values() if kind.column != PATH}
    found = column_names(manifest, (PATH, *columns)) if columns else {PATH}
    return USUAL if PATH in found else next((columns[c]() for c in columns if c in found), USUAL)


def find(
    examples: Any, *, input: Input[Any] = USUAL, repeated: bool = False
) -> tuple[Dataset, tuple[LeftOut, ...]]:
    """Return examples to predict as rows of one class "?", and the files that were left out.

    examples: a path, an example in memory (a PIL image, an array), or several of them; of a folder,
    the examples in it. An array of one more axis than an example holds several. repeated: whether a
    path given again is a row again. Raises DataError if there is no row.
    """
    rows = (
        Path(row).expanduser() if isinstance(row, str | os.PathLike) else row
        for row in _several(examples)
    )
    return finding.find(list(rows), input, repeated=repeated)


def _several(examples: Any) -> Iterable[Any]:
    """Return the examples one by one."""
    if isinstance(examples, str | bytes | os.PathLike) or not isinstance(examples, Iterable):
        return [examples]
    if not hasattr(examples, "__array__"):
        return examples
    array = np.asarray(examples)
    if array.dtype.kind in "OUS":  # paths, of a pandas Series too
        return list(array.ravel())
    return [array] if array.ndim < 4 else list(array)


def survey(
    dataset: Dataset,
    *,
    input: Input[Any] | None = None,
    store: Store | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Decode every file and collect facts of its content; a store remembers them by its bytes.

    Raises StoreError if the store can't be written.
    """
    kind = input or dataset.input or USUAL
    return surveying.survey(dataset, kind, store=store, threads=threads, progress=progress)
