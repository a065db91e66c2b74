"""From what people have to datasets: of pictures, unless another kind of input is named."""

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
    """The examples of a folder a class, of a folder of parts, or of a CSV or Parquet manifest.

    A folder that holds CIFAR-10 (binary or Python version) or the Oxford-IIIT pets as their
    archives unpack is known by its files, and read with their parts.

    A row's id is its path relative to the folder (or to the manifest's folder), a class is named
    by its folder or label in NFC, and classes are sorted by name. What is there and not used is in
    `left_out`. No picture is decoded here.

    target: the kind of target that a manifest is read for; "" is the first one whose columns it
    has, classes before others.

    Raises DataError when there is nothing there, no example, or a manifest that does not hold what
    it must; UnknownName for no such kind of target; MissingPackage when a Parquet file is read
    without pyarrow.
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
    """Files as rows of one class "?", folders by the examples in them, and what was left out.

    A path named twice is one row. Raises DataError when nothing at all is left.
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
    """Decode every file once and note what it shows; with a store, never again for the same bytes.

    Raises StoreError when the store can't be written.
    """
    return surveying.survey(dataset, input, store=store, threads=threads, progress=progress)
