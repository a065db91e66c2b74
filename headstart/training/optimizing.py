"""Who moves the weights, and how fast each of them moves."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn

from headstart.training.network import Network
from headstart.training.plan import Plan

KERAS_EPSILON = 1e-7  # what Keras adds to denominators, so that its recipes are the same here
MOMENTUM = 0.9


def make_optimizer(
    network: Network, plan: Plan, depth: Mapping[str, int] | None = None
) -> torch.optim.Optimizer:
    """An optimiser over everything that learns; weight decay leaves norms and biases alone.

    depth: how many blocks below the head a parameter of the tail lies; with `layer_decay` each of
    them learns that much slower than the one above (Howard and Ruder 2018; Clark et al. 2020).
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
    return _optimizer(plan, settings)


def _optimizer(plan: Plan, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
    if plan.optimizer == "adam":
        return torch.optim.Adam(groups, lr=plan.lr, eps=KERAS_EPSILON, foreach=True)
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=plan.lr, eps=KERAS_EPSILON, foreach=True)
    if plan.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=plan.lr, alpha=0.9, eps=KERAS_EPSILON, foreach=True)
    return torch.optim.SGD(groups, lr=plan.lr, momentum=MOMENTUM, foreach=True)


def set_rates(optimizer: torch.optim.Optimizer, plan: Plan, step: int, steps: int) -> float:
    """Give each group its rate for this step, and return that of the head."""
    lr = plan.lr * rate_factor(plan, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    return lr


def rate_factor(plan: Plan, step: int, steps: int) -> float:
    """Of the full rate: a line up from 0 in the warm-up, then 1, or half a cosine down to 0.

    Loshchilov and Hutter 2017, eq. 5, without restarts.
    """
    rising = round(plan.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if plan.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
