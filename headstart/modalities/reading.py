"""Read datasets from folders and manifests, by default of pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headstart.backbones.inputs import Input
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.base.store import Store
from headstart.data import finding, readers
from headstart.data import survey as surveying
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.survey import Survey
from headstart.modalities.images.inputs import ImageInput

USUAL: Input[Any] = ImageInput()


def read(source: Path | str, target: str = "", *, input: Input[Any] = USUAL) -> Dataset:
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
        known: Dataset | None = input.known_set(path)
        return readers.read_folder(path, input) if known is None else known
    if not path.exists():
        raise DataError(f"There is no folder or file {display(path)}. Check the path.")
    if path.suffix.lower() not in readers.MANIFESTS:
        raise DataError(f"{display(path)} is a file and no manifest. {readers.LAYOUT}")
    return readers.read_manifest(path, target)


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
    input: Input[Any] = USUAL,
    store: Store | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Decode every file and collect facts of its content; a store remembers them by its bytes.

    Raises StoreError if the store can't be written.
    """
    return surveying.survey(dataset, input, store=store, threads=threads, progress=progress)
