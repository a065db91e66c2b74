"""Draws of a few examples of each class, from the rows outside the test part."""

from collections.abc import Sequence

import numpy as np

from headstart.base.errors import DataError
from headstart.data.dataset import Dataset
from headstart.data.folds import RunParts
from headstart.data.splits import SplitPlan, Splits, split
from headstart.data.units import Unit, units_of

Draw = tuple[Dataset, Dataset]  # rows to learn from, and rows to judge by


def with_shots(
    dataset: Dataset,
    plan: SplitPlan,
    shots: int,
    draws: int,
    *,
    together: Sequence[Sequence[int]] = (),
) -> RunParts:
    """Return parts whose training rows are K of each class, and draws of such rows.

    The test part is that of `split`. Every draw takes K rows of each class from the other rows, of
    K different units; the units that are not drawn are judged. Rows of weight 0, which are not
    learned from, are not drawn. The saved model learns from the first draw, without validation
    rows. Raises DataError for a target without classes, and for a class with fewer than K + 1 units
    to draw from outside the test part.
    """
    if not dataset.target.stratum_names:
        raise DataError(
            f"Shots count the examples of a class, and this data has {dataset.target.noun}: leave "
            f"--shots out, or read it as classes with --target class."
        )
    whole = split(dataset, plan, together=together)
    pool = {*whole.train.ids, *whole.val.ids}
    kept = ([row for row in u if dataset.ids[row] in pool] for u in units_of(dataset, together))
    units = [tuple(unit) for unit in kept if unit]
    found = tuple(_drawn(dataset, units, shots, (plan.seed, draw)) for draw in range(draws))
    splits = Splits(found[0][0], dataset.take([]), whole.test, whole.left_out)
    return RunParts(splits, draws=found)


def _drawn(dataset: Dataset, units: Sequence[Unit], shots: int, seed: Sequence[int]) -> Draw:
    """Return one draw; the other rows of the drawn units are in neither dataset."""
    rng, labels = np.random.default_rng(seed), dataset.target.strata(dataset.y)
    picked, used, learned = list[int](), set[int](), _learned(dataset, units)
    for c, name in enumerate(dataset.target.stratum_names):
        own = [n for n, row in learned.items() if labels[row] == c]
        if len(own) <= shots:
            weighed = " and those of weight 0 not at all" if len(learned) < len(units) else ""
            raise DataError(
                f"--shots {shots} takes {shots + 1} different {dataset.examples} or more of each "
                f"class beside the test part, where copies and the rows of a group count once"
                f"{weighed}; {name!r} has {len(own)}. Add {dataset.examples}, or name fewer "
                f"--shots."
            )
        chosen = rng.permutation(own)[:shots].tolist()
        picked += [learned[n] for n in chosen]
        used |= set(chosen)
    rest = [row for n, unit in enumerate(units) if n not in used for row in unit]
    return dataset.take(sorted(picked)), dataset.take(sorted(rest))


def _learned(dataset: Dataset, units: Sequence[Unit]) -> dict[int, int]:
    """Return the first row of a weight above 0 of each unit that has one, by the unit's number."""
    weights = dataset.weights or (1.0,) * len(dataset)
    kept = ((n, [row for row in unit if weights[row]]) for n, unit in enumerate(units))
    return {n: rows[0] for n, rows in kept if rows}
