"""Datasets: ordered, named examples with paths and labels, but without content."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import repeat
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, fetched
from headstart.base.errors import DataError
from headstart.base.notebook import data_frame, html_table
from headstart.base.values import Record, later
from headstart.targets.classes import as_target, class_names
from headstart.targets.soft_labels import PREFIX
from headstart.targets.supervision import (
    PLAIN,
    Supervision,
    check_soft,
    check_weights,
    of_sum_one,
)
from headstart.targets.target import Labels, Target

FEW = 8  # classes that a dataset's text names
SHOWN = 12  # examples that a notebook shows
PARTS = ("train", "val", "test")
# Columns of a dataset that may be empty.
OPTIONAL = ("parts", "groups", "strata", "contents", "weights", "soft")
Fact = tuple[str, str | int | float]  # of a remark: a name and a value; a share is from 0 to 1


@dataclass(frozen=True)
class LeftOut(Record):
    """A file or folder that is not used, and the reason as a phrase.

    expected: surely not an example (a hidden file, a README): listed without a warning.
    label: the class of an example that is missing or unreadable, if it is known. missing: whether
    it is an example whose file is not there.
    """

    path: str
    reason: str
    expected: bool = False
    label: str = ""
    missing: bool = field(default=False, metadata=later())


def unexpected(items: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Return what is left out although it might be an example."""
    return tuple(item for item in items if not item.expected)


@dataclass(frozen=True)
class Remark(Record):
    """Something remarkable. path: the example, "" for the whole data set. kind: of remark. reason:
    in English. text, facts: the name of this sentence in a report's words, and its values by name;
    "" for a sentence that is in English only."""

    path: str
    kind: str
    reason: str
    text: str = field(default="", metadata=later())
    facts: tuple[Fact, ...] = field(default=(), metadata=later())

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


@dataclass(frozen=True)
class Content:
    """Digests of a file when it was checked, in hexadecimal; "" if unknown.

    file: of the bytes. decoded: of the decoded content, the same for copies in other formats.
    """

    file: str = ""
    decoded: str = ""

    def differs(self, other: "Content") -> bool:
        """Return whether both contents have all their digests, and these differ pairwise."""
        pairs = (self.file, other.file), (self.decoded, other.decoded)
        return all(a and b and a != b for a, b in pairs)


@dataclass(frozen=True)
class CheckedFile:
    """A file and the digest that its bytes must have, "" for any bytes."""

    path: Any
    digest: str = ""

    @classmethod
    def of(cls, source: "Any | CheckedFile") -> "CheckedFile":
        """Return `source` if it is a CheckedFile, or a path as a file that may hold any bytes."""
        return source if isinstance(source, CheckedFile) else cls(source)


@dataclass(frozen=True)
class Example:
    """One row of a dataset. source: a path, or the example in memory. label: as text."""

    id: str
    source: Any
    label: str
    input: Input[Any] | None = field(default=None, repr=False)

    def read(self) -> Any:
        """Return the decoded example, such as pixels (H, W, 3) uint8; raises DataError."""
        if self.input is None:
            raise DataError(f"The kind of {self.id} is unknown: read the data with headstart.read.")
        return self.input.read(fetched(self.input, self.source))

    def display(self, width: int = 160) -> str:
        """Return the example as HTML, with its label or the reason why it can't be read."""
        try:
            raw = self.read()
        except (OSError, DataError) as error:
            return html_table([(self.id, str(error))])
        assert self.input is not None
        return self.input.display(raw, f"{self.label}: {self.id}", width)


