"""What an explanation divides among the parts of an example, for each kind of target."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from headstart.targets.classes import ClassTarget
from headstart.targets.grades import GradesTarget
from headstart.targets.labels import LabelsTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.target import Target

NAMES = ("a", "b", "c")
TARGETS: dict[str, Target] = {
    "class": ClassTarget(NAMES),
    "labels": LabelsTarget(NAMES),
    "number": NumberTarget(mean=10.0, std=2.0),
    "quantiles": NumberTarget("quantile", mean=10.0, std=2.0),
    "grades": GradesTarget(NAMES),
}


def rising(target: Target, topic: int) -> torch.Tensor:
    """Raw outputs (9, K) that speak more and more for a topic."""
    raw = torch.zeros(9, target.outputs)
    columns = [topic] if target.names_topics else list(range(target.outputs))
    raw[:, columns] = torch.linspace(-2, 2, 9)[:, None]
    return raw


@pytest.mark.parametrize("kind", TARGETS)
def test_more_evidence_is_a_higher_degree_from_0_to_1(kind: str) -> None:
    target = TARGETS[kind]
    for topic in range(len(target.topics())):
        raw = rising(target, topic).requires_grad_()
        evidence = target.evidence(raw, topic)
        degree = target.degree(target.activate(raw.detach().numpy()), topic)
        assert evidence.shape == degree.shape == (9,)
        assert all(a < b for a, b in pairwise(evidence.tolist()))
        assert all(0 < a < b < 1 for a, b in pairwise(degree))
        (slope,) = torch.autograd.grad(evidence.sum(), raw)
        assert slope.abs().sum() > 0


@pytest.mark.parametrize("kind", ["class", "labels"])
def test_each_row_may_have_its_own_topic(kind: str) -> None:
    target, raw = TARGETS[kind], torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    topics = torch.tensor([0, 2, 1, 2])
    own = target.evidence(raw, topics)
    one_by_one = [target.evidence(raw, int(t))[n] for n, t in enumerate(topics)]
    assert own.tolist() == torch.stack(one_by_one).tolist()
    likely = target.topic(target.activate(raw.numpy()))
    assert likely.tolist() == raw.argmax(dim=1).tolist()


def test_one_logit_is_of_the_second_of_two_classes() -> None:
    target, raw = ClassTarget(("a", "b")), torch.tensor([[1.5]])
    assert [float(target.evidence(raw, n)) for n in range(2)] == [-1.5, 1.5]


def test_quantities_have_one_topic_that_is_no_name() -> None:
    assert TARGETS["number"].topics() == ("value",)
    assert TARGETS["grades"].topics() == ("grade",)
    answers = {"value": np.array([10.0, 12.0], np.float32)}
    assert TARGETS["number"].topic(answers).tolist() == [0, 0]
    assert TARGETS["number"].degree(answers, 0) == pytest.approx([0.5, 0.841], abs=1e-3)
