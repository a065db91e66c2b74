"""Numbers that are not finite stop training at once, with their cause."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from headstart.base.errors import Diverged

LARGEST = 1e6  # no tensor of a network that learns has such a norm; a rate far too high gets there


def check_input(x: Tensor, ids: Sequence[str]) -> None:
    """Raises Diverged, naming the first example whose input is not finite."""
    if x.is_floating_point() and not (finite := torch.isfinite(x).flatten(1).all(1)).all():
        name = ids[int((~finite).nonzero()[0])]
        raise Diverged(
            f"Training stopped before it could spread: what the network is given of {name} is not "
            f"a finite number. Look at that file, and at what computed its features."
        )


def check_losses(losses: Tensor, ids: Sequence[str], weights: Mapping[str, Tensor]) -> None:
    """Raises Diverged for a loss (N,) that is not finite: by a weight's fault, or an example's."""
    finite = torch.isfinite(losses)
    if finite.all():
        return
    check_weights(weights)
    name = ids[int((~finite).nonzero()[0])]
    raise Diverged(
        f"Training stopped: the loss of {name} is not a finite number, though its input and all "
        f"weights are. Try a lower learning rate."
    )


def check_gradients(gradients: Mapping[str, Tensor], ids: Sequence[str]) -> None:
    """Raises Diverged, naming the first parameter whose gradient is not finite."""
    if (name := _first_beyond(gradients, float("inf"))) is not None:
        raise Diverged(
            f"Training stopped before the step was taken: the gradient of {name} is not a finite "
            f"number, in a batch that begins with {ids[0]}. Try a lower learning rate."
        )


def check_weights(weights: Mapping[str, Tensor]) -> None:
    """Raises Diverged, naming the first weight that is not finite, or far too large."""
    if (name := _first_beyond(weights, LARGEST)) is not None:
        raise Diverged(
            f"Training stopped: {name} is no longer a finite number of a usual size (it went "
            f"beyond {LARGEST:.0e}). The learning rate is too high: try a tenth of it."
        )


def _first_beyond(tensors: Mapping[str, Tensor], limit: float) -> str | None:
    """The first name whose tensor has a norm of NaN, or one that is not below the limit."""
    sizes = torch._foreach_norm(list(tensors.values()))  # no less than the largest number
    if bool((torch.stack(sizes) < limit).all()):  # NaN compares as not below
        return None
    return next(n for n, size in zip(tensors, sizes, strict=True) if not size < limit)


def parts_message(rows: int, parts: int) -> str:
    return (
        f"a batch of {rows} is too large for the accelerator: from here on it is run in {parts} "
        f"parts, whose gradients are added up"
    )