@dataclass(frozen=True, init=False, repr=False)
class Dataset:
    """Row i is the example `ids[i]`, read from `sources[i]`, with the label `labels[i]`.

    sources: a tuple, or a sequence that makes them when asked for, whose `take` gives some of them.
    target: what is predicted; labels are plain values as it encodes them. Class names in its place
        make a `ClassTarget`, whose labels are indices into the names.
    parts: "train", "val", "test" per row; groups: rows of one group stay in one part; strata: each
        part gets its share of every stratum. They come from the data: () or one per row, "" if the
        row has none.
    contents: digests from `good_rows`, one per row, () before the check.
    weights: case weights, by which rows count in the loss of training; () for 1 each.
    soft: of classes, a probability of each for every row, in the order of their names, which the
        loss of training learns in place of the labels; () for the labels. All else uses labels.
        Those of a row are divided by their sum, which may miss 1 by a hundredth.
    left_out: the files that are not used.
    input: the kind of the examples, if it is known; a source is a path, or what its `fetch` takes.
    choice: how the labels were read, to be printed; "" if no other reading is possible.
    remarks: what the reader found remarkable, for the check of the data.
    origin: the path that `read` took all rows from, as a run records it; "" for others.

    >>> data = Dataset(("a", "b"), ("a.png", "b.png"), (0, 1), ("cat", "dog"))
    >>> len(data), data[1].label, data.counts
    (2, 'dog', {'cat': 1, 'dog': 1})
    """

    ids: tuple[str, ...]
    sources: Sequence[Any]
    labels: tuple[Any, ...]
    target: Target
    parts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    contents: Sequence[Content] = ()
    left_out: tuple[LeftOut, ...] = ()
    input: Input[Any] | None = None
    choice: str = ""
    weights: tuple[float, ...] = ()
    soft: tuple[tuple[float, ...], ...] = ()
    remarks: tuple[Remark, ...] = ()
    origin: str = field(default="", compare=False)

    def __init__(
        self,
        ids: tuple[str, ...],
        sources: Sequence[Any],
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
        check_weights(self.weights, self.ids)
        if self.soft and not self.target.takes_soft:
            raise DataError(f"Probabilities of labels are for classes, not for {self.target.noun}.")
        check_soft(self.soft, self.ids, self.target.outputs)
        object.__setattr__(self, "soft", of_sum_one(self.soft))
        if (twice := _twice(self.ids)) is not None:
            raise DataError(f"Row ids must be unique, but {twice!r} appears more than once.")

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, row: int) -> Example: ...
    @overload
    def __getitem__(self, row: "slice | Sequence[int] | NDArray[Any]") -> "Dataset": ...
    def __getitem__(self, row: Any) -> "Example | Dataset":
        """Return an example by its number, or the dataset of some rows: a slice, numbers, a mask.

        Raises IndexError for a number that the dataset does not have.
        """
        if isinstance(row, slice):
            return self.take(range(len(self))[row])
        if np.ndim(row):
            return self.take(np.arange(len(self))[np.asarray(row)])
        row = range(len(self))[row]
        (label,) = self.target.brief(self.target.labels([self.labels[row]]))
        return Example(self.ids[row], self.sources[row], label, self.input)

    def __iter__(self) -> Iterator[Example]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        what = f"{len(self):,} {self.input.noun if self.input else 'rows'}"
        classes = ", ".join(f"{name} {n:,}" for name, n in [*self.counts.items()][:FEW])
        more = ", …" if len(self.counts) > FEW else ""
        return f"Dataset({what}{f': {classes}{more}' if classes else ''})"

    def _repr_html_(self) -> str:
        """Return some examples of every class, for a notebook."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), SHOWN)).astype(int))
        return html_table([(repr(self),)]) + "".join(self[int(row)].display() for row in rows)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: id, source, label and the columns that the data has."""
        named: dict[str, Any] = {"part": self.parts, "group": self.groups}
        named |= {"stratum": self.strata, "weight": self.weights}
        if self.soft:
            names = (f"{PREFIX}{name}" for name in self.classes)
            named |= dict(zip(names, zip(*self.soft, strict=True), strict=True))
        labels = self.target.decode(self.y)
        columns = {"id": self.ids, "source": [str(s) for s in self.sources], "label": labels}
        return data_frame(columns | {name: values for name, values in named.items() if values})

    @property
    def files(self) -> tuple[CheckedFile, ...]:
        """The sources, with their digests if the rows were checked."""
        digests = (c.file for c in self.contents) if self.contents else repeat("")
        return tuple(map(CheckedFile, self.sources, digests))

    @property
    def y(self) -> Labels:
        """The labels as an array, first axis N."""
        return self.target.labels(self.labels)

    @property
    def supervision(self) -> Supervision:
        """How the rows count in the loss of training."""
        if not self.counting:
            return PLAIN
        weights, soft = (
            np.array(column, np.float64) if column else None for column in (self.weights, self.soft)
        )
        return Supervision(weights, soft)

    @property
    def counting(self) -> tuple[tuple[Any, ...], ...]:
        """The columns of `supervision` that the data has, for fingerprints."""
        return tuple(column for column in (self.weights, self.soft) if column)

    @property
    def decisive(self) -> tuple[Any, ...]:
        """What decides a model that learns from these rows, as plain values for fingerprints."""
        labels = self.target.plain(self.labels)
        files = [content.file for content in self.contents]
        return (self.ids, labels, files, *self.counting, *self.target.learning_key)

    def counted(self) -> "Dataset":
        """Return the rows whose weight is above 0, the only ones to learn from.

        Raises DataError if there are rows and all have weight 0.
        """
        if all(self.weights):
            return self
        if not any(self.weights):
            raise DataError(
                f"All {len(self):,} rows of training have weight 0, so that there is nothing to "
                f"learn from. Give some of them a weight above 0."
            )
        return self.take(np.flatnonzero(self.weights))

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; () if the target has no classes."""
        return class_names(self.target)

    @property
    def noun(self) -> str:
        """What the examples are called, such as "images"."""
        return self.input.noun if self.input else "images"

    @property
    def examples(self) -> str:
        """What several examples are called in sentences: "pictures", "texts"."""
        return "pictures" if self.noun == "images" else self.noun

    @property
    def example(self) -> str:
        """What one example is called in sentences: "picture", "text"."""
        return self.examples.removesuffix("s")

    @property
    def counts(self) -> dict[str, int]:
        """The rows of each class, 0 for an empty class; {} if the target has no classes."""
        if not self.classes:
            return {}
        counts = np.bincount(self.y, minlength=len(self.classes))
        return {name: int(counts[c]) for c, name in enumerate(self.classes)}

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Dataset":
        """Return the dataset with only these rows, in this order."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return replace(self, origin="")  # shares the columns
        picked: dict[str, Any] = {
            name: _taken(column, rows) if (column := getattr(self, name)) else ()
            for name in ("ids", "sources", "labels", *OPTIONAL)
        }
        return replace(self, **picked, origin="")

    def joined(self, other: "Dataset") -> "Dataset":
        """Return these rows and then those of `other`, a part of the same data."""
        both: dict[str, Any] = {
            name: (*getattr(self, name), *getattr(other, name))
            for name in ("ids", "sources", "labels", *OPTIONAL)
        }
        return replace(self, **both, origin="")


def _twice(ids: Sequence[str]) -> str | None:
    """Return the first id that appears more than once, or None: by hashes, in 24 bytes a row."""
    hashes = np.fromiter(map(hash, ids), np.int64, len(ids))
    order = np.argsort(hashes, kind="stable")
    alike = np.flatnonzero(np.diff(hashes[order]) == 0)
    if not len(alike):
        return None
    counts = Counter(ids[row] for row in np.union1d(order[alike], order[alike + 1]))
    return next((id for id, count in counts.items() if count > 1), None)


def _taken(column: Sequence[Any], rows: Sequence[int] | NDArray[np.integer]) -> Sequence[Any]:
    """Return these entries of a column, by its own `take` if it has one."""
    take = getattr(column, "take", None)
    return take(rows) if take else tuple(column[i] for i in rows)
