"""Groups of rows that stay together, as a column of a dataset."""

from collections.abc import Sequence
from dataclasses import replace

from headstart.data.dataset import Dataset
from headstart.data.splits import units_of


def grouped(dataset: Dataset, together: Sequence[Sequence[int]] = ()) -> Dataset:
    """Return the dataset with one group for each unit of rows that a split would keep together.

    together: groups of rows, such as duplicates, as for `split`. So folds hold copies out together.

    >>> data = Dataset(("a", "b", "c"), ("a", "b", "c"), (0, 0, 1), ("x", "y"))
    >>> grouped(data, [(0, 2)]).groups
    ('a', '', 'a')
    """
    names = [""] * len(dataset)
    for unit in units_of(dataset, together):
        if len(unit) > 1:
            for row in unit:
                names[row] = dataset.ids[unit[0]]
    return replace(dataset, groups=tuple(names))
