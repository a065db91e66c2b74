"""The nearest class mean: a linear head for very few rows, without a setting to choose."""

import numpy as np

from headstart.heads.basis import Basis, Doubles
from headstart.heads.fit import check_pair
from headstart.heads.head import FeatureRows, Fitted, counted
from headstart.heads.linear import softmax_head
from headstart.heads.ridge import temperature_of
from headstart.heads.specs import MeanSpec


def fit_mean(spec: MeanSpec, train: FeatureRows, val: FeatureRows) -> Fitted:
    """Fit a head that answers with the class whose mean is nearest, in standardised columns.

    The logits are -|z - mean|² / 2T, which are linear in z but for a term that all classes share
    (Snell, Swersky, Zemel 2017, Prototypical networks for few-shot learning, section 2.4). The
    temperature T is that of the least log loss of the training rows, each judged by means without
    it. Validation rows are not needed. Raises the errors of `check_pair`.
    """
    train = counted(train)
    check_pair(train, val)
    basis = Basis.of(train, spec.class_weights)
    present = np.asarray(basis.targets.any(axis=0))
    share = np.ascontiguousarray(basis.targets[:, present])
    z, own = basis.z.astype(np.float64), basis.row_weights[:, None] * share
    means = own.T @ z / own.sum(axis=0)[:, None]
    away = ((z[:, None, :] - means) ** 2).sum(axis=2)
    scale = float(away.mean()) or 1.0  # the temperature does not depend on the number of columns
    logits = -_left_out(away, own) / 2 / scale
    temperature = scale * temperature_of(logits, share, basis.row_weights)
    bias = -(means**2).sum(axis=1) / 2
    head = softmax_head(basis, means.T / temperature, bias / temperature, present)
    by = "the least log loss of rows that the means leave out"
    return Fitted(head, {"head": spec.family, "temperature": temperature, "by": by}, ())


def _left_out(away: Doubles, own: Doubles) -> Doubles:
    """Return (N, C) squared distances of rows from means without the row.

    away: from the means with it. own: the weight of each row in each mean. Without a row of weight
    w, the mean of a total weight W is W / (W - w) times as far. The only row of a class is as far
    from its own class as from the nearest other.
    """
    total = own.sum(axis=0)
    left = total - own
    alone = left <= 1e-9 * total
    nearest = np.where(alone, np.inf, away).min(axis=1, keepdims=True)
    further = away * (total / np.where(alone, 1.0, left)) ** 2
    return np.where(alone, np.where(np.isfinite(nearest), nearest, 0.0), further)
