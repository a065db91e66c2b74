"""Split a dataset into train, val and test."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import Annotated

import numpy as np

from headstart.base.errors import DataError, SpecError
from headstart.base.grouping import groups, names_of_groups
from headstart.base.values import check_seed
from headstart.data.content import each_once
from headstart.data.dataset import PARTS, Dataset, LeftOut
from headstart.targets.target import Target

Unit = tuple[int, ...]  # rows that stay together
Cell = tuple[int, str]  # a row's stratum by its label, and its stratum in the data
RANK = ("test", "val", "train")  # the first of a picture's named parts keeps it
NAMED = 5  # strata in a message
# By the parts that the data names: the steps to make the others, as (donor, parts of its rows).
# Otherwise all parts are made of the only one that is named, or of all rows (donor "").
CARVINGS: dict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = {
    ("train", "val", "test"): [],
    ("train", "val"): [("val", ("val", "test"))],
    ("train", "test"): [("train", ("train", "val"))],
    ("val", "test"): [("val", ("train", "val"))],
}
FIRST = ("train", "test", "val")  # the order of filling if a label has fewer units than parts


@dataclass(frozen=True)
class SplitPlan:
    """Shares of the rows for validation and test; the rest is for training."""

    val: Annotated[float, "share of the rows for validation"] = 0.15
    test: Annotated[float, "share of the rows for the test"] = 0.15
    seed: Annotated[int, "another seed gives another split"] = 0

    def __post_init__(self) -> None:
        if not (0 < self.val and 0 < self.test and self.val + self.test < 1):
            raise SpecError(
                f"val and test are shares of the rows and must leave some for training; "
                f"got val={self.val}, test={self.test}."
            )
        check_seed(self.seed)

    def share(self, part: str) -> float:
        return {"train": 1 - self.val - self.test, "val": self.val, "test": self.test}[part]

    @property
    def fewest(self) -> int:
        """The fewest distinct pictures of a class for three parts: 5 for 0.70/0.15/0.15.

        Validation and test take their shares, rounded, at least one each; training must keep more
        than half, or more than its share if that is less than half.
        """
        kept = min(self.share("train"), 0.5)
        return next(n for n in count(len(PARTS)) if n - self._judged(n) > kept * n)

    def _judged(self, n: int) -> int:
        return max(1, round(n * self.val)) + max(1, round(n * self.test))


@dataclass(frozen=True, repr=False)
class Splits:
    """Three parts that share no row, duplicate or group, each in the dataset's order.

    left_out: rows with a copy or group in another named part, and exact copies in val or test.
    together: the ids of rows that are no independent examples: a group, or copies.

    >>> parts = hs.split("photos")  # doctest: +SKIP
    >>> len(parts.train), len(parts.val), len(parts.test)  # doctest: +SKIP
    (70, 15, 15)
    """

    train: Dataset
    val: Dataset
    test: Dataset
    left_out: tuple[LeftOut, ...] = ()
    together: tuple[tuple[str, ...], ...] = ()

    def fitted(self) -> "Splits":
        """Return the splits with the target fitted on the training labels."""
        return self.of(self.train.target.fitted(self.train.y)) if len(self.train) else self

    def of(self, target: Target) -> "Splits":
        """Return the splits with a target that encodes labels as theirs does."""
        train, val, test = (replace(getattr(self, part), target=target) for part in PARTS)
        return replace(self, train=train, val=val, test=test)

    @property
    def train_val(self) -> Dataset:
        """All rows outside the test part: those of training, then those of validation."""
        return self.train.joined(self.val)

    @property
    def joinable(self) -> bool:
        """Whether training and validation rows have different ids, as the parts of one data set."""
        return not set(self.train.ids) & set(self.val.ids)

    def whole(self) -> "Splits":
        """Return the splits with the rows of validation as training rows, and no validation."""
        return replace(self, train=self.train_val, val=self.val.take([]))

    def groups_of(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Return a name for each row, the same for rows that belong together."""
        return names_of_groups(ids, self.together)

    def __repr__(self) -> str:
        parts = ", ".join(f"{part} {len(getattr(self, part)):,}" for part in PARTS)
        return f"Splits({parts}{f', {len(self.left_out):,} left out' if self.left_out else ''})"


