"""A dataset is an ordered list of named examples; it holds paths and labels, never pixels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.base.display import CONTROLS, display
from headstart.base.errors import DataError
from headstart.base.values import Record

PARTS = ("train", "val", "test")
OPTIONAL = ("parts", "groups", "strata", "contents")  # columns of a dataset that may be empty


@dataclass(frozen=True)
class LeftOut(Record):
    """Something that was found and not used, and why, in a phrase.

    label: the class of an example that was announced and is not there.
    expected: nobody meant it as an example (a hidden file, a README): listed, not warned of.
    """

    path: str
    reason: str
    expected: bool = False
    label: str = ""


@dataclass(frozen=True)
class Content:
    """What a file held when it was checked, as digests in hexadecimal; "" where it is not known.

    file: of its bytes. pixels: of its decoded pixels, which copies in other formats share.
    """

    file: str = ""
    pixels: str = ""

    def differs(self, other: "Content") -> bool:
        """Whether they are surely not of one picture: both are known, and no digest agrees."""
        pairs = (self.file, other.file), (self.pixels, other.pixels)
        return all(a and b and a != b for a, b in pairs)


@dataclass(frozen=True)
class CheckedFile:
    """A file, and the digest of the bytes that it must hold; "" takes any."""

    path: Path
    digest: str = ""

    @classmethod
    def of(cls, source: "Path | CheckedFile") -> "CheckedFile":
        """The same, or a path as a file that may hold anything."""
        return source if isinstance(source, CheckedFile) else cls(source)


@dataclass(frozen=True)
class Dataset:
    """Row i is the example `ids[i]`, to be read from `sources[i]`, labelled `classes[labels[i]]`.

    `parts` (of "train", "val", "test"), `groups` (rows of one group stay in one part) and `strata`
    (each part gets its share of every stratum, beside every label) are what the data itself says
    about its split: empty, or one string a row, where "" says nothing of that row. `contents` is
    what `good_rows` found in the files: empty before they were checked, or one a row.
    """

    ids: tuple[str, ...]
    sources: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    parts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    contents: tuple[Content, ...] = ()
    left_out: tuple[LeftOut, ...] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.ids)
        if not n == len(self.sources) == len(self.labels):
            raise DataError(
                f"Every row needs an id, a source and a label; got {n} ids, "
                f"{len(self.sources)} sources and {len(self.labels)} labels."
            )
        for name in OPTIONAL:
            column = getattr(self, name)
            if column and len(column) != n:
                raise DataError(
                    f"{name} holds nothing or one entry a row; got {len(column)} for {n} rows."
                )
        if strange := set(self.parts) - {*PARTS, ""}:
            raise DataError(f"A part is one of {', '.join(PARTS)}; got {sorted(strange)[0]!r}.")
        if n and not 0 <= min(self.labels) <= max(self.labels) < len(self.classes):
            raise DataError(f"Labels count from 0 to {len(self.classes) - 1}, one for each class.")
        if odd := next((name for name in self.classes if CONTROLS.search(name)), None):
            raise DataError(
                f"The name of a class must be printable, and '{display(odd)}' holds control "
                f"characters. Rename its folder or its label."
            )
        if len(set(self.ids)) < n:
            twice = next(i for i, count in Counter(self.ids).items() if count > 1)
            raise DataError(f"Row ids must be unique, but {twice!r} appears more than once.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def files(self) -> tuple[CheckedFile, ...]:
        """The sources, each with the digest that it must have if the rows were checked."""
        digests = (c.file for c in self.contents) if self.contents else repeat("")
        return tuple(map(CheckedFile, self.sources, digests))

    @property
    def y(self) -> NDArray[np.int64]:  # (N,)
        return np.array(self.labels, dtype=np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each class, classes without any included."""
        counts = np.bincount(self.y, minlength=len(self.classes))
        return {name: int(counts[c]) for c, name in enumerate(self.classes)}

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Dataset":
        """The same dataset with only these rows, in this order."""
        picked = {
            name: tuple(column[i] for i in rows) if (column := getattr(self, name)) else ()
            for name in ("ids", "sources", "labels", *OPTIONAL)
        }
        return replace(self, **picked)

    def reversed(self) -> "Dataset":
        return self.take(range(len(self) - 1, -1, -1))
