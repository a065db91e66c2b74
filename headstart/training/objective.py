"""The labels and weights that a batch is learned from, and mixup of its examples."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.base.errors import SpecError
from headstart.targets.metrics import ClassWeights
from headstart.targets.supervision import Supervision
from headstart.targets.target import Labels, Target
from headstart.training.parts import Parts, TrainingBatch


@dataclass(frozen=True, eq=False)
class BatchLabels:
    """The labels, probabilities and weights from which n rows are learned.

    named: their labels as `Target.soft` gives them, for class weights and the history. soft:
    probabilities (n, C) for the loss, in place of the labels; None for the labels. case: (n,) case
    weights, of mean 1 over all training rows; None for 1 each.
    """

    named: Tensor
    soft: Tensor | None = None
    case: Tensor | None = None

    @property
    def learned(self) -> Tensor:
        """The tensor that the loss learns: the probabilities, or without them the labels."""
        return self.named if self.soft is None else self.soft

    def of(self, rows: slice) -> Self:
        """Return the labels and weights of some rows of the batch."""
        soft, case = (None if values is None else values[rows] for values in (self.soft, self.case))
        return replace(self, named=self.named[rows], soft=soft, case=case)

    def blended(self, share: float, other: Tensor) -> Self:
        """Return the labels and weights, each blended with that of another row."""
        soft, case = (
            None if values is None else _blend(values, share, other)
            for values in (self.soft, self.case)
        )
        return replace(self, named=_blend(self.named, share, other), soft=soft, case=case)


@dataclass(frozen=True, eq=False)
class Objective:
    """How rows are learned: their labels or probabilities, class weights and case weights.

    balance: of the target's class weights. soft, case: of all rows, as in `BatchLabels`. smoothing:
    of labels and probabilities.
    """

    target: Target
    y: Labels
    balance: Tensor
    soft: Tensor | None
    case: Tensor | None
    smoothing: float

    @classmethod
    def of(
        cls, target: Target, y: Labels, counting: Supervision, how: ClassWeights, smoothing: float
    ) -> "Objective":
        """Return the objective of training rows with labels `y`. how: the class weights."""
        balance = torch.tensor(target.balance(how, y, **counting.case), dtype=torch.float32)
        soft, case = (
            None if values is None else torch.from_numpy(values.astype(np.float32))
            for values in (counting.soft, counting.relative)
        )
        return cls(target, y, balance, soft, case, smoothing)

    def batch(self, rows: NDArray[np.int64], labels: Labels | None = None) -> BatchLabels:
        """Return what some rows are learned from. labels: of these rows, if other than in `y`."""
        labels = self.y[rows] if labels is None else labels
        soft = self.soft
        return BatchLabels(
            self.target.soft(labels, self.smoothing),
            None if soft is None else self.target.smoothed(soft[rows], self.smoothing),
            None if self.case is None else self.case[rows],
        )

    def weights(self, labels: BatchLabels) -> Tensor:
        """Return (n,) weights by which the losses of a batch are summed.

        Class weights, those of the labels, have a sum of 1 in each batch. Case weights multiply
        them, so that a batch of light rows moves the network less than one of heavy rows.
        """
        weights = self.target.weights(labels.named, self.balance)
        weights = weights / weights.sum()
        return weights if labels.case is None else weights * labels.case


def mixed(
    x: TrainingBatch, labels: BatchLabels, strength: float, seeds: tuple[int, ...]
) -> tuple[TrainingBatch, BatchLabels]:
    """Blend each row, its label and its weight with another row of the batch.

    Mixup (Zhang et al. 2018, eq. 1); strength 0 changes nothing. Raises SpecError for examples in
    parts, which can't be added up.
    """
    if not strength:
        return x, labels
    if isinstance(x, Parts):
        raise SpecError("Mixup blends examples of one size; these are of several parts or lengths.")
    rng = np.random.default_rng(seeds)
    share = float(rng.beta(strength, strength))
    other = torch.from_numpy(rng.permutation(len(x)))
    blended = _blend(x, share, other)
    blended = blended if x.is_floating_point() else blended.round().to(x.dtype)  # whole pixels
    return blended, labels.blended(share, other)


def _blend(values: Tensor, share: float, other: Tensor) -> Tensor:
    return share * values + (1 - share) * values[other]
