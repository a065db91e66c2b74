"""The worst change of a picture: within reach, in whole levels, and worse than chance finds."""

import pytest
import torch
from torch import Tensor

from headstart.base.errors import SpecError, UnknownName
from headstart.training.attacked import Attack, lead, perturb, pushed, whole

TORCH = torch.Generator().manual_seed(0)
PICTURES = torch.randint(0, 256, (5, 8, 8, 3), generator=TORCH, dtype=torch.uint8)
SLOPES = torch.randn(8, 8, 3, generator=TORCH)


def sloping(x: Tensor) -> Tensor:
    """A loss whose steepest change is known: the same slope everywhere."""
    return (x * SLOPES).flatten(1).sum(dim=1)


@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize("levels", [1, 4])
def test_no_value_changes_by_more_than_epsilon(levels: int, steps: int) -> None:
    changed = perturb(sloping, PICTURES, Attack(levels / 255, steps=steps))
    assert (changed - PICTURES).abs().max() == levels
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert torch.equal(changed, changed.round())


@pytest.mark.parametrize("epsilon", [0.02, 0.2, 1.0])
def test_no_picture_changes_by_more_than_epsilon_in_all(epsilon: float) -> None:
    changed = perturb(sloping, PICTURES, Attack(epsilon, "l2"))
    length = (changed - PICTURES).flatten(1).norm(dim=1)
    assert (length <= 255 * epsilon + 1e-3).all()
    assert (length > 0.8 * 255 * epsilon).all()
    assert torch.equal(changed, changed.round())


@pytest.mark.parametrize("attack", [Attack(1.0), Attack(3.0, "l2"), Attack(40.0, "l2")])
def test_where_there_is_reach_for_more_than_there_is_room_pictures_stay_pictures(
    attack: Attack,
) -> None:
    """Also where a picture is all but white: what is rounded up must not go beyond."""
    pale = (PICTURES // 8 + 224).float()
    for pictures in (PICTURES.float(), pale):
        changed = perturb(sloping, pictures, attack)
        assert 0 <= changed.min() < changed.max() <= 255
        assert torch.equal(changed, changed.round())
        if attack.norm == "l2":
            assert (changed - pictures).flatten(1).norm(dim=1).max() <= 255 * attack.epsilon + 1e-3
    assert whole(torch.full((1, 4), 40.0), torch.full((1, 4), 230.0), attack).max() == 25


def test_the_loss_is_told_of_whole_levels_to_the_bit() -> None:
    def told(x: Tensor) -> Tensor:
        assert torch.equal(x.detach(), x.detach().round())
        return sloping(x).sin()

    for attack in (Attack(8 / 255), Attack(1.0, "l2")):
        perturb(told, PICTURES, attack)


@pytest.mark.parametrize("steps", [1, 2])
def test_pictures_to_train_on_stay_pictures(steps: int) -> None:
    walls = torch.where(SLOPES > 0, 254.0, 1.0).expand(2, -1, -1, -1)
    changed = pushed(sloping, walls, torch.zeros_like(walls), 4.0, steps)
    assert torch.equal(changed, torch.where(SLOPES > 0, 255.0, 0.0).expand_as(changed))


@pytest.mark.parametrize("seed", [20241126120000, 2**70, -1])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    changed = perturb(sloping, PICTURES, Attack(seed=seed))
    assert (changed - PICTURES).abs().max() == 4


@pytest.mark.parametrize("steps", [1, 20])
def test_the_steepest_change_is_found(steps: int) -> None:
    changed = perturb(sloping, PICTURES, Attack(3 / 255, steps=steps))
    best = (PICTURES + 3 * SLOPES.sign()).clamp(0, 255)
    torch.testing.assert_close(sloping(changed), sloping(best))


def test_a_change_that_makes_it_worse_is_not_kept() -> None:
    """The picture itself is the best there is: a single step overshoots it."""
    peak = PICTURES.float()
    changed = perturb(lambda x: -(x - peak).abs().flatten(1).sum(1), PICTURES, Attack(steps=1))
    assert torch.equal(changed, peak)


def test_the_same_seed_changes_the_same() -> None:
    def bumpy(x: Tensor) -> Tensor:
        return (x * SLOPES).sin().flatten(1).sum(dim=1)

    once, again, other = (perturb(bumpy, PICTURES, Attack(seed=s)) for s in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert not torch.equal(once, perturb(bumpy, PICTURES, Attack(seed=1), stream=1))


def test_the_lead_is_below_0_where_another_class_is_called() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0]])
    assert lead(logits, torch.tensor([1, 2])).tolist() == [2.0, -2.0]


@pytest.mark.parametrize("epsilon", [0, 0.5 / 255, -1, float("nan"), float("inf"), 4])
def test_an_epsilon_that_no_file_can_hold_is_refused(epsilon: float) -> None:
    with pytest.raises(SpecError, match=r"epsilon is a share of the pixels' range"):
        Attack(epsilon)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UnknownName, match="linf"):
        Attack(norm="linfinity")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="steps"):
        Attack(steps=0)
