"""Optimisers, parameter groups and learning-rate schedules."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import nn

from headstart.heads.head import Optimizer
from headstart.training.network import Network
from headstart.training.plan import Plan

KERAS_EPSILON = 1e-7  # Keras' epsilon, so that Keras recipes give the same results
OPTIMIZERS: dict[Optimizer, tuple[Callable[..., torch.optim.Optimizer], dict[str, float]]] = {
    "adam": (torch.optim.Adam, {"eps": KERAS_EPSILON}),
    "adamw": (torch.optim.AdamW, {"eps": KERAS_EPSILON}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9, "eps": KERAS_EPSILON}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}


def make_optimizer(
    network: Network, plan: Plan, depth: Mapping[str, int] | None = None
) -> torch.optim.Optimizer:
    """Return an optimiser of all trainable parameters; norms and biases have no weight decay.

    depth: number of blocks between a tail parameter and the head; `layer_decay` scales the learning
    rate once per block (Howard and Ruder 2018; Clark et al. 2020).
    """
    groups = defaultdict[tuple[int, bool], list[nn.Parameter]](list)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            below = (depth or {}).get(name.removeprefix("tail."), 0)
            groups[below, parameter.ndim > 1].append(parameter)
    settings = [
        {
            "params": parameters,
            "scale": plan.layer_decay**below,
            "weight_decay": plan.weight_decay if decays else 0.0,
        }
        for (below, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    kind, more = OPTIMIZERS[plan.optimizer]
    return kind(settings, lr=plan.lr, foreach=True, **more)


def set_rates(optimizer: torch.optim.Optimizer, plan: Plan, step: int, steps: int) -> float:
    """Set each group's learning rate for this step, and return the head's."""
    lr = plan.lr * rate_factor(plan, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    return lr


def rate_factor(plan: Plan, step: int, steps: int) -> float:
    """Return the share of the full rate: linear warm-up from 0, then 1 or half a cosine to 0.

    Loshchilov and Hutter 2017, eq. 5, without restarts.
    """
    rising = round(plan.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if plan.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
