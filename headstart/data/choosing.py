"""Choose what is predicted, and the columns that hold it, by the columns of a table."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headstart.base.cells import as_text
from headstart.base.errors import DataError
from headstart.data.dataset import Dataset
from headstart.targets.classes import ClassTarget
from headstart.targets.plan import TargetPlan
from headstart.targets.registry import TARGETS
from headstart.targets.soft_labels import PREFIX, PROBABILITY, SoftColumns
from headstart.targets.target import Row, Target

Cells = Mapping[str, Sequence[object]]
# What the column of classes is called in tables of public data sets, the likeliest first.
LABEL_NAMES = (
    *("class", "class_name", "label_name", "category", "category_name", "target", "diagnosis"),
    *("dx", "breed", "species", "level", "choice"),
)
PROBABILITIES = "probabilities of classes are not read: for them say --target class"


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table.

    example: the column of the examples. known: columns with a meaning of their own. folded: gives
    the names, case folded, for the columns that are needed. cells: gives all other columns.
    """

    example: str
    known: Collection[str]
    folded: Callable[[Sequence[str]], Collection[str]]
    cells: Callable[[Callable[[str], bool]], Cells]

    def has(self, *columns: str) -> bool:
        return {self.example, *columns} <= set(self.folded((self.example, *columns)))

    def others(self) -> dict[str, list[str]]:
        """Return the cells, as texts, of the columns without a known meaning."""
        columns = self.cells(lambda name: _folded(name) not in {"", self.example, *self.known})
        return {name: [_text(cell) for cell in cells] for name, cells in columns.items()}


@dataclass(frozen=True)
class LabelColumns:
    """The kind of target of a table, and the columns that hold the label.

    names: by column of the table, the name under which the target reads it. unread: what other
    columns would give, as a phrase. soft: the columns of probabilities, of which a label can be
    missing; None without them.
    """

    kind: type[Target]
    names: Mapping[str, str]
    unread: str = ""
    soft: SoftColumns | None = None

    @classmethod
    def own(
        cls, kind: type[Target], unread: str = "", soft: SoftColumns | None = None
    ) -> "LabelColumns":
        return cls(kind, {name: name for name in kind.reads}, unread, soft)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns of the table that hold labels or probabilities."""
        return (*self.names, *(self.soft.columns if self.soft else ()))


def choose(table: TableColumns, kind: str = "") -> LabelColumns:
    """Return the label's columns: of the asked kind, or of the first kind that the columns fit.

    Classes come before others, those with probabilities alone after them. Without a column of any
    kind, columns that hold the labels together decide (`Target.spread`), and then a column that is
    one of LABEL_NAMES.
    """
    if kind:
        return _asked(table, TARGETS[kind])
    if table.has(*ClassTarget.reads):
        return LabelColumns.own(ClassTarget, _unread(table), _soft(table))
    kinds = [TARGETS[name] for name in TARGETS.names()]
    if own := next((k for k in kinds if k.detect(table.folded((table.example, *k.reads)))), None):
        return LabelColumns.own(own, PROBABILITIES if _soft(table) else "")
    if soft := _soft(table):
        return LabelColumns(ClassTarget, {}, soft=soft)
    cells = table.others()
    for each in kinds:
        if columns := each.spread(cells):
            return LabelColumns(each, {name: as_text(name) for name in columns})
    if name := next((name for name in LABEL_NAMES if table.has(name)), None):
        return LabelColumns(ClassTarget, {name: "label"}, f"the column {name} holds the labels")
    return LabelColumns.own(ClassTarget)


def _asked(table: TableColumns, kind: type[Target]) -> LabelColumns:
    """Return the columns of a kind that was asked for: its own, others of one label, or several.

    Raises DataError for columns p:NAME, whose meaning is plain, and another kind than classes.
    """
    soft = _soft(table)
    if soft and soft.names and not kind.takes_soft:
        raise DataError(
            f"Columns p:NAME are probabilities of classes, which --target {kind.kind} can't learn. "
            f"Leave the flag or these columns out."
        )
    soft = soft if kind.takes_soft else None
    if table.has(*kind.reads):
        return LabelColumns.own(kind, soft=soft)
    if soft:
        return LabelColumns(kind, {}, soft=soft)
    if columns := kind.spread(table.others()):
        return LabelColumns(kind, {name: as_text(name) for name in columns})
    likely = (*kind.instead, *LABEL_NAMES)
    found = next((column for column in likely if table.has(column)), None)
    return LabelColumns(kind, {found: kind.reads[0]}) if found else LabelColumns.own(kind)


def _soft(table: TableColumns) -> SoftColumns | None:
    """Return the columns of probabilities of classes, None if there are none."""
    named = table.cells(lambda name: _folded(name).startswith(PREFIX))
    own = [name for name in named if _folded(name).startswith(PREFIX)]
    return SoftColumns.of(own, probability=table.has(PROBABILITY))


def _unread(table: TableColumns) -> str:
    """Return which other columns hold a label too, and the flags to read them."""
    kinds = [TARGETS[name] for name in TARGETS.built_in if name != ClassTarget.kind]
    there = [kind for kind in kinds if kind.reads != ClassTarget.reads and table.has(*kind.reads)]
    return "; ".join(
        f"the column {kind.reads[0]} is not read: for it say --target {kind.kind}" for kind in there
    )


def with_kind(data: Dataset, kind: str) -> Dataset:
    """Return the data with its labels, as texts, read as those of another kind of target."""
    if not kind or data.target.kind == kind:
        return data
    if data.soft:
        raise DataError(
            f"The data has probabilities of classes, which --target {kind} can't learn. Leave the "
            f"flag out, or give data without them."
        )
    new, texts = TARGETS[kind], data.target.decode(data.y)
    rows: list[Row] = [{new.reads[0]: text} for text in texts]
    target = new.of(rows)
    return replace(data, target=target, labels=encoded(target, rows, data.ids))


def planned(data: Dataset, plan: TargetPlan) -> Dataset:
    """Return the data with the plan's settings of the target, and a phrase on its choice."""
    target = data.target.planned(plan)
    labels = data.labels
    if target != data.target:
        rows = [{target.reads[0]: text} for text in data.target.decode(data.y)]
        labels = encoded(target, rows, data.ids)
    own = target.choice(target.labels(labels))
    choice = "; ".join(filter(None, (own or (target.noun if data.choice else ""), data.choice)))
    return replace(data, target=target, labels=labels, choice=choice)


def encoded(target: Target, rows: Sequence[Row], where: Sequence[str]) -> tuple[Any, ...]:
    """Return the labels of rows; a DataError says where the wrong one is."""
    labels = list[Any]()
    for row, place in zip(rows, where, strict=True):
        try:
            labels.append(target.encode(row))
        except DataError as error:
            raise DataError(f"{place}: {error} Change it or take the row out.") from error
    return tuple(labels)


def _folded(name: str) -> str:
    return name.strip().casefold()


def _text(cell: object) -> str:
    """Return a cell as text, "?" if it is not text."""
    try:
        return as_text(cell)
    except DataError:
        return "?"