def split(
    dataset: Dataset,
    plan: SplitPlan | None = None,
    *,
    together: Sequence[Sequence[int]] = (),
    parts: tuple[str, ...] = PARTS,
) -> Splits:
    """Return parts with their shares of every class and stratum, without splitting units.

    together: groups of rows, such as duplicates; they and `dataset.groups` are the units. parts:
    those to make of rows without a part; others stay empty.

    Parts named by the data are kept, and missing parts are taken from a present one in proportion
    to the plan's shares: test from val or else train, val from train, train from val. A row without
    a part follows its unit, or else goes to train. If a unit is in several named parts, only its
    rows in test, or else in val, are kept. In a checked dataset val and test hold each picture once
    (`each_once`); train keeps copies.

    Raises DataError if a class has fewer than `SplitPlan.fewest` pictures, or no rows in train.
    """
    plan, wanted = plan or SplitPlan(), parts
    units, cells = units_of(dataset, together), cells_of(dataset)
    part_of, left_out = _given(dataset, units)
    if left_out:
        units = [tuple(row for row in unit if row not in left_out) for unit in units]
    given = [part for part in PARTS if part in part_of.values()]
    rng = np.random.default_rng(plan.seed)
    for donor, parts in CARVINGS.get(tuple(given), [(given[0] if given else "", wanted)]):
        pool = [unit for unit in units if part_of.get(unit[0], donor) == donor]
        if len(parts) == len(PARTS):
            _check_enough(dataset, cells, pool, plan, together)
        shares = {part: plan.share(part) for part in parts}
        part_of |= placed(cells, pool, shares, rng)
        if "train" in shares and dataset.target.stratum_names:
            _train_each_stratum(cells, pool, part_of)
    order = sorted(part_of)
    rows = {part: [row for row in order if part_of[row] == part] for part in PARTS}
    _check_training(dataset, cells, rows)
    train, val, test = (dataset.take(rows[part]) for part in PARTS)
    (val, more), (test, others) = each_once(val), each_once(test)
    straddling = (out for _, out in sorted(left_out.items()))
    named = tuple(tuple(dataset.ids[row] for row in unit) for unit in units if len(unit) > 1)
    return Splits(train, val, test, (*straddling, *more, *others), named)


def units_of(dataset: Dataset, together: Sequence[Sequence[int]]) -> list[Unit]:
    """Return all rows as units that stay together, ordered by their first row."""
    members = defaultdict[str, list[int]](list)
    for row, name in enumerate(dataset.groups):
        if name:
            members[name].append(row)
    joined = groups([*members.values(), *(run for run in together if len(run))])
    inside = {row for unit in joined for row in unit}
    return sorted([*joined, *((row,) for row in range(len(dataset)) if row not in inside)])


def _given(dataset: Dataset, units: Sequence[Unit]) -> tuple[dict[int, str], dict[int, LeftOut]]:
    """Return the parts named by the data, by row, and the rows to leave out, with the reason."""
    part_of, left_out = dict[int, str](), dict[int, LeftOut]()
    if not any(dataset.parts):
        return part_of, left_out
    for unit in units:
        named = [dataset.parts[row] for row in unit]
        kept = next((part for part in RANK if part in named), "train")
        for row in unit:
            if dataset.parts[row] in (kept, ""):
                part_of[row] = kept
            else:
                left_out[row] = _straddling(dataset, unit, row, kept)
    return part_of, left_out


def _straddling(dataset: Dataset, unit: Unit, row: int, kept: str) -> LeftOut:
    twin = next(r for r in unit if dataset.parts[r] == kept)
    own = dataset.groups[row] if dataset.groups else ""
    same_group = own and own == dataset.groups[twin]
    why = "of one group with" if same_group else f"the same {dataset.example} as"
    reason = f"{why} {dataset.ids[twin]}, which is in {kept}; this one was in {dataset.parts[row]}"
    return LeftOut(dataset.ids[row], reason)


def cells_of(dataset: Dataset) -> list[Cell]:
    """Return the cell of each row."""
    by_label = dataset.target.strata(dataset.y).tolist()
    known = dict[Cell, Cell]()  # equal cells are one object, which takes less memory
    cells = zip(by_label, dataset.strata or repeat(""), strict=False)
    return [known.setdefault(cell, cell) for cell in cells]


def placed(
    cells: Sequence[Cell],
    units: Sequence[Unit],
    shares: Mapping[str, float],
    rng: np.random.Generator,
) -> dict[int, str]:
    """Return a part for each row: every cell in proportion, in whole units."""
    by_label = defaultdict[int, list[Unit]](list)
    for n in rng.permutation(len(units)):
        by_label[_cell(cells, units[n])[0]].append(units[n])
    part_of, carried = dict[int, str](), dict.fromkeys(shares, 0.0)
    for label in sorted(by_label):
        for part, members in _placed_label(cells, by_label[label], shares, carried).items():
            part_of |= {row: part for unit in members for row in unit}
    return part_of


def _train_each_stratum(
    cells: Sequence[Cell], units: Sequence[Unit], part_of: dict[int, str]
) -> None:
    """Move units to train, the smallest first, until each label's stratum has rows there."""
    there = {cells[row][0] for unit in units for row in unit if part_of[row] == "train"}
    for unit in sorted(units, key=len):
        if {cells[row][0] for row in unit} - there:
            part_of |= dict.fromkeys(unit, "train")
            there |= {cells[row][0] for row in unit}


