"""Linear regression under other losses than the squared one: Huber's, or quantiles."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headstart.heads.basis import Basis, Doubles
from headstart.heads.head import FeatureRows, Floats, Trial
from headstart.heads.linear import LinearHead, linear_head
from headstart.heads.logistic import FEWEST, minimised
from headstart.heads.specs import RidgeSpec
from headstart.targets.residuals import ResidualLoss


def residual_trials(
    spec: RidgeSpec, train: FeatureRows, x: Floats, loss: ResidualLoss
) -> Iterator[Trial]:
    """Fit a linear regression for each strength, from strong to weak, with warm starts.

    Minimises the weighted mean loss of the residuals + l2 / 2 · |weight|² by L-BFGS; biases are not
    penalised. With half the squared error this would be ridge regression.
    """
    problem = Linear(Basis.of(train, spec.class_weights), loss)
    w = problem.start()
    for l2 in sorted(set(spec.l2), reverse=True):
        w = minimised(problem, l2, w)
        head = problem.head(w)
        yield Trial({"l2": l2}, head, train.target.activate(head.raw(x)))


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear regression with K outputs; w: (R + 1, K), biases in its last row."""

    basis: Basis
    residual_loss: ResidualLoss

    def start(self) -> Doubles:
        rows = self.basis.targets
        bias = self.basis.mean_of(rows)
        bias = bias + self.residual_loss.centre(rows - bias, self.basis.row_weights)
        return np.vstack([np.zeros((len(self.basis.values), len(bias))), bias])

    def scale(self, l2: float, w: Doubles) -> Doubles:
        """Return (R + 1, K): one over the root of each direction's curvature at `w`."""
        curvatures = self.residual_loss.curvatures(self.residuals(w))
        curvature = np.maximum(self.basis.mean_of(curvatures), FEWEST)
        return 1.0 / np.sqrt(np.vstack([np.outer(self.basis.values, curvature) + l2, curvature]))

    def loss(self, l2: float, w: Doubles) -> tuple[float, Doubles]:
        """Return loss, summed over the outputs, and gradient; products in the precision of z."""
        basis, r = self.basis, self.residuals(w)
        share = basis.row_weights[:, None] / len(r)
        value = float((share * self.residual_loss.losses(r)).sum())
        down = -share * self.residual_loss.slopes(r)
        return basis.penalised(l2, w, value, down)

    def residuals(self, w: Doubles) -> Doubles:  # (N, K)
        raw: Doubles = (self.basis.z @ w[:-1].astype(self.basis.z.dtype)).astype(np.float64)
        return self.basis.targets - raw - w[-1]

    def head(self, w: Doubles) -> LinearHead:
        """Return the head of `w`, its biases centred."""
        centre = self.residual_loss.centre(self.residuals(w), self.basis.row_weights)
        return linear_head(self.basis, w[:-1], w[-1] + centre)
