"""Of head and fine-tuned model the simpler one is kept, unless the other is surely better."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart.models.results import worth_keeping
from headstart.targets.classes import ClassTarget
from headstart.targets.predictions import Predictions


def candidate(right: Sequence[int]) -> Any:
    """One that answers these rows of two classes right (1) or wrong (0)."""
    target, n = ClassTarget(("a", "b")), len(right)
    sure = np.where(np.array(right) == 1, 0.9, 0.1)
    outputs = {"scores": np.stack([sure, 1 - sure], axis=1).astype(np.float32)}
    val = Predictions(tuple(map(str, range(n))), outputs, np.zeros(n, np.int64), target)
    merit = target.merit(outputs, val.labels) if n else (0.0,)
    return SimpleNamespace(val=val, merit=merit)


@pytest.mark.parametrize(
    ("head", "tuned", "kept"),
    [
        ([1] * 12 + [0] * 3, [1] * 13 + [0] * 2, "head"),  # one row of 15: within one error
        ([1] * 12 + [0] * 3, [1] * 15, "finetune"),
        ([1] * 85 + [0] * 15, [1] * 88 + [0] * 12, "finetune"),  # 3 of 100, and none lost
        ([1] * 85 + [0] * 15, [0] * 12 + [1] * 88, "head"),  # 15 won and 12 lost
        ([1] * 9, [0] * 9, "head"),
        ([0], [1], "head"),  # one row has no error
        ([], [], "head"),
    ],
)
def test_fine_tuning_is_kept_if_it_gains_more_than_one_standard_error(
    head: list[int], tuned: list[int], kept: str
) -> None:
    made = {"head": candidate(head), "finetune": candidate(tuned)}
    assert worth_keeping(made) == kept
