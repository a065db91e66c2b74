"""Probabilities of classes in the columns of a table: `probability`, or `p:NAME` for each class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.cells import NUMBER, as_label
from headstart.base.errors import DataError, UnknownName
from headstart.targets.classes import ClassTarget
from headstart.targets.supervision import NEAR
from headstart.targets.target import Target

PROBABILITY = "probability"  # of the second of two classes
PREFIX = "p:"  # of the columns that name their class
UNNAMED = ("no", "yes")  # two classes that no column names
SHOWN = 40  # characters of a cell in a message
Shares = tuple[float, ...]  # the probability of each class


@dataclass(frozen=True)
class SoftColumns:
    """The columns of a table that hold probabilities.

    names: of the classes, by column; {} for the one column `probability`.
    """

    names: Mapping[str, str]

    @classmethod
    def of(cls, columns: Sequence[str], *, probability: bool) -> "SoftColumns | None":
        """Return the columns of probabilities, None if there are none.

        columns: the names of the table's columns p:NAME, as they are written. probability: whether
        it has a column of that name. Raises DataError for a class without a name, for a name that
        occurs twice, and for a single class.
        """
        if not columns:
            return cls({}) if probability else None
        names = {column: _class_of(column) for column in columns}
        if len(set(names.values())) < max(2, len(names)):
            raise DataError(
                f"There is a column {PREFIX}NAME for each of two classes or more, every name once; "
                f"got {', '.join(columns)}. For two classes a column {PROBABILITY} can stand alone."
            )
        return cls(names)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.names) or (PROBABILITY,)

    def about(self, target: Target) -> str:
        """Return which columns the loss learns, as a phrase."""
        if self.names:
            named = ", ".join(f"{PREFIX}{name}" for name in target.topics())
            return f"training learns the columns {named}"
        return f"training learns the column {PROBABILITY}, that of {target.topics()[1]!r}"


@dataclass(frozen=True)
class SoftRow:
    """The cells of a row. label: "" without one. cells: the texts of the columns of probabilities.
    where: for messages."""

    label: str
    cells: Sequence[str]
    where: str


@dataclass(frozen=True)
class SoftLabels:
    """Classes, the hard label of each row, and the probabilities of its classes, which sum to 1.

    The hard label is the row's own, or else the likeliest class: of two the second from 0.5 on,
    of more the first in a tie.
    """

    target: ClassTarget
    labels: tuple[int, ...]
    soft: tuple[Shares, ...]


def soft_labels(columns: SoftColumns, rows: Sequence[SoftRow]) -> SoftLabels | None:
    """Return the labels and probabilities of rows.

    A row without probabilities is certain of its label. None for a column `probability` beside
    labels of another number of classes than two, which it can't belong to. Raises DataError, which
    names the row, for wrong probabilities.
    """
    labelled = tuple(sorted({row.label for row in rows} - {""}))
    names = tuple(sorted(columns.names.values())) or labelled or UNNAMED
    if not columns.names and len(names) != len(UNNAMED):
        return None
    target = ClassTarget(names)
    read = _by_name(columns, names) if columns.names else _of_second
    soft = tuple(_shares(target, row, read) for row in rows)
    labels = tuple(_hard(target, row, own) for row, own in zip(rows, soft, strict=True))
    if labelled and not columns.names:
        _check_second(names, labels, soft)
    return SoftLabels(target, labels, soft)


def soft_of_present(
    soft: Sequence[Shares], old: Target, new: Target, labels: Sequence[int]
) -> tuple[Shares, ...]:
    """Return the probabilities of the classes of `new`, some of those of `old`; each sums to 1.

    labels: as `new` encodes them; a row whose probabilities are of other classes gets its label's.
    """
    if not soft or old.topics() == new.topics():
        return tuple(soft)
    places = [old.topics().index(name) for name in new.topics()]
    own, certain = np.array(soft)[:, places], np.eye(len(places))[list(labels)]
    own = np.where(own.any(axis=1, keepdims=True), own, certain)
    return tuple(map(tuple, (own / own.sum(axis=1, keepdims=True)).tolist()))


def _class_of(column: str) -> str:
    try:
        return as_label(column.strip()[len(PREFIX) :])
    except DataError as error:
        raise DataError(f"The name of the class in the column {column!r} {error}.") from error


def _by_name(columns: SoftColumns, names: Sequence[str]) -> Callable[[SoftRow], list[float]]:
    """Return what reads the probabilities of a row in the order of the names."""
    place = {name: at for at, name in enumerate(columns.names.values())}

    def read(row: SoftRow) -> list[float]:
        shares = [_number(row.cells[place[name]], row) for name in names]
        if abs(sum(shares) - 1) > NEAR:
            raise DataError(
                f"{row.where}: the probabilities of a row sum to 1; got {sum(shares):.4g} from "
                f"{', '.join(row.cells)}. Change them or take the row out."
            )
        return shares

    return read


def _of_second(row: SoftRow) -> list[float]:
    share = _number(row.cells[0], row)
    return [1 - share, share]


def _number(cell: str, row: SoftRow) -> float:
    share = float(cell) if NUMBER.fullmatch(cell) else -1.0
    if not 0 <= share <= 1:
        raise DataError(
            f"{row.where}: a probability is a number from 0 to 1; got {cell[:SHOWN]!r}. Change it "
            f"or take the row out."
        )
    return share


def _shares(target: ClassTarget, row: SoftRow, read: Callable[[SoftRow], list[float]]) -> Shares:
    if row.label and row.label not in target.names:
        raise DataError(f"{row.where}: {UnknownName('class', row.label, target.names)}")
    if any(row.cells):
        shares = read(row)
    elif row.label:
        shares = [float(name == row.label) for name in target.names]
    else:
        raise DataError(
            f"{row.where}: a row has probabilities, or else a label; this one has neither. Fill "
            f"them in or take the row out."
        )
    return tuple(share / sum(shares) for share in shares)


def _hard(target: ClassTarget, row: SoftRow, shares: Shares) -> int:
    if row.label:
        return target.names.index(row.label)
    if len(shares) == len(UNNAMED):
        return int(shares[1] >= 0.5)
    return int(np.argmax(shares))


def _check_second(names: Sequence[str], labels: Sequence[int], soft: Sequence[Shares]) -> None:
    """Raise DataError if the probability of the second class is higher in rows of the first."""
    y, share = np.array(labels), np.array(soft)[:, 1]
    first, second = share[y == 0], share[y == 1]
    if len(first) and len(second) and first.mean() > second.mean():
        raise DataError(
            f"The column {PROBABILITY} holds the probability of {names[1]!r}, the second class by "
            f"name, and it is higher in rows labelled {names[0]!r}: {first.mean():.3g} in the "
            f"mean, not {second.mean():.3g}. Name the classes in two columns, "
            f"{PREFIX}{names[0]} and {PREFIX}{names[1]}."
        )
