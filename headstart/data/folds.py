"""Divide a dataset into folds, each judged by a model that learned from the other folds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.base.errors import DataError
from headstart.data.dataset import PARTS, Dataset
from headstart.data.splits import Cell, Placed, SplitPlan, Splits, cells_of, placed, split
from headstart.data.units import Units, units_of

NAMED = 5  # classes in a message


@dataclass(frozen=True, eq=False)
class RunParts:
    """The parts of the saved model, and those of the models of the folds, if there are any.

    whole: without folds the parts of `split`; with folds all rows in train and val, none in test.
    folds: for each fold its rows as test, the others as train and val. fold: by id, from 1. draws:
    of few-shot rows, each with the rows that it is judged by.
    """

    whole: Splits
    folds: tuple[Splits, ...] = ()
    fold: tuple[tuple[str, int], ...] = ()
    draws: tuple[tuple[Dataset, Dataset], ...] = ()

    @property
    def recorded(self) -> Splits:
        """The parts that a run records: few-shot rows that judged the first draw as validation."""
        return replace(self.whole, val=self.draws[0][1]) if self.draws else self.whole

    @property
    def fold_of(self) -> dict[str, int]:
        """The fold in which each row is held out, from 1, by id; {} without folds."""
        return dict(self.fold)


def folded(
    dataset: Dataset, plan: SplitPlan, folds: int, *, together: Sequence[Sequence[int]] = ()
) -> RunParts:
    """Return K folds with equal shares of every class and stratum, without splitting units.

    Validation takes the share of the other folds that the plan gives it beside train. A fold's
    test rows hold each example once, as in `split`; of copies the others are in `whole.left_out`.

    Raises DataError for data that names its parts, for a class with fewer than K units, and for one
    whose rows are all in one fold, which is possible where units hold several classes.
    """
    if named := sorted({*dataset.parts} - {""}):
        raise DataError(
            f"Folds judge every row once, and this data names parts of its own "
            f"({', '.join(named)}): leave --folds out, or give the data without parts."
        )
    units, cells = units_of(dataset, together), cells_of(dataset)
    _check_enough(dataset, cells, units, folds)
    shares = {str(number): 1 / folds for number in range(1, folds + 1)}
    fold = placed(cells, units, shares, np.random.default_rng(plan.seed))
    _check_spread(dataset, cells, fold)
    each = tuple(_held_out(dataset, fold, n, plan, together) for n in range(folds))
    whole = split(dataset, plan, together=together, parts=("train", "val"))
    copies = [out for own in each for out in own.left_out]
    left_out = dict.fromkeys((*copies, *whole.left_out))
    rows = tuple((id, own + 1) for id, own in zip(dataset.ids, fold.tolist(), strict=True))
    return RunParts(replace(whole, left_out=tuple(left_out)), each, rows)


def _held_out(
    dataset: Dataset,
    fold: Placed,
    number: int,
    plan: SplitPlan,
    together: Sequence[Sequence[int]],
) -> Splits:
    """Return the parts of one fold; left_out: of its test rows alone."""
    parts = tuple("test" if own == number else "train" for own in fold.tolist())
    own = split(replace(dataset, parts=parts), plan, together=together)
    mine = {dataset.ids[row] for row in np.flatnonzero(fold == number).tolist()}
    train, val, test = (replace(getattr(own, part), parts=()) for part in PARTS)
    left_out = tuple(out for out in own.left_out if out.path in mine)
    return Splits(train, val, test, left_out, own.together)


def _check_spread(dataset: Dataset, cells: Sequence[Cell], fold: Placed) -> None:
    """Raise DataError for a class whose rows are all in one fold, whose model would lack it."""
    there = {(label, own) for (label, _), own in zip(cells, fold.tolist(), strict=True)}
    held = Counter(label for label, _ in there)
    for label, name in enumerate(dataset.target.stratum_names):
        if held[label] == 1:
            raise DataError(
                f"Every class needs rows in two folds or more, and those of {name!r} are all in "
                f"one, because their groups hold other classes too. Name another --seed or number "
                f"of --folds, or take the class out."
            )


def _check_enough(dataset: Dataset, cells: Sequence[Cell], units: Units, folds: int) -> None:
    """Raise DataError unless every class, or without classes the data, has a unit per fold."""
    names = dataset.target.stratum_names
    labels = [label if names else 0 for label, _ in cells]
    there = Counter(label for unit in units for label in {labels[row] for row in unit})
    few = [
        f"{repr(names[c]) if names else 'this one'} has {n}"
        for c, n in sorted(there.items())
        if n < folds
    ]
    if few:
        more = f" and {len(few) - NAMED} more classes too few" if len(few) > NAMED else ""
        raise DataError(
            f"With {folds} folds {'a class' if names else 'a data set'} takes {folds} different "
            f"{dataset.examples} or more, where copies and the rows of a group count once; "
            f"{', '.join(few[:NAMED])}{more}. Add {dataset.examples}, or name fewer --folds."
        )
