"""Read the unpacked archives of two public data sets: CIFAR-10 and the Oxford-IIIT pets.

CIFAR-10 keeps ten thousand pictures in a batch file. Each picture has a path below that file, as if
the file were a folder (`data_batch_1.bin/00017`); `read_member` makes a BMP file of it.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.base.cells import as_label
from headstart.base.errors import DataError
from headstart.base.pickles import MEMO, opcodes
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.walking import about_links, display, link_fault, passed_over
from headstart.modalities.images import idx
from headstart.modalities.images.encoding import encoded

SIDE = 32  # pixels, of a CIFAR picture
PICTURE = 3 * SIDE * SIDE  # bytes: a plane of red, then green, then blue
BATCHES = {**{f"data_batch_{i}": "train" for i in range(1, 6)}, "test_batch": "test"}
LISTS = {"annotations/trainval.txt": "train", "annotations/test.txt": "test"}  # of the pets
IMAGES = "images"  # folder of the pets' pictures
MAX_BYTES = 100_000_000  # of a batch file; the real ones have 31 million
MISSING = "part of the data set, but no such file"

PASSED = MEMO | {"FRAME"}  # opcodes without a value
INTEGERS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG1"})
STRINGS = frozenset(
    {"SHORT_BINSTRING", "BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"}
)
HEADER = {"BINSTRING": 5, "BINBYTES": 5, "BINBYTES8": 9}  # bytes before the data
Row = tuple[str, Path, str, str]  # id, source, class name, part


def read_archive(root: Path) -> Dataset | None:
    """Read CIFAR-10 or the pets from a folder or the only folder in it; None if there is neither.

    CIFAR-10, binary or Python version: parts are train (data_batch_*) and test (test_batch).
    Oxford-IIIT pets: classes are breeds, parts are train (trainval.txt) and test (test.txt). Files
    of the data set that are missing, or are links that lead out of `root`, are in `left_out`.
    Raises DataError if the data set is damaged, or all its files are such links.
    """
    root = root.resolve()
    for folder in candidates(root):
        for suffix, meta in ((".bin", "batches.meta.txt"), ("", "batches.meta")):
            batches = (folder / f"{name}{suffix}" for name in BATCHES)
            if (folder / meta).is_file() and any(file.is_file() for file in batches):
                return _cifar(SetFolder(root, folder), suffix, meta)
        if (folder / IMAGES).is_dir() and any((folder / name).is_file() for name in LISTS):
            return _pets(SetFolder(root, folder))
    return None


def read_member(path: Path) -> bytes:
    """Return a picture of a CIFAR-10 batch or of MNIST's files as a BMP file, without loss.

    path: `<batch>/<number>`. Raises DataError if the batch is damaged or has no picture of that
    number, NotADirectoryError for another kind of file.
    """
    file, number = path.parent, path.name
    if idx.is_pictures(file.name):
        return idx.read_member(path)
    if file.name.removesuffix(".bin") not in BATCHES:
        raise NotADirectoryError(20, "Not a directory", str(path))
    status = os.stat(file)
    batch = _batch(file, status.st_size, status.st_mtime_ns)
    if not re.fullmatch(r"[0-9]{1,9}", number) or int(number) >= len(batch.labels):
        raise DataError(f"{file.name} holds pictures 0 to {len(batch.labels) - 1}, not {number!r}")
    with open(file, "rb") as f:
        f.seek(batch.start + int(number) * batch.step)
        return _bmp(f.read(PICTURE))


@dataclass(frozen=True)
class SetFolder:
    """A data set's folder, and the root that links may not lead out of: its parent or itself."""

    root: Path
    folder: Path

    def fault(self, name: str) -> str:
        """Return why a file or folder of the data set is not read, or ""."""
        path = self.folder / name
        if not os.path.lexists(path):
            return MISSING
        exists = os.path.isdir(path) if name == IMAGES else os.path.isfile(path)
        return link_fault(self.root, path) or ("" if exists else MISSING)

    def need(self, *names: str) -> None:
        """Raise DataError unless one of these files or folders exists and may be read."""
        faults = [LeftOut(name, self.fault(name)) for name in names]
        if all(out.reason for out in faults):
            raise DataError(
                f"{display(self.folder)} must hold {' or '.join(names)}.{about_links(faults)}"
            )

    def files(
        self, parts: Mapping[str, str], left_out: list[LeftOut]
    ) -> Iterator[tuple[Path, str]]:
        """Yield the files that may be read, with their part; add the others to `left_out`."""
        for name, part in parts.items():
            if fault := self.fault(name):
                left_out.append(LeftOut(name, fault))
            else:
                yield self.folder / name, part


