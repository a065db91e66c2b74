"""One number that makes probabilities honest: of answers given with 0.8, 80 in 100 are right."""

import numpy as np
from numpy.typing import NDArray

from headstart.targets.metrics import Floats, softmax

TEMPERATURES = (0.05, 20.0)


def scaled(scores: Floats, temperature: float) -> NDArray[np.float32]:  # (N, C) -> (N, C)
    """The softmax of the logits divided by the temperature, from the probabilities alone.

    A softmax forgets a constant of its logits, and no more: their logarithms will do (Guo et al.
    2017, eq. 9). Rows keep the order of their classes.
    """
    if temperature == 1.0:
        return scores.astype(np.float32)
    return softmax(_logs(scores) / temperature).astype(np.float32)


def fit_temperature(scores: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature with the least log loss on rows that trained nothing; 1 if they can't tell.

    labels: (N,), each known. Rows without a mistake among them would ask for certainty, which no
    number of right answers can warrant: they tell nothing.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if not len(labels) or (scores.argmax(axis=1) == labels).all():
        return 1.0
    logs = _logs(scores)
    own = logs[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float(np.mean(logsumexp(logs / temperature, axis=1) - own / temperature))

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), options={"xatol": 1e-8})
    return float(np.exp(found.x))


def _logs(scores: Floats) -> NDArray[np.float64]:
    return np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))
