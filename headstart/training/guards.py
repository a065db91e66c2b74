"""Checks that stop training on non-finite numbers and name the cause."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from headstart.base.errors import Diverged
from headstart.training.parts import Parts, TrainingBatch

LARGEST = 1e6  # no tensor of a healthy network has such a norm; a far too high rate reaches it


def check_input(x: TrainingBatch, ids: Sequence[str]) -> None:
    """Raise Diverged, naming the first example with non-finite input."""
    if isinstance(x, Parts):
        for array in x.arrays:
            check_input(array, [ids[i] for i in x.owner.tolist()])
        return
    if x.is_floating_point() and not (finite := torch.isfinite(x).flatten(1).all(1)).all():
        name = ids[int((~finite).nonzero()[0])]
        raise Diverged(
            f"Training stopped before it could spread: what the network is given of {name} is not "
            f"a finite number. Look at that file, and at what computed its features."
        )


def check_losses(losses: Tensor, ids: Sequence[str], weights: Mapping[str, Tensor]) -> None:
    """Raise Diverged for a non-finite loss (N,), naming a bad weight or the example."""
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
    """Raise Diverged, naming the first parameter with a non-finite gradient."""
    if (name := _first_beyond(gradients, float("inf"))) is not None:
        raise Diverged(
            f"Training stopped before the step was taken: the gradient of {name} is not a finite "
            f"number, in a batch that begins with {ids[0]}. Try a lower learning rate."
        )


def check_weights(weights: Mapping[str, Tensor]) -> None:
    """Raise Diverged, naming the first weight that is non-finite or far too large."""
    if (name := _first_beyond(weights, LARGEST)) is not None:
        raise Diverged(
            f"Training stopped: {name} is no longer a finite number of a usual size (it went "
            f"beyond {LARGEST:.0e}). The learning rate is too high: try a tenth of it."
        )


def _first_beyond(tensors: Mapping[str, Tensor], limit: float) -> str | None:
    """Return the first name whose tensor has norm NaN or not below `limit`; otherwise None."""
    sizes = torch._foreach_norm(list(tensors.values()))  # at least the largest absolute value
    if bool((torch.stack(sizes) < limit).all()):  # false for NaN
        return None
    return next(n for n, size in zip(tensors, sizes, strict=True) if not size < limit)


def parts_message(rows: int, parts: int) -> str:
    return (
        f"a batch of {rows} is too large for the accelerator: from here on it is run in {parts} "
        f"parts, whose gradients are added up"
    )
