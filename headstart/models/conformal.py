"""Split conformal prediction: regions that contain the truth with a chosen probability.

The target scores how much each answer disagrees with the truth (`conformity`), and a region
contains all labels whose score is at most the limit. For classes the score is 1 - p of the true
class: Sadinle, Lei, Wasserman 2019, Least ambiguous set-valued classifiers with bounded error
levels; the finite-sample rank of Angelopoulos and Bates 2021, A gentle introduction to conformal
prediction, section 1. If the calibration rows were not trained on and are exchangeable with new
rows, a new row's region contains the truth with probability 1 - alpha or more.
"""

import math

import numpy as np
from numpy.typing import NDArray


def upper_limit(values: NDArray[np.float64], share: float) -> float:
    """Return a limit that a new value exceeds with probability `share` at most; inf if n is too
    small.

    The ⌈(n + 1)(1 - share)⌉-th smallest of n exchangeable values.

    >>> upper_limit(np.arange(1.0, 100.0), 0.1)
    90.0
    """
    rank = math.ceil((len(values) + 1) * (1 - share) - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf
