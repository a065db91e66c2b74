"""Mixup of the examples of a batch."""

import numpy as np
import torch
from torch import Tensor

from headstart.base.errors import SpecError
from headstart.training.parts import Parts, TrainingBatch


def mixed(
    x: TrainingBatch, soft: Tensor, strength: float, seeds: tuple[int, ...]
) -> tuple[TrainingBatch, Tensor]:
    """Blend each row and its soft label with another row of the batch.

    Mixup (Zhang et al. 2018, eq. 1); strength 0 changes nothing. Raises SpecError for examples in
    parts, which can't be added up.
    """
    if not strength:
        return x, soft
    if isinstance(x, Parts):
        raise SpecError("Mixup blends examples of one size; these are of several parts or lengths.")
    rng = np.random.default_rng(seeds)
    share = float(rng.beta(strength, strength))
    other = torch.from_numpy(rng.permutation(len(x)))
    blended = share * x + (1 - share) * x[other]
    blended = blended if x.is_floating_point() else blended.round().to(x.dtype)  # whole pixels
    return blended, share * soft + (1 - share) * soft[other]
