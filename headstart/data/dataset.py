"""A dataset is an ordered list of named examples; it holds paths and labels, no content."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError
from headstart.base.values import Record
from headstart.targets.classes import as_target, class_names
from headstart.targets.target import Labels, Target

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

    file: of its bytes. decoded: of what was read of them, which copies in other formats share.
    """

    file: str = ""
    decoded: str = ""

    def differs(self, other: "Content") -> bool:
        """Whether they are surely not of one picture: both are known, and no digest agrees."""
        pairs = (self.file, other.file), (self.decoded, other.decoded)
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


@dataclass(frozen=True, init=False)
class Dataset:
    """Row i is the example `ids[i]`, to be read from `sources[i]`, labelled `labels[i]`.

    target: what is asked; labels are plain values as it encodes them. Names of classes in its place
    make a `ClassTarget`, whose labels are places among them. `parts` (of "train", "val", "test"),
    `groups` (rows of one group stay in one part) and `strata` (each part gets its share of every
    stratum, beside every label) are what the data itself says about its split: empty, or one string
    per row, where "" says nothing of that row. `contents` is what `good_rows` found in the files:
    empty before they were checked, or one per row. left_out: what was found and not used.
    """

    ids: tuple[str, ...]
    sources: tuple[Path, ...]
    labels: tuple[Any, ...]
    target: Target
    parts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    contents: tuple[Content, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def __init__(
        self,
        ids: tuple[str, ...],
        sources: tuple[Path, ...],
        labels: tuple[Any, ...],
        target: Target | tuple[str, ...] = (),
        *,
        classes: tuple[str, ...] | None = None,
        **columns: Any,
    ) -> None:
        asked = as_target(target if classes is None else classes)
        values = {"ids": ids, "sources": sources, "labels": labels, "target": asked, **columns}
        if strange := values.keys() - {f.name for f in fields(self)}:
            raise TypeError(f"A dataset has no column {min(strange)!r}.")
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
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
        self.target.labels(self.labels)
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
    def y(self) -> Labels:
        """The labels as an array, first axis N."""
        return self.target.labels(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none if something else is asked."""
        return class_names(self.target)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each class, classes without any included."""
        if not self.classes:
            return {}
        counts = np.bincount(self.y, minlength=len(self.classes))
        return {name: int(counts[c]) for c, name in enumerate(self.classes)}

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Dataset":
        """The same dataset with only these rows, in this order."""
        picked: dict[str, Any] = {
            name: tuple(column[i] for i in rows) if (column := getattr(self, name)) else ()
            for name in ("ids", "sources", "labels", *OPTIONAL)
        }
        return replace(self, **picked)

    def reversed(self) -> "Dataset":
        return self.take(range(len(self) - 1, -1, -1))
