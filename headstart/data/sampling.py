"""Draw some rows of a dataset at random, in the same shares of every label."""

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset


def sample(data: Dataset, most: int, seed: int) -> Dataset:
    """Draw at most `most` rows, stratified by their labels; all rows if there are no more.

    Rows of several labels are stratified by their rarest label, numbers by their order.
    """
    if len(data) <= most:
        return data
    drawn = np.random.default_rng(seed).random(len(data))
    by_label = np.lexsort((drawn, _order(data)))
    return data.take(by_label[np.linspace(0, len(data) - 1, most).round().astype(int)])


def _order(data: Dataset) -> NDArray[np.generic]:
    """Return (N,) numbers by which rows with like labels are adjacent."""
    y = data.y
    one_number = isinstance(y, np.ndarray) and y.ndim == 1
    return y if one_number else data.target.strata(y)
