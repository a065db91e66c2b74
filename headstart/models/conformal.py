"""Sets of classes that hold the right one as often as was asked, whatever the model is worth.

Split conformal prediction with the score 1 - p of the right class: Sadinle, Lei, Wasserman 2019,
Least ambiguous set-valued classifiers with bounded error levels; the finite-sample rank of
Angelopoulos and Bates 2021, A gentle introduction to conformal prediction, section 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from headstart.heads.head import Floats


def conformal_limit(scores: Floats, labels: NDArray[np.int64], alpha: float) -> float:
    """How far below 1 a class may score and still be in the set; 1 if rows are too few to tell.

    Rows trained nothing and come as new ones will: then a new row's set holds its class with
    probability 1 - alpha or more.
    """
    wrong = 1.0 - scores[np.arange(len(labels)), labels].astype(np.float64)
    return upper_limit(wrong, alpha)


def conformal_sets(scores: Floats, limit: float) -> NDArray[np.bool_]:  # (N, C)
    """Which classes can't be ruled out; none at all for a row that is like no class."""
    return 1.0 - scores.astype(np.float64) <= limit


def upper_limit(values: NDArray[np.float64], share: float) -> float:
    """What a new value exceeds with probability `share` at most; infinite if too few are known.

    The ⌈(n + 1)(1 - share)⌉-th smallest of n exchangeable values.

    >>> upper_limit(np.arange(1.0, 100.0), 0.1)
    90.0
    """
    rank = math.ceil((len(values) + 1) * (1 - share) - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf
