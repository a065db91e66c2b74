"""Evaluate a network on rows that it is not trained on: loss and accuracy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.base.ranks import ALONE, Ranks
from headstart.training.arithmetic import Arithmetic, judging_arithmetic
from headstart.training.attack import Attack
from headstart.training.attacked import AT_ONCE, ATTACKED, worst
from headstart.training.feeds import Feed, judged_in
from headstart.training.guards import check_input, check_losses
from headstart.training.history import NOTHING as NOTHING
from headstart.training.history import Figures as Figures
from headstart.training.network import laid_out, logits_of

JUDGED = 64  # batch size without gradients


def judge(
    network: nn.Module,
    rows: Feed,
    attack: Attack | None = None,
    arithmetic: Arithmetic | None = None,
    ranks: Ranks = ALONE,
) -> Figures:
    """Return the mean loss, and the accuracy where the target defines one.

    attack: evaluate up to 256 evenly spaced rows of pixels (N, S, S, 3) instead, each changed to be
    misclassified if such a change is found within epsilon. arithmetic: the number format; None for
    the device's usual one. ranks: the processes, each of which judges a part. Raises Diverged,
    naming the row, for non-finite numbers.
    """
    network.eval()
    loss, right, n, target = 0.0, 0, len(rows.ids), rows.target
    weights = dict(network.named_parameters())
    device = next(iter(weights.values())).device
    judged, size = np.arange(n), JUDGED
    if attack is not None:
        evenly = np.linspace(0, n - 1, min(n, ATTACKED)).round()
        judged, size = np.unique(evenly.astype(np.int64)), AT_ONCE
    own = judged[ranks.part(len(judged))]
    for start, picked in enumerate(judged_in(own, size, rows.sizes)):
        ids, x = [rows.ids[row] for row in picked], rows.batch(picked, 0)
        check_input(x, ids)
        if attack is not None:
            labels = torch.from_numpy(rows.y[picked])
            assert isinstance(x, Tensor)  # pixels
            x = worst(network, x.to(device), labels.to(device), attack, size * start, arithmetic)
        with torch.inference_mode():
            logits = logits_of(network, laid_out(x), device, arithmetic).cpu()
            soft = target.soft(rows.y[picked])
            losses, hits = target.loss(logits, soft), target.right(logits, soft)
            check_losses(losses, ids, weights)
            loss += float(losses.double().sum())
            right += 0 if hits is None else int(hits.sum())
    loss, hit = ranks.add(loss, float(right))
    return loss / len(judged), hit / len(judged) if target.counts_right else None


def raw_outputs(network: nn.Module, rows: Feed, arithmetic: Arithmetic) -> NDArray[np.float64]:
    """Return the network's raw outputs for all rows, (N, K), N > 0.

    arithmetic: the number format of its training.
    """
    network.eval()
    device, n = next(network.parameters()).device, len(rows.ids)
    parts = [*judged_in(np.arange(n), JUDGED, rows.sizes)]
    own = judging_arithmetic(device, arithmetic)
    with torch.inference_mode():
        raw = [logits_of(network, laid_out(rows.batch(p, 0)), device, own).cpu() for p in parts]
    values: NDArray[np.float64] = torch.cat(raw).numpy().astype(np.float64)
    return values[np.argsort(np.concatenate(parts))]
