"""Read datasets from folders and manifests, by default of pictures."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.inputs import INPUTS, PATH, Encoded, Input, input_class
from headstart.base.display import display, source_of
from headstart.base.errors import DataError
from headstart.base.paths import user_path
from headstart.base.store import Store
from headstart.base.tables import Cells, column_names
from headstart.data import finding, readers, zip_files
from headstart.data import survey as surveying
from headstart.data.boxes.classes import class_rows
from headstart.data.boxes.cleaning import dataset_of
from headstart.data.boxes.layouts import LAYOUTS, BoxLayout, annotations_of
from headstart.data.choosing import planned, with_kind
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.index_file import facts_of, read_index
from headstart.data.survey import Survey
from headstart.modalities import inputs as inputs  # registers the kinds of examples
from headstart.modalities.images.frames import frame_of
from headstart.modalities.images.inputs import ImageInput
from headstart.targets.classes import ClassTarget
from headstart.targets.plan import TargetPlan
from headstart.targets.registry import TARGETS
from headstart.targets.target import Target

USUAL: Input[Any] = ImageInput()
BESIDE = ("readme", "license", "licence", "notice", "changelog")  # files about the data
PACKED = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
BOXES = "boxes"  # the kind of target
LONGEST_PATH = 4096  # characters


def read(
    source: Any,
    target: str = "",
    *,
    ordered: str | Sequence[str] = "",
    input: Input[Any] | str | None = None,
    voc_base: int = 1,
) -> Dataset:
    """Read labelled examples from a folder, a manifest, a data frame, pairs or arrays.

    source: a folder with one folder per class, or with parts (train, val, test) of such folders;
    a ZIP archive of such a folder, which is read in place;
    the path of a CSV, JSON Lines or Parquet manifest; a DataFrame with a manifest's columns; a list
    of pairs (example, label); a pair of arrays (examples, labels), such as `(x, y)`; a Dataset,
    which is returned. An example is a path or, in pairs and arrays, a PIL image or an array
    (H, W, 3) uint8.

    input: the kind of the examples, such as "text"; None follows the data: a manifest with a column
    `path` lists images, one with a column `text` holds texts, and a folder is of the kind that most
    files in its folders have. In pairs and arrays a str is the path of an image, unless input is
    "text".

    A folder that holds the unpacked archives of CIFAR-10 (binary or Python version) or of the
    Oxford-IIIT pets is recognised by its files; their split into train and test is kept.

    A row's id is its path relative to the folder (or to the manifest's folder), or its number from
    1 for an example in memory; a class is named by its folder or label in NFC, and classes are
    sorted by name. Unused files are in `left_out`. No example is decoded.

    target: the kind of target. "" follows the data: folders, arrays and a column `label` are
    classes, `labels` (or one column of 0 and 1 per label) several labels; `choice` says so.
    ordered: the names of grades, the lowest first.

    Boxes are read from COCO's JSON, a YOLO data.yaml, Pascal VOC (Annotations beside JPEGImages),
    Label Studio's JSON, CVAT's XML, or a CSV with the columns path, label, xmin, ymin, xmax, ymax;
    source is the folder or the file. voc_base: where the pixels of VOC's boxes count from, 1 or 0.

    Raises DataError if the path does not exist, has no example, or is an incomplete manifest, or
    for a wrong label; UnknownName for an unknown kind of target; MissingPackage for Parquet
    without pyarrow.

    >>> pixels = np.zeros((2, 8, 8, 3), np.uint8)
    >>> read((pixels, ["cat", "dog"])).classes
    ('cat', 'dog')
    """
    if not isinstance(target, str):  # read(x, y)
        source, target = _Arrays(source, target), ""
    names = ordered if isinstance(ordered, str) else ",".join(ordered)
    asked = input_class(input)() if isinstance(input, str) else input
    return read_as(source, TargetPlan(target, names, voc_base=voc_base), input=asked)


def read_as(source: Any, plan: TargetPlan, *, input: Input[Any] | None = None) -> Dataset:
    """Read labelled examples as `read` does, with all the settings of a target."""
    if isinstance(source, Dataset) and not (plan.kind or plan.loss):
        return source
    return _with_origin(source, planned(_read(source, plan.kind, input, plan.voc_base), plan))


def read_for(source: Any, target: Target, *, input: Input[Any] | None = None) -> Dataset:
    """Read labelled examples to judge a model of this target by."""
    if isinstance(source, Dataset):
        return source
    return _with_origin(source, _read(source, target.kind, input))


def _with_origin(source: Any, found: Dataset) -> Dataset:
    if isinstance(source, str | os.PathLike):
        return replace(found, origin=source_of(user_path(source)))
    return found


def _read(source: Any, kind: str, input: Input[Any] | None, voc_base: int = 1) -> Dataset:
    """Return the examples, with labels of the given kind of target; "" leaves it to the data."""
    if isinstance(source, Dataset):
        return with_kind(source, kind)
    if not isinstance(source, str | os.PathLike):
        if kind == BOXES:
            raise DataError(f"Boxes are read from {LAYOUTS}: name that folder or file.")
        own = input or _input_with(_columns_of(source))
        records = _records(source, own, TARGETS[kind] if kind else ClassTarget)
        return replace(readers.read_records(records, "the rows", own, kind), input=own)
    path = user_path(source)
    if kind in ("", BOXES) and path.exists() and isinstance(input or USUAL, ImageInput):
        layout = BoxLayout(path, kind == BOXES, voc_base)
        own = input or USUAL
        if annotated := annotations_of(layout, own):
            classes = None if kind == BOXES else class_rows(layout, *annotated)
            if classes is None:
                return replace(dataset_of(*annotated, frame_of), input=own)
            records, left_out = classes
            data = readers.read_records(records, str(layout.root / "annotations"), own)
            return replace(data, left_out=(*data.left_out, *left_out), input=own)
    if path.is_dir():
        own = input or folder_input(path)
        return with_kind(replace(read_folder_as(path, own), input=own), kind)
    if not path.exists():
        raise DataError(f"There is no folder or file {display(path)}. Check the path.")
    if path.suffix.lower() == zip_files.SUFFIX and isinstance(input or USUAL, ImageInput):
        return with_kind(replace(readers.read_folder(path, input or USUAL), input=USUAL), kind)
    if any(path.name.lower().endswith(end) for end in PACKED):
        raise DataError(f"{_about_archive(path)}")
    if path.suffix.lower() not in readers.MANIFESTS:
        raise DataError(f"{display(path)} is a file and no manifest. {readers.LAYOUT}")
    if facts_of(path):
        return read_index(path, input, kind)
    own = input or _input_of(path)
    return replace(readers.read_manifest(path, own, kind), input=own)


def _about_archive(path: Path) -> str:
    """Return what to do with an archive that is not read in place."""
    both = " and annotations.tar.gz into one folder" if path.name == "images.tar.gz" else ""
    both = " and images.tar.gz into one folder" if path.name == "annotations.tar.gz" else both
    how = f"tar -xf {display(path)} -C FOLDER" if ".t" in path.name.lower() else "FOLDER"
    of_pets = f" (of the Oxford-IIIT pets, unpack {path.name}{both})" if both else ""
    return (
        f"{display(path)} is a packed archive, and pictures are read from folders and ZIP "
        f"archives. Unpack it, {how}, and give the folder{of_pets}."
    )


def _records(source: Any, kind: Input[Any], target: type[Target]) -> list[Cells]:
    """Return rows by column from a data frame, from pairs or from a pair of arrays."""
    for rows_of in (("to_dicts",), ("to_pylist",), ("to_dict", "records")):  # Polars, Arrow, pandas
        if hasattr(source, "columns") and hasattr(source, rows_of[0]):
            return list(getattr(source, rows_of[0])(*rows_of[1:]))
    if arrays := _arrays_of(source):
        examples, labels = arrays.examples, arrays.labels
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


@dataclass(frozen=True)
class _Arrays:
    """Examples, and a label for each."""

    examples: Any
    labels: Any

    def __post_init__(self) -> None:
        if not (_is_column(self.examples) and _is_column(self.labels)):
            got = " and ".join(type(own).__name__ for own in (self.examples, self.labels))
            raise DataError(
                f"Two arguments of data are arrays, lists or tuples: the examples and their "
                f"labels; got {got}. The name of a kind of target is a text."
            )


def _arrays_of(source: Any) -> _Arrays | None:
    """Return the arrays of examples and labels, None for a list or tuple of pairs."""
    if isinstance(source, _Arrays):
        return source
    both = isinstance(source, tuple) and len(source) == 2 and all(map(_is_column, source))
    pairs = both and all(isinstance(row, tuple) for row in source)
    return _Arrays(*source) if both and not pairs else None


def _in_memory(example: Any) -> Any:
    """Return bytes, the content of a file, as an example in memory; others as they are."""
    return Encoded("", example) if isinstance(example, bytes) else example


def _is_column(values: Any) -> bool:
    """Whether values are the labels of many examples, and not one label."""
    return hasattr(values, "__len__") and not isinstance(values, str | bytes)


def _is_pair(row: Any) -> bool:
    return isinstance(row, list | tuple) and len(row) == 2


def read_folder_as(path: Path, input: Input[Any]) -> Dataset:
    """Return the examples of a folder: of class folders, or of a known public data set."""
    known: Dataset | None = input.known_set(path)
    return readers.read_folder(path, input) if known is None else known


def _input_of(manifest: Path) -> Input[Any]:
    """Return the kind of input whose column a manifest has."""
    return _input_with(lambda column: column in column_names(manifest, (column,)))


def _columns_of(source: Any) -> Callable[[str], bool]:
    """Return whether rows in memory have a column; pairs and arrays have none."""
    named = getattr(source, "column_names", None)  # of Arrow, whose `columns` are the cells
    columns = named if isinstance(named, list) else getattr(source, "columns", ())
    names = {str(name).strip().casefold() for name in columns}
    return names.__contains__


def _input_with(has: Callable[[str], bool]) -> Input[Any]:
    """Return the kind of input whose column is there; one of paths is of the usual kind."""
    columns = {kind.column: kind for kind in _other_kinds() if kind.column != PATH}
    if not columns or has(PATH):
        return USUAL
    return next((kind() for column, kind in columns.items() if has(column)), USUAL)


def folder_input(folder: Path) -> Input[Any]:
    """Return the kind of input of most files in a folder's folders; ties go to the usual kind.

    Another kind has files in two folders at least, one per class: a single one with text files
    describes pictures.
    """
    kinds = [type(USUAL), *(kind for kind in _other_kinds() if kind.suffixes)]
    of = {suffix: kind for kind in reversed(kinds) for suffix in kind.suffixes}
    counts = Counter[type[Input[Any]]]()
    places = Counter[type[Input[Any]]]()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if place != str(folder):  # files beside the class folders describe the data
            ends = (os.path.splitext(name.lower()) for name in files if name[0] != ".")
            here = [of[end] for stem, end in ends if end in of and stem not in BESIDE]
            counts.update(here)
            places.update(set(here))
    kind = max(kinds, key=lambda kind: counts[kind] if places[kind] > 1 else 0)
    return USUAL if kind is type(USUAL) else kind()


def _other_kinds() -> list[type[Input[Any]]]:
    return [input_class(kind) for kind in INPUTS.names() if kind != USUAL.kind]


def find(
    examples: Any, *, input: Input[Any] = USUAL, repeated: bool = False
) -> tuple[Dataset, tuple[LeftOut, ...]]:
    """Return examples to predict as rows of one class "?", and the files that were left out.

    examples: a path, an example in memory (a PIL image, an array, a text for a model of texts), or
    several of them; of a folder,
    the examples in it. An array of one more axis than an example holds several. repeated: whether a
    path given again is a row again. Raises DataError if there is no row.
    """
    rows = [_named(row, input) for row in _several(examples)]
    return finding.find(rows, input, repeated=repeated)


def _named(example: Any, input: Input[Any]) -> Any:
    """Return an example's path, if it is one; a str may also be the example itself, as texts are.

    Then it is a path if such a file exists, or if it ends as a file of this kind or a manifest.
    """
    if isinstance(example, os.PathLike) or (isinstance(example, str) and input.column == PATH):
        return user_path(example)
    if not isinstance(example, str) or len(example) > LONGEST_PATH or "\n" in example:
        return example
    path = user_path(example)
    endings = (*input.suffixes, *readers.MANIFESTS)
    return path if path.suffix.lower() in endings or os.path.exists(path) else example


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
