"""Batch norm statistics of a network: those stored from its source task, and those of examples."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.inputs import Batch, length
from headstart.base.errors import DataError
from headstart.base.runtime import keep_memory

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SourceStats:
    """Statistics of the K input channels of a network's batch norms on its source task.

    names: of the norms, in the order of their channels. mean, var, eps: (K,); var includes eps.
    weight: (K,), the same total for every norm; sums to 1.
    """

    names: tuple[str, ...]
    mean: Floats
    var: Floats
    eps: Floats
    weight: Floats

    def distance(self, mean: Floats, second: Floats) -> float:
        """Return the mean distance of the channels from the source task, from 0 to 1.

        mean, second: (K,). The distance of a channel is the squared Hellinger distance of two
        normal distributions: 1 - their Bhattacharyya coefficient.
        """
        var = np.maximum(second - mean**2, 0) + self.eps
        both = var + self.var
        near = np.exp(-((mean - self.mean) ** 2) / (4 * both))
        overlap = np.sqrt(2 * np.sqrt(var * self.var) / both) * near
        return float(1 - self.weight @ overlap)


@dataclass(frozen=True, eq=False)
class ExampleStats:
    """Channel statistics and features of N examples.

    mean, second: (N, K), the mean of a channel's values and of their squares over one example.
    features: (N, D).
    """

    mean: Floats
    second: Floats
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)


def source_stats(module: "nn.Module") -> SourceStats | None:
    """Return the statistics of the deeper half of the trained batch norms; None without any."""
    known = list(_norms(module))
    if not known:
        return None
    names, norms = zip(*known[len(known) // 2 :], strict=True)
    counts = [norm.num_features for norm in norms]
    eps = np.repeat([norm.eps for norm in norms], counts)
    return SourceStats(
        names,
        mean=np.concatenate([norm.running_mean.double().cpu() for norm in norms]),
        var=np.concatenate([norm.running_var.double().cpu() for norm in norms]) + eps,
        eps=eps,
        weight=np.repeat([1 / count / len(norms) for count in counts], counts),
    )


def concatenated(parts: Sequence[ExampleStats]) -> ExampleStats:
    """Concatenate the statistics of batches; raises DataError for none."""
    if not parts:
        raise DataError("There must be an example to look at; none can be read.")
    columns = zip(*((part.mean, part.second, part.features) for part in parts), strict=True)
    return ExampleStats(*map(np.concatenate, columns))


@contextmanager
def measuring(
    backbone: Backbone, source: SourceStats | None, device: str
) -> Iterator[Callable[[Batch], ExampleStats]]:
    """Yield a function from a batch to the inputs' statistics of its norms and its features.

    The statistics are of the norms named in `source`.
    """
    import torch

    from headstart.backbones.entry import WholeNetwork, tensors

    keep_memory()  # every batch allocates and frees tensors of the same sizes
    module = backbone.module if device == "cpu" else copy.deepcopy(backbone.module).to(device)
    network = WholeNetwork(module, backbone.card.input).to(device).eval()
    names, read, rows = source.names if source else (), dict[str, Any](), 1

    def note(name: str) -> "Callable[[nn.Module, tuple[Tensor]], None]":
        return lambda _, given: read.update({name: _moments(given[0], given[0].shape[0] // rows)})

    @torch.inference_mode()
    def measure(batch: Batch) -> ExampleStats:
        nonlocal rows
        rows = length(batch)
        features = network(*(array.to(device) for array in tensors(batch))).cpu().numpy()
        none = torch.zeros(2, rows, 0, dtype=torch.float64)
        mean, second = torch.cat([none, *(read[name] for name in names)], dim=2).numpy()
        return ExampleStats(mean, second, features)

    hooks = [module.get_submodule(n).register_forward_pre_hook(note(n)) for n in names]
    try:
        yield measure
    finally:
        for hook in hooks:
            hook.remove()


def _norms(module: "nn.Module") -> Iterator[tuple[str, Any]]:
    """Yield the batch norms with trained statistics; untrained ones have mean 0, variance 1."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            assert part.running_var is not None  # PyTorch keeps both or none
            if part.running_mean.any() or (part.running_var != 1).any():
                yield name, part


def _moments(x: "Tensor", each: int) -> "Tensor":  # (N * each, C, …) -> (2, N, C)
    """Return the mean and the mean square of each channel in each example.

    each: rows of `x` per example, for networks that pass tokens or windows as rows.
    """
    import torch

    values = x.float().flatten(2) if x.dim() > 2 else x.float()[..., None]
    found = torch.stack([values.mean(dim=2), (values * values).mean(dim=2)])
    return found.unflatten(1, (-1, each)).mean(dim=2).cpu().double()
