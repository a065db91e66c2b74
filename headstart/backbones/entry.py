"""A network whose arguments are the arrays of a batch, for engines and for the ONNX export."""

from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.inputs import Batch, Input, given


class WholeNetwork(nn.Module):
    """The first layer of an input, followed by the network."""

    def __init__(self, network: nn.Module, input: Input[Any]) -> None:
        super().__init__()
        self.network, self.first = network, input.first_layer()

    def forward(self, *arrays: Tensor) -> Any:  # -> (N, D), and the activations at the cut if any
        # `first` is not called as a module: the exporter would rename its operations
        given = self.first.forward(*arrays)
        return self.network(*given) if isinstance(given, tuple) else self.network(given)


def tensors(batch: Batch) -> tuple[Tensor, ...]:
    """Return the arrays of a batch as tensors, in order, as arguments of a `WholeNetwork`."""
    # a view of an image that Pillow resized is read-only, which PyTorch warns of
    arrays = (a if a.flags.writeable else a.copy() for a in given(batch).values())
    return tuple(map(torch.from_numpy, arrays))


def blank_for_network(input: Input[Any], n: int) -> Any:
    """Return a blank batch as the backbone's module takes it: usually one tensor."""
    return input.first_layer()(*tensors(input.blank(n)))
