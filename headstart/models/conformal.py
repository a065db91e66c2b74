"""Regions that hold the truth as often as was asked, whatever the model is worth.

Split conformal prediction: the target says how unlike the truth each answer is (`conformity`), and
a region holds whatever is less unlike than the limit. For classes the score is 1 - p of the right
one: Sadinle, Lei, Wasserman 2019, Least ambiguous set-valued classifiers with bounded error levels;
the finite-sample rank of Angelopoulos and Bates 2021, A gentle introduction to conformal
prediction, section 1. Rows trained nothing and come as new ones will: then a new row's region holds
the truth with probability 1 - alpha or more.
"""

import math

import numpy as np
from numpy.typing import NDArray


def upper_limit(values: NDArray[np.float64], share: float) -> float:
    """What a new value exceeds with probability `share` at most; infinite if too few are known.

    The ⌈(n + 1)(1 - share)⌉-th smallest of n exchangeable values.

    >>> upper_limit(np.arange(1.0, 100.0), 0.1)
    90.0
    """
    rank = math.ceil((len(values) + 1) * (1 - share) - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf
