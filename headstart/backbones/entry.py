"""A network that takes the arrays of a batch, as an engine or an exported graph is given them."""

from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.inputs import Batch, Input


class WholeNetwork(nn.Module):
    """A network behind the first layer of its input."""

    def __init__(self, network: nn.Module, input: Input[Any]) -> None:
        super().__init__()
        self.network, self.first = network, input.first_layer()

    def forward(self, *arrays: Tensor) -> Any:  # -> (N, D), and the cut if any
        # `first` is not called as a module, since the exporter would give its steps other names
        given = self.first.forward(*arrays)
        return self.network(*given) if isinstance(given, tuple) else self.network(given)


def tensors(batch: Batch) -> tuple[Tensor, ...]:
    """The arrays of a batch in their order, as a `WholeNetwork` takes them."""
    return tuple(torch.from_numpy(values) for values in batch.values())


def blank_for_network(input: Input[Any], n: int) -> Any:
    """What a backbone's module takes of a blank batch: one tensor, as a rule."""
    return input.first_layer()(*tensors(input.blank(n)))
