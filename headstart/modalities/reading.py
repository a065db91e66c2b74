"""Read datasets from folders and manifests, by default of pictures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.backbones.inputs import INPUTS, PATH, Input, input_class
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.base.store import Store
from headstart.base.tables import column_names
from headstart.data import finding, readers
from headstart.data import survey as surveying
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.survey import Survey
from headstart.modalities.images.inputs import ImageInput

USUAL: Input[Any] = ImageInput()


def read(source: Path | str, target: str = "", *, input: Input[Any] | None = None) -> Dataset:
    """Read a folder of one folder per class, a folder of parts, or a CSV or Parquet manifest.

    A folder with CIFAR-10 (binary or Python version) or the Oxford-IIIT pets, as their archives
    unpack, is recognised by its files and read with its parts.

    A row's id is its path relative to the folder (or to the manifest's folder), a class is named by
    its folder or label in NFC, and classes are sorted by name. Unused files are in `left_out`. No
    picture is decoded.

    target: kind of target of a manifest; "" is the first kind whose columns the manifest has,
    classes before others.

    Raises DataError if the path does not exist, has no example, or is an incomplete manifest;
    UnknownName for an unknown kind of target; MissingPackage for Parquet without pyarrow.
    """
    path = Path(source)
    if path.is_dir():
        return replace(_folder(path, input or USUAL), input=input or USUAL)
    if not path.exists():
        raise DataError(f"There is no folder or file {display(path)}. Check the path.")
    if path.suffix.lower() not in readers.MANIFESTS:
        raise DataError(f"{display(path)} is a file and no manifest. {readers.LAYOUT}")
    kind = input or _input_of(path)
    return replace(readers.read_manifest(path, kind, target), input=kind)


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
    paths: Sequence[Path], *, input: Input[Any] = USUAL
) -> tuple[Dataset, tuple[LeftOut, ...]]:
    """Return files, and the examples in folders, as rows of one class "?"; and what was left out.

    A path given twice is one row. Raises DataError if there is no row.
    """
    return finding.find(paths, input)


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