def candidates(root: Path) -> Iterator[Path]:
    yield root
    try:
        with os.scandir(root) as entries:
            folders = [e.name for e in entries if e.is_dir() and not passed_over(e.name)]
    except OSError:  # reported when the folder is read next
        return
    if len(folders) == 1 and not link_fault(root, root / folders[0]):
        yield root / folders[0]


def _bmp(planes: bytes) -> bytes:
    pixels = np.frombuffer(planes, np.uint8).reshape(3, SIDE, SIDE).transpose(1, 2, 0)
    return encoded(Image.fromarray(np.ascontiguousarray(pixels)), "BMP")


@dataclass(frozen=True)
class _Batch:
    """Labels of a batch file, and where its pictures are: picture i at byte start + i * step."""

    labels: tuple[int, ...]
    start: int
    step: int


def _cifar(place: SetFolder, suffix: str, meta: str) -> Dataset:
    batches = {f"{name}{suffix}": part for name, part in BATCHES.items()}
    place.need(meta)
    place.need(*batches)
    names, rows, left_out = _names(place.folder / meta), list[Row](), list[LeftOut]()
    for file, part in place.files(batches, left_out):
        rows += (
            (f"{file.stem}/{i:05}", file / f"{i:05}", names[label], part)
            for i, label in enumerate(_labels(file, len(names)))
        )
    return dataset_of_rows(rows, left_out)


def dataset_of_rows(rows: list[Row], left_out: list[LeftOut]) -> Dataset:
    ids, sources, names, parts = zip(*rows, strict=True)
    classes = tuple(sorted(set(names)))
    number = {name: c for c, name in enumerate(classes)}
    labels = tuple(number[name] for name in names)
    return Dataset(ids, sources, labels, classes, parts=parts, left_out=tuple(left_out))


def _labels(file: Path, classes: int) -> tuple[int, ...]:
    status = file.stat()
    labels = _batch(file, status.st_size, status.st_mtime_ns).labels
    if not 0 <= min(labels) <= max(labels) < classes:
        raise DataError(
            f"Labels count from 0 to {classes - 1}, one for each class that batches.meta names; "
            f"{display(file)} holds {min(labels)} to {max(labels)}. Unpack the archive again."
        )
    return labels


@lru_cache(maxsize=16)
def _batch(file: Path, size: int, mtime_ns: int) -> _Batch:
    """Return a batch file's layout; cached, so that a picture costs one seek and one read."""
    if file.suffix == ".bin":
        if not size or size % (1 + PICTURE):
            raise _damaged(file, f"has {size} bytes, not a multiple of {1 + PICTURE}")
        return _Batch(tuple(np.fromfile(file, np.uint8)[:: 1 + PICTURE].tolist()), 1, 1 + PICTURE)
    labels = _listed(file, "labels", INTEGERS)
    return _Batch(tuple(labels), _block(file, len(labels) * PICTURE), PICTURE)


def _names(meta: Path) -> tuple[str, ...]:
    """Return the class names by number, from the list of either version."""
    if meta.suffix == ".txt":
        cells = [line for line in meta.read_bytes().splitlines() if line.strip()]
    else:
        cells = _listed(meta, "label_names", STRINGS)
    try:
        names = [as_label(cell) for cell in cells]
    except DataError as error:
        raise _damaged(meta, f"names a class that {error}") from error
    if not names or len(set(names)) < len(names):
        raise _damaged(meta, f"names {len(names)} classes, {len(set(names))} of them different")
    return tuple(names)


