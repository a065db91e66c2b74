"""Split a dataset into train, val and test."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError, SpecError
from headstart.base.grouping import names_of_groups
from headstart.base.values import check_seed
from headstart.data.content import each_once
from headstart.data.dataset import PARTS, Dataset, LeftOut
from headstart.data.units import Unit, Units, units_of
from headstart.targets.target import Target

Placed = NDArray[np.int16]  # of each row the number of its part, NOWHERE for none
NOWHERE = -1
Cell = tuple[int, str]  # a row's stratum by its label, and its stratum in the data
RANK = ("test", "val", "train")  # the first of a picture's named parts keeps it
NAMED = 5  # strata in a message
# Steps that make the missing parts, by the parts that the data names. A step is (donor, the parts
# into which its rows are divided). For other data, all parts are made of the only named part, or
# of all rows (donor "").
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
    units = units.without(list(left_out))
    given = tuple(part for n, part in enumerate(PARTS) if (part_of == n).any())
    rng = np.random.default_rng(plan.seed)
    for donor, parts in CARVINGS.get(given, [(given[0] if given else "", wanted)]):
        number = PARTS.index(donor) if donor else NOWHERE
        pool = units.take(np.flatnonzero(part_of[units.first] == number))
        if len(parts) == len(PARTS):
            _check_enough(dataset, cells, pool, plan, together)
        shares = {part: plan.share(part) for part in parts}
        numbers = np.array([PARTS.index(part) for part in parts], np.int16)
        part_of[pool.rows] = numbers[placed(cells, pool, shares, rng)[pool.rows]]
        if "train" in shares and dataset.target.stratum_names:
            _train_each_stratum(cells, pool, part_of)
    rows = {part: np.flatnonzero(part_of == n) for n, part in enumerate(PARTS)}
    _check_training(dataset, cells, rows)
    train, val, test = (dataset.take(rows[part]) for part in PARTS)
    (val, more), (test, others) = each_once(val), each_once(test)
    straddling = (out for _, out in sorted(left_out.items()))
    named = tuple(tuple(dataset.ids[row] for row in unit) for unit in units.several())
    return Splits(train, val, test, (*straddling, *more, *others), named)


def _given(dataset: Dataset, units: Units) -> tuple[Placed, dict[int, LeftOut]]:
    """Return the parts named by the data, as numbers in PARTS, and the rows to leave out, with the
    reason."""
    part_of = np.full(len(dataset), NOWHERE, np.int16)
    left_out = dict[int, LeftOut]()
    if not any(dataset.parts):
        return part_of, left_out
    for unit in units:
        named = [dataset.parts[row] for row in unit]
        kept = next((part for part in RANK if part in named), "train")
        for row in unit:
            if dataset.parts[row] in (kept, ""):
                part_of[row] = PARTS.index(kept)
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
    units: Units,
    shares: Mapping[str, float],
    rng: np.random.Generator,
) -> Placed:
    """Return the number of a share for each row: every cell in proportion, in whole units."""
    part_of = np.full(len(cells), NOWHERE, np.int16)
    carried, number_of = dict.fromkeys(shares, 0.0), {part: n for n, part in enumerate(shares)}
    own = [_cell(cells, unit) for unit in units]
    for members in _by_label(own, rng.permutation(len(units))):
        for part, some in _placed_label(own, units, members, shares, carried).items():
            part_of[units.take(some).rows] = number_of[part]
    return part_of


def _by_label(own: Sequence[Cell], order: NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield the numbers of each label's units in this order, labels rising. own: their cells."""
    labels = np.fromiter((own[n][0] for n in order), np.int64, len(order))
    by_label = np.argsort(labels, kind="stable")
    begins = np.flatnonzero(np.diff(labels[by_label])) + 1
    yield from (order[some].tolist() for some in np.split(by_label, begins) if len(some))


def _train_each_stratum(cells: Sequence[Cell], units: Units, part_of: Placed) -> None:
    """Move units to train, the smallest first, until each label's stratum has rows there."""
    train = PARTS.index("train")
    there = {cells[row][0] for row in units.rows if part_of[row] == train}
    for n in np.argsort(units.sizes, kind="stable").tolist():
        unit = units[n]
        if {cells[row][0] for row in unit} - there:
            part_of[list(unit)] = train
            there |= {cells[row][0] for row in unit}


def _placed_label(
    own: Sequence[Cell],
    units: Units,
    members: Sequence[int],
    shares: Mapping[str, float],
    carried: dict[str, float],
) -> dict[str, list[int]]:
    """Return one label's units by part, cells in proportion; updates the shortage in `carried`.

    own: the cell of each unit. members: the numbers of the label's units, shuffled.
    """
    placed: dict[str, list[int]] = {part: [] for part in shares}
    sizes, by_cell = units.sizes, defaultdict[Cell, list[int]](list)
    for n in members:
        by_cell[own[n]].append(n)
    for cell in sorted(by_cell):
        seats = _seats(int(sizes[by_cell[cell]].sum()), shares, carried)
        # stable: equals stay shuffled
        for n in sorted(by_cell[cell], key=sizes.__getitem__, reverse=True):
            part = max(seats, key=seats.__getitem__)
            seats[part] -= int(sizes[n])
            placed[part].append(n)
        for part, short in seats.items():
            carried[part] += short
    _fill_empty(sizes, placed, carried)
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


def _fill_empty(
    sizes: NDArray[np.int64], placed: dict[str, list[int]], carried: dict[str, float]
) -> None:
    """Give each part without a unit of a label the smallest unit of the part with the most.

    sizes: of all units, in rows.
    """
    units = sum(map(len, placed.values()))
    order = [part for part in FIRST if part in placed] or list(placed)  # folds are in any order
    wanted = order[:units]
    for part in wanted:
        if not placed[part]:
            spare = [p for p in placed if len(placed[p]) > (p in wanted)]
            donor = max(spare, key=lambda p: len(placed[p]))
            unit = min(placed[donor], key=sizes.__getitem__)
            placed[donor].remove(unit)
            placed[part].append(unit)
            carried[part] -= int(sizes[unit])
            carried[donor] += int(sizes[unit])
    for part in set(placed) - set(wanted):
        for unit in placed[part]:
            carried[part] += int(sizes[unit])
            carried[wanted[0]] -= int(sizes[unit])
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
    units: Units,
    plan: SplitPlan,
    together: Sequence[Sequence[int]],
) -> None:
    """Raise DataError for classes with too few distinct pictures, or fewer than three units."""
    names = dataset.target.stratum_names
    labels = np.array([label if names else 0 for label, _ in cells], np.int64)
    first = np.arange(len(cells))
    for run in filter(len, together):
        first[list(run)] = run[0]
    different = _counts(labels[np.unique(first[units.rows])])
    whole = _counts(labels[units.first[units.sizes == 1]])
    whole.update(label for unit in units.several() for label in set(labels[list(unit)].tolist()))

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


def _counts(labels: NDArray[np.int64]) -> Counter[int]:
    values, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _check_training(
    dataset: Dataset, cells: Sequence[Cell], rows: Mapping[str, NDArray[Any]]
) -> None:
    names = dataset.target.stratum_names
    there, used = (
        {cells[row][0] for part in parts for row in rows[part]} for parts in (("train",), PARTS)
    )
    if missing := sorted(used - there if names or not there else ()):
        own = f"{names[missing[0]]!r} has" if names else "there are"
        what = f"{'Every class' if names else 'A model'} needs rows to train on; {own}"
        raise DataError(
            f"{what} none in train. Move some there, or give no parts and let the split make them."
        )
