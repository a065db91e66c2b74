"""Read datasets from folders and manifests, by default of pictures."""

import os
from collections.abc import Callable, Iterable
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
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.survey import Survey
from headstart.modalities.images.inputs import ImageInput
from headstart.targets.classes import ClassTarget
from headstart.targets.registry import TARGETS
from headstart.targets.target import Target

USUAL: Input[Any] = ImageInput()


def read(source: Any, target: str = "", *, input: Input[Any] | None = None) -> Dataset:
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

    target: kind of target of a manifest; "" is the first kind whose columns the manifest has,
    classes before others.

    Raises DataError if the path does not exist, has no example, or is an incomplete manifest;
    UnknownName for an unknown kind of target; MissingPackage for Parquet without pyarrow.

    >>> pixels = np.zeros((2, 8, 8, 3), np.uint8)
    >>> read((pixels, ["cat", "dog"])).classes
    ('cat', 'dog')
    """
    if isinstance(source, Dataset):
        return source
    if not isinstance(target, str):  # read(x, y)
        source, target = (source, target), ""
    if not isinstance(source, str | os.PathLike):
        kind = input or USUAL
        records = _records(source, kind, TARGETS[target] if target else ClassTarget)
        return replace(readers.read_records(records, "the rows", kind, target), input=kind)
    path = Path(source).expanduser()
    if path.is_dir():
        return replace(_folder(path, input or USUAL), input=input or USUAL)
    if not path.exists():
        raise DataError(f"There is no folder or file {display(path)}. Check the path.")
    if path.suffix.lower() not in readers.MANIFESTS:
        raise DataError(f"{display(path)} is a file and no manifest. {readers.LAYOUT}")
    kind = input or _input_of(path)
    return replace(readers.read_manifest(path, kind, target), input=kind)


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
        source = list(zip(examples, labels, strict=True))
    if not isinstance(source, list | tuple) or not all(_is_pair(row) for row in source):
        raise DataError(
            f"Data is a path, a data frame, a list of pairs (example, label), or a pair of arrays "
            f"(examples, labels); got a {type(source).__name__}."
        )
    if not source:
        raise DataError("There are no examples: the list is empty.")
    return [{kind.column: _in_memory(e), target.reads[0]: label} for e, label in source]


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
