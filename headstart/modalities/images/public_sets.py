"""Read folders of public data sets whose labels or parts are in lists, not in names of folders.

Food-101, CUB-200, Oxford's Flowers 102, MNIST and Fashion-MNIST, and Kaggle's cats and dogs, each
as its archive unpacks. Classes are named and parts divided as their authors did.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.walking import about_links, passed_over
from headstart.modalities.images import idx
from headstart.modalities.images.archives import (
    MISSING,
    Row,
    SetFolder,
    candidates,
    dataset_of_rows,
)

MAX_MATLAB = 100_000  # bytes of a .mat file, which may be compressed; Oxford's have 15,000
NUMBERED = re.compile(r"([A-Za-z]+)\.[0-9]+\.(jpg|jpeg|png)", re.IGNORECASE)
MOSTLY = 0.9  # share of the files in a folder that must be named by their class
Listed = Iterable[tuple[str, str, str]]  # path relative to the set's folder, class, part


def read_public_set(root: Path) -> Dataset | None:
    """Read one of these sets from a folder, or the only folder in it; None if there is none.

    Listed pictures that are missing, or links that lead out of `root`, are in `left_out`. Raises
    DataError if a list is damaged or none of its pictures is there.
    """
    root = root.resolve()
    for folder in dict.fromkeys(inner for outer in candidates(root) for inner in candidates(outer)):
        for name, reader in SETS.items():
            if (listed := reader(folder)) is not None:
                return _dataset(SetFolder(root, folder), name, listed)
    return None


def _dataset(place: SetFolder, name: str, listed: Listed) -> Dataset:
    rows, left_out = list[Row](), list[LeftOut]()
    for path, label, part in listed:
        file = place.folder / path
        in_file = idx.is_pictures(file.parent.name)
        if not label or (fault := "" if in_file else place.fault(path)):
            why = "a part without labels" if not label else fault
            why = "listed, but no such file" if why == MISSING else why
            left_out.append(LeftOut(path, why, label=label))
        else:
            rows.append((path, file, label, part))
    if not rows:
        raise DataError(
            f"None of the pictures that {name} lists is in {display(place.folder)}."
            f"{about_links(left_out)} Unpack the whole archive there."
        )
    return dataset_of_rows(rows, left_out)


def _lines(file: Path) -> Iterator[list[str]]:
    for line in file.read_text("utf-8", errors="replace").splitlines():
        if cells := line.split():
            yield cells


def _food(folder: Path) -> Listed | None:
    """Food-101: meta/train.txt and meta/test.txt list <class>/<number>."""
    lists = {part: folder / "meta" / f"{part}.txt" for part in ("train", "test")}
    if not (folder / "images").is_dir() or not all(file.is_file() for file in lists.values()):
        return None
    return [
        (f"images/{cells[0]}.jpg", cells[0].partition("/")[0], part)
        for part, file in lists.items()
        for cells in _lines(file)
    ]


def _birds(folder: Path) -> Listed | None:
    """CUB-200: images.txt lists numbers and paths, train_test_split.txt a 1 for training."""
    names, split = folder / "images.txt", folder / "train_test_split.txt"
    if not (folder / "images").is_dir() or not (names.is_file() and split.is_file()):
        return None
    train = {cells[0]: cells[-1] == "1" for cells in _lines(split)}
    return [
        (f"images/{path}", path.partition("/")[0], "train" if train.get(number) else "test")
        for number, path in (cells[:2] for cells in _lines(names) if len(cells) > 1)
    ]


def _flowers(folder: Path) -> Listed | None:
    """Flowers 102: imagelabels.mat has the classes 1 to 102, setid.mat the parts."""
    labels, parts = folder / "imagelabels.mat", folder / "setid.mat"
    if not (folder / "jpg").is_dir() or not (labels.is_file() and parts.is_file()):
        return None
    classes, sets = _matlab(labels, "labels"), dict[int, str]()
    for name, part in (("trnid", "train"), ("valid", "val"), ("tstid", "test")):
        sets |= dict.fromkeys(_matlab(parts, name), part)
    return [
        (f"jpg/image_{n:05}.jpg", str(label), sets.get(n, "")) for n, label in enumerate(classes, 1)
    ]


def _matlab(file: Path, name: str) -> list[int]:
    """Return the whole numbers of a variable in a .mat file; raises DataError."""
    import scipy.io

    try:
        if file.stat().st_size > MAX_MATLAB:
            raise ValueError(f"it has more than {MAX_MATLAB:,} bytes")
        values: Any = scipy.io.loadmat(file, variable_names=[name])[name]
        return [int(value) for value in np.asarray(values, np.int64).ravel()]
    except Exception as error:  # damaged bytes raise any error in the parser
        why = f"must hold the numbers {name!r} of Flowers 102, and does not ({error})"
        raise DataError(f"{display(file)} {why}. Download it again.") from error


def _digits(folder: Path) -> Listed | None:
    """MNIST: pictures and labels in IDX files, compressed or not."""
    found = list[tuple[str, str, str]]()
    for name, part in idx.PARTS.items():
        images, labels = (
            next((file for file in _endings(folder / f"{name}-{what}-idx{n}-ubyte")), None)
            for what, n in (("images", 3), ("labels", 1))
        )
        if images is None or labels is None:
            continue
        pictures, classes = idx.read_idx(images), idx.read_idx(labels)
        if classes.shape != pictures.shape[:1]:
            raise DataError(
                f"{display(images)} holds {len(pictures):,} pictures, and {display(labels)} "
                f"{len(classes):,} labels. Download both again."
            )
        found += [(f"{images.name}/{i:05}", str(label), part) for i, label in enumerate(classes)]
    return found or None


def _endings(path: Path) -> Iterator[Path]:
    """Yield the spellings of a file of MNIST that are there, unpacked ones first."""
    for end in ("", ".gz"):
        for name in (path.name, re.sub(r"-(idx\d)", r".\1", path.name)):
            if (file := path.with_name(f"{name}{end}")).is_file():
                yield file


def _named_by_class(folder: Path) -> Listed | None:
    """Cats and dogs of Kaggle: pictures in train are named by their class, train/cat.0.jpg."""
    inner = folder / "train" if (folder / "train").is_dir() else folder
    try:
        names = [name for name in sorted(os.listdir(inner)) if not passed_over(name)]
    except OSError:
        return None
    labels = {name: match[1] for name in names if (match := NUMBERED.fullmatch(name))}
    if len(set(labels.values())) < 2 or len(labels) < MOSTLY * len(names):
        return None
    if min(Counter(labels.values()).values()) < 2:
        return None
    top = "" if inner == folder else "train/"
    rows = [(f"{top}{name}", label, "") for name, label in labels.items()]
    others = sorted(path.name for path in folder.iterdir() if path.is_dir() and path != inner)
    others = [name for name in others if not passed_over(name)]
    if not all(name.lower().startswith("test") for name in others):
        return None  # train is a class among others
    return rows + [(name, "", "") for name in others]


SETS: dict[str, Callable[[Path], Listed | None]] = {
    "Food-101": _food,
    "CUB-200": _birds,
    "Flowers 102": _flowers,
    "MNIST": _digits,
    "cats and dogs": _named_by_class,
}