def _placed_label(
    cells: Sequence[Cell],
    units: Sequence[Unit],
    shares: Mapping[str, float],
    carried: dict[str, float],
) -> dict[str, list[Unit]]:
    """Return one label's units by part, cells in proportion; updates the shortage in `carried`."""
    placed: dict[str, list[Unit]] = {part: [] for part in shares}
    by_cell = defaultdict[Cell, list[Unit]](list)
    for unit in units:
        by_cell[_cell(cells, unit)].append(unit)
    for cell in sorted(by_cell):
        seats = _seats(sum(map(len, by_cell[cell])), shares, carried)
        for unit in sorted(by_cell[cell], key=len, reverse=True):  # stable: equals stay shuffled
            part = max(seats, key=seats.__getitem__)
            seats[part] -= len(unit)
            placed[part].append(unit)
        for part, short in seats.items():
            carried[part] += short
    _fill_empty(placed, carried)
    return placed


def _seats(rows: int, shares: Mapping[str, float], carried: dict[str, float]) -> dict[str, float]:
    """Return whole rows for each part by largest remainder, rounding errors carried over.

    So the parts are within a row of their share in every class and stratum, and overall.
    """
    total = sum(shares.values())
    due = {part: rows * share / total for part, share in shares.items()}
    seats = {part: float(int(due[part] + 1e-9)) for part in shares}
    behind = {part: due[part] - seats[part] + carried[part] for part in shares}
    for part in sorted(behind, key=lambda p: -behind[p])[: rows - int(sum(seats.values()))]:
        seats[part] += 1
    for part in shares:
        carried[part] += due[part] - seats[part]
    return seats


def _fill_empty(placed: dict[str, list[Unit]], carried: dict[str, float]) -> None:
    """Give each part without a unit of a label the smallest unit of the part with the most."""
    units = sum(map(len, placed.values()))
    order = [part for part in FIRST if part in placed] or list(placed)  # folds are in any order
    wanted = order[:units]
    for part in wanted:
        if not placed[part]:
            spare = [p for p in placed if len(placed[p]) > (p in wanted)]
            donor = max(spare, key=lambda p: len(placed[p]))
            unit = min(placed[donor], key=len)
            placed[donor].remove(unit)
            placed[part].append(unit)
            carried[part] -= len(unit)
            carried[donor] += len(unit)
    for part in set(placed) - set(wanted):
        for unit in placed[part]:
            carried[part] += len(unit)
            carried[wanted[0]] -= len(unit)
        placed[wanted[0]] += placed[part]
        placed[part] = []


def _cell(cells: Sequence[Cell], unit: Unit) -> Cell:
    """Return the commonest cell of a unit's rows, the first one in a tie."""
    if len(unit) == 1:
        return cells[unit[0]]
    return Counter(cells[row] for row in unit).most_common(1)[0][0]


def _check_enough(
    dataset: Dataset,
    cells: Sequence[Cell],
    units: Sequence[Unit],
    plan: SplitPlan,
    together: Sequence[Sequence[int]],
) -> None:
    """Raise DataError for classes with too few distinct pictures, or fewer than three units."""
    names = dataset.target.stratum_names
    labels = [label if names else 0 for label, _ in cells]
    first = {row: run[0] for run in together for row in run}
    different = Counter(labels[row] for row in {first.get(r, r) for u in units for r in u})
    whole = Counter(label for unit in units for label in {labels[row] for row in unit})

    few = [
        f"{repr(names[c]) if names else 'this one'} has "
        f"{n if n < plan.fewest else f'{n} in {whole[c]}'}"
        for c, n in sorted(different.items())
        if n < plan.fewest or whole[c] < len(PARTS)
    ]
    if few:
        shares = "/".join(f"{plan.share(part):.2f}" for part in PARTS)
        more = f" and {len(few) - NAMED} more classes too few" if len(few) > NAMED else ""
        raise DataError(
            f"{'A class' if names else 'A data set'} takes {plan.fewest} different "
            f"{dataset.examples} or more for train, val and test of "
            f"{shares}, where copies count once, in {len(PARTS)} groups or more if it has groups; "
            f"{', '.join(few[:NAMED])}{more}. Add {dataset.examples}, take the class "
            f"out, or name the parts yourself (folders train, val and test, or a manifest's "
            f"column part)."
        )


def _check_training(
    dataset: Dataset, cells: Sequence[Cell], rows: Mapping[str, Sequence[int]]
) -> None:
    names = dataset.target.stratum_names
    there = {cells[row][0] for row in rows["train"]}
    used = {cells[row][0] for part in PARTS for row in rows[part]}
    if missing := sorted(used - there if names or not there else ()):
        own = f"{names[missing[0]]!r} has" if names else "there are"
        what = f"{'Every class' if names else 'A model'} needs rows to train on; {own}"
        raise DataError(
            f"{what} none in train. Move some there, or give no parts and let the split make them."
        )
