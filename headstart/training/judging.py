"""How good a network is on rows that it does not learn from: its loss and accuracy."""

import numpy as np
import torch
from torch import nn

from headstart.training.attack import Attack
from headstart.training.attacked import AT_ONCE, ATTACKED, worst
from headstart.training.feeds import Feed, Rows
from headstart.training.guards import check_input, check_losses
from headstart.training.network import laid_out, logits_of

JUDGED = 64  # rows of a batch that is only looked at
Figures = tuple[float | None, float | None]  # loss and accuracy
NOTHING: Figures = (None, None)


def judge(network: nn.Module, rows: Feed, attack: Attack | None = None) -> Figures:
    """Mean loss, and the share of right answers where the target counts them.

    attack: of pixels (N, S, S, 3) instead, up to 256 rows of them, evenly spread, each changed so
    that another class is called if one within reach is found.
    Raises Diverged, naming the row, for what is not finite.
    """
    network.eval()
    loss, right, n, target = 0.0, 0, len(rows.ids), rows.target
    weights = dict(network.named_parameters())
    device = next(iter(weights.values())).device
    judged, size = (np.arange(n), JUDGED) if attack is None else (_some(n, ATTACKED), AT_ONCE)
    for start in range(0, len(judged), size):
        picked = judged[start : start + size]
        ids, x = [rows.ids[row] for row in picked], rows.batch(picked, 0)
        check_input(x, ids)
        if attack is not None:
            labels = torch.from_numpy(rows.y[picked])
            x = worst(network, x.to(device), labels.to(device), attack, start)
        with torch.inference_mode():
            logits = logits_of(network, laid_out(x), device).cpu()
            soft = target.soft(rows.y[picked])
            losses, hits = target.loss(logits, soft), target.right(logits, soft)
            check_losses(losses, ids, weights)
            loss += float(losses.double().sum())
            right += 0 if hits is None else int(hits.sum())
    return loss / len(judged), right / len(judged) if target.counts_right else None


def _some(n: int, most: int) -> Rows:
    """All of n rows, or so many of them, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
