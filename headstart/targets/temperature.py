"""Temperature scaling: of answers given with probability 0.8, 80 in 100 should be right."""

import numpy as np
from numpy.typing import NDArray

from headstart.targets.metrics import Floats, row_blocks, softmax

TEMPERATURES = (0.05, 20.0)
NEAR = 1.001  # a temperature within this factor of an end of TEMPERATURES was stopped there


def at_bound(temperature: float) -> bool:
    """Return whether a fitted temperature ended at a bound of those tried: a better one may be
    beyond it.

    >>> at_bound(20.0), at_bound(1.3)
    (True, False)
    """
    low, high = TEMPERATURES
    return not low * NEAR < temperature < high / NEAR


def scaled(scores: Floats, temperature: float) -> NDArray[np.float32]:  # (N, C) -> (N, C)
    """Return the softmax of the logits divided by the temperature (Guo et al. 2017, eq. 9).

    The log probabilities serve as logits: they differ by a constant per row, which softmax ignores.
    """
    if temperature == 1.0:
        return scores.astype(np.float32)
    out = np.empty(scores.shape, np.float32)
    for some in row_blocks(scores):
        out[some] = softmax(_logs(scores[some]) / temperature, np.float32)
    return out


def fit_temperature(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Return the temperature with the least log loss on held-out rows.

    labels: (N,), all known. Returns 1 for no rows, and for rows that are all right, whose best
    temperature would claim certainty.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if not len(labels) or (scores.argmax(axis=1) == labels).all():
        return 1.0
    logs = [_logs(scores[some]) for some in row_blocks(scores)]
    own = _logs(scores[np.arange(len(labels)), labels])

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        sums = np.concatenate([logsumexp(some / temperature, axis=1) for some in logs])
        return float(np.mean(sums - own / temperature))

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), options={"xatol": 1e-8})
    return float(np.exp(found.x))


def _logs(scores: Floats) -> NDArray[np.float64]:
    return np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))