def _opcodes(file: Path) -> Iterator[tuple[str, Any, int]]:
    """Yield name, argument and offset of the opcodes of a pickle without executing any."""
    if (size := file.stat().st_size) > MAX_BYTES:
        raise _damaged(file, f"has {size} bytes, more than {MAX_BYTES}")
    try:
        for name, argument, offset in opcodes(io.BytesIO(file.read_bytes())):
            if name not in PASSED:
                yield name, argument, offset
    except ValueError as error:
        raise _damaged(file, f"is not a pickle ({error})") from None


def _listed(file: Path, key: str, kinds: frozenset[str]) -> list[Any]:
    """Return the list of plain values after the string `key` in a pickle; raises DataError."""
    opcodes = _opcodes(file)
    while (step := next(opcodes, None)) and step[1] not in (key, key.encode()):
        pass
    if next(opcodes, ("", None, 0))[0] != "EMPTY_LIST":
        raise _damaged(file, f"has no list named {key!r}")
    items, waiting = list[Any](), list[Any]()
    for name, argument, _ in opcodes:
        if name in ("APPEND", "APPENDS"):  # a long list is appended in parts
            items, waiting = [*items, *waiting], []
        elif name in kinds:
            waiting.append(argument)
        elif name != "MARK":
            break  # a value that was not appended is the next key
    if not items:
        raise _damaged(file, f"has an empty list, or other than plain values, named {key!r}")
    return items


def _block(file: Path, size: int) -> int:
    """Return the offset of the only array of `size` bytes in row-major order; raises DataError."""
    offsets, before = list[int](), ""
    for name, argument, place in _opcodes(file):
        if name in HEADER and len(argument) == size:
            if before != "NEWFALSE":  # an array's state: version, shape, type, column-major, data
                raise _damaged(file, "holds its pictures in another order than CIFAR-10 does")
            offsets.append(place + HEADER[name])
        before = name
    if len(offsets) != 1:
        raise _damaged(file, f"must hold one block of {size} bytes, {PICTURE} for each label")
    return offsets[0]


def _damaged(file: Path, why: str) -> DataError:
    return DataError(
        f"{display(file)} is not as in the archive of CIFAR-10: it {why}. Unpack the archive again."
    )


def _pets(place: SetFolder) -> Dataset:
    place.need(IMAGES)
    place.need(*LISTS)
    root, rows, left_out = place.folder, list[Row](), list[LeftOut]()
    for file, part in place.files(LISTS, left_out):
        for image, breed in _listed_pets(file):
            if fault := _pet_fault(place, image):
                why = f"listed in {file.name}, but no such file" if fault == MISSING else fault
                left_out.append(LeftOut(image, why, label=breed))
            else:
                rows.append((image, root / image, breed, part))
    if not rows:
        raise DataError(
            f"None of the pictures that {display(root / 'annotations')} lists is in "
            f"{display(root / IMAGES)}.{about_links(left_out)} Unpack both images.tar.gz and "
            f"annotations.tar.gz."
        )
    known = {*(image for image, *_ in rows), *(out.path for out in left_out)}
    left_out += _unlisted(root, known)
    return dataset_of_rows(rows, left_out)


def _pet_fault(place: SetFolder, image: str) -> str:
    path = place.folder / image
    if os.path.islink(path):  # the folder is checked before, once for its 7,000 files
        return place.fault(image)
    return "" if os.path.isfile(path) else MISSING


def _listed_pets(file: Path) -> Iterator[tuple[str, str]]:
    """Yield picture and breed of each line such as "Abyssinian_100 1 1 1"."""
    text = file.read_text("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name = line.split()[0]
        if not re.fullmatch(r"[^/\\]+_[0-9]+", name):
            raise DataError(
                f"{display(file)}, line {number}: a line begins with a picture's name, "
                f"<breed>_<number>; got {name!r}. Unpack the archive again."
            )
        yield f"images/{name}.jpg", name.rpartition("_")[0]


def _unlisted(root: Path, known: set[str]) -> Iterator[LeftOut]:
    for name in sorted(os.listdir(root / IMAGES), key=os.fsencode):
        if name.endswith(".jpg") and not name.startswith(".") and f"images/{name}" not in known:
            yield LeftOut(f"images/{display(Path(name))}", "in none of the lists", expected=True)
