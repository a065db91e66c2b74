"""Changes to a picture that raise a loss the most: FGSM and PGD, in whole levels of its pixels.

Everything here is in the pixels' own scale, before any normalisation, and what comes out is what
an 8-bit file can hold: the loss is always told of whole levels, so nothing is lost when they are
saved. Gradients go through the rounding as if it weren't there (Bengio et al. 2013, 'straight
through').
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base.runtime import seeded
from headstart.training.attack import LEVELS as LEVELS
from headstart.training.attack import Attack as Attack
from headstart.training.network import logits_of
from headstart.training.plan import Plan

REACH = 2.5  # epsilons that all steps together may walk: enough to get from wall to wall
FAST = 1.25  # epsilons that the only step of training walks from its random start
ATTACKED = 256  # rows, at most, that an epoch is judged by under attack
AT_ONCE = 16  # of them: gradients take far more memory than looking does
JUDGING_STEPS = 4  # of that attack: more than one, or a network might only look robust to it
HALVINGS = 20  # of the search for the rounding that keeps to an L2 norm


def perturb(
    loss: Callable[[Tensor], Tensor], pixels: Tensor, attack: Attack, stream: int = 0
) -> Tensor:
    """The pictures within reach of which the loss is highest of all that were looked at.

    pixels: (N, …) of whole levels, 0 to 255, any type. loss: such pictures, float32 -> (N,), each
    row's own. stream: another number draws another start from the same seed. Returns float32 of
    whole levels.
    """
    x = pixels.float()
    best, best_loss = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    change = _start(x, attack, stream)
    for step in range(attack.steps + 1):
        change.requires_grad_(True)
        changed = x + whole(change, x, attack) + (change - change.detach())  # whole, to the bit
        with torch.enable_grad():
            told = loss(changed)
        better = told.detach() > best_loss
        best[better], best_loss[better] = changed.detach()[better], told.detach()[better]
        if step < attack.steps:
            (slope,) = torch.autograd.grad(told.sum(), change)
            change = _stepped(change.detach(), slope, x, attack)
    return best


def pushed(
    loss: Callable[[Tensor], Tensor], pixels: Tensor, change: Tensor, levels: float, steps: int
) -> Tensor:
    """The pictures to train on: where steps uphill lead from this change of them.

    pixels, change: (N, …). levels: of 255 that a value may change by. A single step is 1.25 of them
    long (Wong et al. 2020), several are as `perturb`'s (Madry et al. 2018). Returns float32, not in
    whole levels, so that a reach of less than one means something too.
    """
    x, size = pixels.float(), levels * (FAST if steps == 1 else REACH / steps)
    for _ in range(steps):
        change = change.detach().requires_grad_(True)
        with torch.enable_grad():
            told = loss((x + change).clamp(0, LEVELS))
        (slope,) = torch.autograd.grad(told.sum(), change)
        change = (change.detach() + size * slope.sign()).clamp(-levels, levels)
    return (x + change).clamp(0, LEVELS)


def lead(logits: Tensor, labels: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
    """How far the logit of each row's class is above the best of the others: below 0, another is
    called. Unlike a log loss it goes on changing where the network is very sure."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.amax(dim=1)


def whole(change: Tensor, x: Tensor, attack: Attack) -> Tensor:
    """The change in whole levels, within epsilon, of pictures that stay from 0 to 255."""
    change = change.detach()
    if attack.norm == "linf":
        return change.round().clamp(-attack.levels, attack.levels).clamp(-x, LEVELS - x)
    rounded = _whole_l2(change.clamp(-x, LEVELS - x), attack.levels)
    return rounded.clamp(-x, LEVELS - x)  # where all go up, some may go beyond what x has room for


def _whole_l2(change: Tensor, length: float) -> Tensor:
    """Each value goes up to the next level if its fraction reaches a threshold of its picture: the
    lowest with which the picture's change is no longer than `length`. Rounding to the nearest would
    lose a change that is spread thin."""
    size = change.abs()
    low = torch.zeros(len(size), device=size.device)
    high = torch.ones_like(low)

    def rounded(threshold: Tensor) -> Tensor:
        return torch.floor(size + (1 - _rows(threshold, size)))

    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = _length(rounded(middle)) <= length
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    return change.sign() * rounded(high)


