"""The losses in a solved head's line of history, in NumPy, are those that PyTorch computes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from headstart.targets.grades import GradesTarget
from headstart.targets.labels import LabelsTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.target import Labels, Target

Rng = np.random.Generator
CASES: dict[str, tuple[Target, Callable[[Rng], Labels]]] = {
    "labels": (LabelsTarget(("a", "b", "c")), lambda rng: rng.integers(0, 2, (50, 3))),
    "grades": (GradesTarget(("low", "middle", "high", "top")), lambda rng: rng.integers(0, 4, 50)),
    **{
        objective: (
            NumberTarget(objective=objective, mean=3.0, std=2.5),
            lambda rng: rng.normal(3, 4, 50),
        )
        for objective in NumberTarget.losses
    },
}


@pytest.mark.parametrize("name", CASES)
def test_losses_of_raw_outputs_are_those_of_training(name: str) -> None:
    target, labels = CASES[name]
    rng = np.random.default_rng(0)
    y, raw = labels(rng), rng.normal(0, 30, (50, target.outputs))
    raw[0] = raw[1, ::-1] = 0.0
    ours = target.raw_losses(raw, y)
    theirs = target.loss(torch.from_numpy(raw), target.soft(y).double()).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert ours.shape == (50,)
