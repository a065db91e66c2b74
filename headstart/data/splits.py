"""Which rows are for fitting, which for choosing, and which are only for the final number."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.data.dataset import PARTS, Dataset, LeftOut
from headstart.data.duplicates import groups as joined
from headstart.errors import DataError, SpecError

# A part that is missing comes out of the first of these that is there: the tutorials take their
# test part out of validation.
DONORS = {"test": ("val", "train"), "val": ("train", "test"), "train": ("val", "test")}
KEPT_FIRST = ("test", "val", "train")  # of twins in two given parts, the one that judges stays


@dataclass(frozen=True)
class SplitPlan:
    """How rows are shared out.

    val: share of the rows to choose by.
    test: share of the rows to judge by.
    seed: another seed, another split.
    """

    val: float = 0.15
    test: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.val and 0 < self.test and self.val + self.test < 1):
            raise SpecError(
                f"val and test are shares of the rows and must leave some for training; "
                f"got val={self.val}, test={self.test}."
            )

    @property
    def shares(self) -> dict[str, float]:
        return {"train": 1 - self.val - self.test, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class Splits:
    """Three parts of a dataset that share no row, duplicate or group."""

    train: Dataset
    val: Dataset
    test: Dataset
    left_out: tuple[LeftOut, ...] = ()


def split(
    dataset: Dataset, plan: SplitPlan | None = None, *, together: Sequence[Sequence[int]] = ()
) -> Splits:
    """Share rows out by label and stratum, each part its share of each; whole groups at a time.

    together: rows, by number, that must not stand in two parts (duplicates), beside those that
    `dataset.groups` names. Parts that the data itself gives are kept, and what is missing is
    carved from what is there: a part's share of the donor is its share of the two together. Rows
    for which the data names no part are shared out by the plan. Where a group stands in two given
    parts, the rows that judge stay and their twins are left out. Raises DataError without rows.
    """
    if not len(dataset):
        raise DataError("There are no rows to split.")
    plan = plan or SplitPlan()
    groups = _groups(dataset, together)
    parts = list(dataset.parts) or [""] * len(dataset)
    left_out = _leaks(dataset, parts, groups)
    rng = np.random.default_rng(plan.seed)
    for rows, shares in _to_share_out(parts, plan):
        _share_out(dataset, parts, rows, groups, shares, rng)
    train, val, test = (
        dataset.take([row for row, part in enumerate(parts) if part == name]) for name in PARTS
    )
    return Splits(train, val, test, left_out)


def _groups(dataset: Dataset, together: Sequence[Sequence[int]]) -> list[list[int]]:
    """Every row in exactly one group, groups in the order of their first rows."""
    named = defaultdict[str, list[int]](list)
    for row, name in enumerate(dataset.groups):
        if name:
            named[name].append(row)
    runs = [list(rows) for rows in (*named.values(), *together)]
    groups = [list(group) for group in joined(runs)]
    alone = set(range(len(dataset))) - {row for group in groups for row in group}
    return sorted([*groups, *([row] for row in alone)])


def _leaks(dataset: Dataset, parts: list[str], groups: list[list[int]]) -> tuple[LeftOut, ...]:
    """Take twins of rows that judge out of the other given parts; rows without a part follow."""
    left_out = []
    for group in groups:
        given = [name for name in KEPT_FIRST if name in {parts[row] for row in group}]
        if not given:
            continue
        twin = next(dataset.ids[row] for row in group if parts[row] == given[0])
        for row in group:
            if parts[row] in given[1:]:
                why = f"the same as {twin}, or of its group, which is in {given[0]}"
                left_out.append(LeftOut(dataset.ids[row], why))
                parts[row] = "left out"
            else:
                parts[row] = given[0]
    return tuple(left_out)


def _to_share_out(
    parts: list[str], plan: SplitPlan
) -> Iterable[tuple[list[int], dict[str, float]]]:
    """Which rows are to be shared out, and among which parts in which proportion."""
    there = [name for name in PARTS if name in parts]
    free = [row for row, part in enumerate(parts) if part == ""]
    if free:
        yield free, plan.shares
        return
    for missing in (name for name in KEPT_FIRST if name not in there):
        donor = next(name for name in DONORS[missing] if name in there)
        rows = [row for row, part in enumerate(parts) if part == donor]
        yield rows, {donor: plan.shares[donor], missing: plan.shares[missing]}


def _share_out(
    dataset: Dataset,
    parts: list[str],
    rows: list[int],
    groups: list[list[int]],
    shares: Mapping[str, float],
    rng: np.random.Generator,
) -> None:
    """Give `rows` their parts, stratum by stratum, writing into `parts`.

    A group belongs to the stratum of its first row. Large groups go first, each to the part that
    is most short of its target, in rows.
    """
    wanted = set(rows)
    strata = defaultdict[tuple[str, int], list[list[int]]](list)
    for group in groups:
        if group[0] in wanted:
            stratum = dataset.strata[group[0]] if dataset.strata else ""
            strata[stratum, dataset.labels[group[0]]].append(group)
    owed = dict.fromkeys(shares, 0.0)  # rows that rounding took from a part so far
    for key in sorted(strata):
        members = [strata[key][i] for i in rng.permutation(len(strata[key]))]
        owed = _place(members, parts, shares, owed)


def _place(
    members: list[list[int]], parts: list[str], shares: Mapping[str, float], owed: dict[str, float]
) -> dict[str, float]:
    """Place the groups of one stratum, each where most rows are wanting; what is owed then.

    Each part that can have a group gets one at least.
    """
    rows, total = sum(map(len, members)), sum(shares.values())
    short = {name: rows * share / total + owed[name] for name, share in shares.items()}
    empty = _open_to(len(members), list(shares))
    open_to = list(empty)
    for left, group in zip(range(len(members), 0, -1), sorted(members, key=len)[::-1], strict=True):
        part = max(empty if left <= len(empty) else open_to, key=lambda name: short[name])
        short[part] -= len(group)
        empty = [name for name in empty if name != part]
        for row in group:
            parts[row] = part
    return short


def _open_to(groups: int, names: list[str]) -> list[str]:
    """The parts that so few groups are for: one is for training, of two one judges."""
    if groups == 1:
        return ["train"] if "train" in names else names[:1]
    return [name for name in names if name != "val"] if groups < len(names) else names