def _start(x: Tensor, attack: Attack, stream: int) -> Tensor:
    """Anywhere within reach; the picture itself for a single step."""
    if attack.steps == 1:
        return torch.zeros_like(x)
    generator = seeded(attack.seed * 1_000_003 + stream)
    drawn = torch.rand(x.shape, generator=generator).to(x.device)
    if attack.norm == "linf":
        return (2 * drawn - 1) * attack.levels
    return _of_length(2 * drawn - 1, attack.levels * drawn.flatten(1)[:, 0])


def _stepped(change: Tensor, slope: Tensor, x: Tensor, attack: Attack) -> Tensor:
    """One step uphill, and back within reach."""
    size = attack.levels if attack.steps == 1 else REACH * attack.levels / attack.steps
    if attack.norm == "linf":
        moved = (change + size * slope.sign()).clamp(-attack.levels, attack.levels)
        return torch.maximum(torch.minimum(moved, LEVELS - x), -x)
    moved = change + _of_length(slope, torch.full((len(x),), size, device=x.device))
    moved = torch.maximum(torch.minimum(moved, LEVELS - x), -x)
    return _of_length(moved, _length(moved).clamp(max=attack.levels))


def _of_length(values: Tensor, length: Tensor) -> Tensor:  # (N, …), (N,)
    return values * _rows(length / _length(values).clamp(min=1e-12), values)


def _length(values: Tensor) -> Tensor:  # (N, …) -> (N,)
    return values.flatten(1).norm(dim=1)


def _rows(numbers: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N, 1, …), to go with (N, …)."""
    return numbers.view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class Push:
    """How the pictures of one step of training are changed.

    levels: of 255 that a value may change by. seeds: of where the search begins.
    """

    levels: float
    steps: int
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, plan: Plan, done: int, steps: int, seeds: tuple[int, ...]) -> "Push":
        """That of the step after `done` of so many: the levels rise evenly."""
        return cls(reach_of(plan, done, steps), plan.adversarial_steps, seeds)


def attacked(
    losses: Callable[[Tensor, Tensor], Tensor], x: Tensor, wanted: Tensor, push: Push, parts: int
) -> Tensor:
    """The pictures (B, S, S, 3) changed against a network as it predicts now, float32.

    losses: of pictures and what they should be called. parts: that the batch is cut into. What
    isn't finite in here moves no pixel, and stops training where the changed are learned.
    """
    generator = seeded(int(np.random.SeedSequence(push.seeds).generate_state(1)[0]))
    change = (2 * torch.rand(x.shape, generator=generator) - 1) * push.levels
    found = []
    for part in torch.arange(len(x)).split(-(-len(x) // parts)):

        def loss(pixels: Tensor, part: Tensor = part) -> Tensor:
            return losses(pixels, wanted[part])

        squares, begin = x[part], change[part].to(x.device)
        found.append(pushed(loss, squares, begin, push.levels, push.steps))
    return torch.cat(found)


def reach_of(plan: Plan, done: int, steps: int) -> float:
    """Levels by which pixels are changed in the step after `done` of so many: they rise evenly."""
    rise = plan.adversarial_rise * steps
    return plan.adversarial * LEVELS * min(1.0, (done + 1) / rise if rise else 1.0)


def judging_attack(plan: Plan) -> Attack | None:
    """What validation is put to; None where training isn't adversarial."""
    if not plan.adversarial:
        return None
    return Attack(plan.adversarial, steps=JUDGING_STEPS, seed=plan.seed)


def attack_plan_message(plan: Plan, val: int) -> str:
    """What is done to pictures in training and in validation."""
    reach, steps = f"{plan.adversarial * LEVELS:.3g}/{LEVELS}", plan.adversarial_steps
    return (
        f"every value of a picture is changed by up to {reach}: in training by "
        f"{'a step' if steps == 1 else f'{steps} steps'} uphill, its reach rising from 0 over "
        f"{plan.adversarial_rise:.0%} of the way; by {JUDGING_STEPS} steps and all of it on "
        f"{min(val, ATTACKED):,} of {val:,} validation rows. Losses and accuracies that follow are "
        f"under attack"
    )


def worst(network: nn.Module, x: Tensor, labels: Tensor, attack: Attack, stream: int) -> Tensor:
    """The pictures (N, S, S, 3), uint8, changed so that another class leads by the most."""

    def loss(pixels: Tensor) -> Tensor:
        logits = logits_of(network, pixels, x.device)
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return -lead(logits, labels)

    return perturb(loss, x, attack, stream).to(x.dtype)
