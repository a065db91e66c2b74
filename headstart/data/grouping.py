"""Groups of rows that stay together, as a column of a dataset."""

from collections.abc import Sequence
from dataclasses import replace

from headstart.base.grouping import names_of_groups
from headstart.data.dataset import Dataset
from headstart.data.units import units_of


def grouped(dataset: Dataset, together: Sequence[Sequence[int]] = ()) -> Dataset:
    """Return the dataset with one group for each unit of rows that a split would keep together.

    together: groups of rows, such as duplicates, as for `split`. So folds hold copies out together.

    >>> data = Dataset(("a", "b", "c"), ("a", "b", "c"), (0, 0, 1), ("x", "y"))
    >>> grouped(data, [(0, 2)]).groups
    ('a', 'b', 'a')
    """
    units = ([dataset.ids[row] for row in unit] for unit in units_of(dataset, together))
    return replace(dataset, groups=names_of_groups(dataset.ids, units))
