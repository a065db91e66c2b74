"""Adversarial examples by FGSM and PGD, in whole pixel levels.

All computations are in the pixels' scale, before normalisation, and the results are representable
in an 8-bit file: `perturb` evaluates the loss at whole levels, so saving loses nothing. Gradients
ignore the rounding (straight-through, Bengio et al. 2013).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base.runtime import seeded
from headstart.training.arithmetic import Arithmetic
from headstart.training.attack import LEVELS as LEVELS
from headstart.training.attack import Attack as Attack
from headstart.training.network import logits_of
from headstart.training.plan import Plan

REACH = 2.5  # sum of all step sizes, in epsilons: enough to cross the allowed region
FAST = 1.25  # step size of single-step training from a random start, in epsilons
ATTACKED = 256  # most validation rows attacked per epoch
AT_ONCE = 16  # attacked rows per batch: gradients take far more memory than inference
JUDGING_STEPS = 4  # PGD steps in validation: single-step accuracy can overstate robustness
HALVINGS = 20  # bisection steps for the rounding threshold of an L2 attack


def perturb(
    loss: Callable[[Tensor], Tensor], pixels: Tensor, attack: Attack, stream: int = 0
) -> Tensor:
    """Return each image with the change within epsilon that had the highest loss.

    pixels: (N, …) of whole levels, 0 to 255, any dtype. loss: float32 images -> (N,) losses.
    stream: selects another random start for the same seed. Returns float32 whole levels.
    """
    x = pixels.float()
    best, best_loss = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    change = _start(x, attack, stream)
    for step in range(attack.steps + 1):
        change.requires_grad_(True)
        changed = x + whole(change, x, attack) + (change - change.detach())  # exactly whole
        with torch.enable_grad():
            losses = loss(changed)
        better = losses.detach() > best_loss
        best[better], best_loss[better] = changed.detach()[better], losses.detach()[better]
        if step < attack.steps:
            (slope,) = torch.autograd.grad(losses.sum(), change)
            change = _stepped(change.detach(), slope, x, attack)
    return best


def pushed(
    loss: Callable[[Tensor], Tensor], pixels: Tensor, change: Tensor, levels: float, steps: int
) -> Tensor:
    """Return training images moved uphill in the loss from the start `change`.

    pixels, change: (N, …). levels: the largest change of a value, in steps of 1/255. A single step
    has size 1.25 levels (Wong et al. 2020); several follow `perturb` (Madry et al. 2018). Returns
    float32, not rounded, so that `levels` below 1 has an effect.
    """
    x, size = pixels.float(), levels * (FAST if steps == 1 else REACH / steps)
    for _ in range(steps):
        change = change.detach().requires_grad_(True)
        with torch.enable_grad():
            losses = loss((x + change).clamp(0, LEVELS))
        (slope,) = torch.autograd.grad(losses.sum(), change)
        change = (change.detach() + size * slope.sign()).clamp(-levels, levels)
    return (x + change).clamp(0, LEVELS)


def lead(logits: Tensor, labels: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
    """Return the margin of each row's class over the best other class; below 0, the row is
    misclassified. Unlike a log loss, the margin does not saturate for confident networks."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.amax(dim=1)


def whole(change: Tensor, x: Tensor, attack: Attack) -> Tensor:
    """Return the change in whole levels, within epsilon and the pixel range."""
    change = change.detach()
    if attack.norm == "linf":
        return change.round().clamp(-attack.levels, attack.levels).clamp(-x, LEVELS - x)
    rounded = _whole_l2(change.clamp(-x, LEVELS - x), attack.levels)
    return rounded.clamp(-x, LEVELS - x)  # rounding up can leave the pixel range


def _whole_l2(change: Tensor, length: float) -> Tensor:
    """Round up the values whose fraction reaches a threshold per image: the lowest threshold at
    which the norm of the change is at most `length`. Rounding to nearest would lose a thinly
    spread change."""
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
    """Return a random start within epsilon; zeros for a single step."""
    if attack.steps == 1:
        return torch.zeros_like(x)
    generator = seeded(attack.seed * 1_000_003 + stream)
    drawn = torch.rand(x.shape, generator=generator).to(x.device)
    if attack.norm == "linf":
        return (2 * drawn - 1) * attack.levels
    return _of_length(2 * drawn - 1, attack.levels * drawn.flatten(1)[:, 0])


def _stepped(change: Tensor, slope: Tensor, x: Tensor, attack: Attack) -> Tensor:
    """Take one gradient step and project back into reach."""
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
    """Reshape (N,) to (N, 1, …) to broadcast with `like` (N, …)."""
    return numbers.view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class Push:
    """The attack on the images of one training step.

    levels: the largest change of a value, in steps of 1/255. seeds: for the random start.
    """

    levels: float
    steps: int
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, plan: Plan, done: int, steps: int, seeds: tuple[int, ...]) -> "Push":
        """Return the attack after `done` of `steps` steps; its reach rises linearly."""
        rise = plan.adversarial_rise * steps
        levels = plan.adversarial * LEVELS * min(1.0, (done + 1) / rise if rise else 1.0)
        return cls(levels, plan.adversarial_steps, seeds)


def attacked(
    losses: Callable[[Tensor, Tensor], Tensor], x: Tensor, wanted: Tensor, push: Push, parts: int
) -> Tensor:
    """Return the images (B, S, S, 3), float32, attacked against the network in inference mode.

    losses: (images, soft labels) -> losses. parts: number of parts the batch is split into. A
    non-finite gradient moves no pixel here; training on the images then raises Diverged.
    """
    generator = seeded(int(np.random.SeedSequence(push.seeds).generate_state(1)[0]))
    change = (2 * torch.rand(x.shape, generator=generator) - 1) * push.levels
    size = -(-len(x) // parts)

    def attacked_part(pixels: Tensor, soft: Tensor, start: Tensor) -> Tensor:
        start = start.to(x.device)
        return pushed(lambda moved: losses(moved, soft), pixels, start, push.levels, push.steps)

    split = zip(x.split(size), wanted.split(size), change.split(size), strict=True)
    return torch.cat([attacked_part(*part) for part in split])


def judging_attack(plan: Plan) -> Attack | None:
    """Return the attack used in validation; None unless training is adversarial."""
    if not plan.adversarial:
        return None
    return Attack(plan.adversarial, steps=JUDGING_STEPS, seed=plan.seed)


def attack_plan_message(plan: Plan, val: int) -> str:
    reach, steps = f"{plan.adversarial * LEVELS:.3g}/{LEVELS}", plan.adversarial_steps
    return (
        f"every value of a picture is changed by up to {reach}: in training by "
        f"{'a step' if steps == 1 else f'{steps} steps'} uphill, its reach rising from 0 over "
        f"{plan.adversarial_rise:.0%} of the way; by {JUDGING_STEPS} steps and all of it on "
        f"{min(val, ATTACKED):,} of {val:,} validation rows. Losses and accuracies that follow are "
        f"under attack"
    )


def worst(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    attack: Attack,
    stream: int,
    arithmetic: Arithmetic | None = None,
) -> Tensor:
    """Return the uint8 images (N, S, S, 3) changed to maximise the lead of another class.

    arithmetic: the number format of the network; None for the device's usual one.
    """

    def loss(pixels: Tensor) -> Tensor:
        logits = logits_of(network, pixels, x.device, arithmetic)
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return -lead(logits, labels)

    return perturb(loss, x, attack, stream).to(x.dtype)
