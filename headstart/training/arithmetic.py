"""The number format in which a training step computes, operator by operator.

Weights, their gradients and the optimiser's state are float32 in every format; so is the head on a
CPU, whose outputs then are not rounded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headstart.base.runtime import ComputePrecision, bfloat16_processor

# bfloat16-dense: dense and pointwise convolutions, linear layers and attention in bfloat16, grouped
# (so depthwise) convolutions in float32. With AMX the former are 3 to 7 times as fast as in
# float32, the latter 4 to 14 times slower (PyTorch 2.14, oneDNN).
Arithmetic = Literal["float32", "bfloat16-dense", "bfloat16"]
ARITHMETICS: tuple[Arithmetic, ...] = get_args(Arithmetic)
CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
PAYS = 60  # steps of a phase, from which on trying other formats for a few steps can pay


@contextmanager
def computing(arithmetic: Arithmetic, device: torch.device) -> Iterator[None]:
    """Compute the operators of the block in this format; for forward passes."""
    with torch.autocast(device.type, torch.bfloat16, enabled=arithmetic != "float32"):
        with GroupedInFloat32() if arithmetic == "bfloat16-dense" else nullcontext():
            yield


class GroupedInFloat32(TorchFunctionMode):
    """Compute grouped convolutions in float32 within autocast; `met` says whether there was one.

    Their results get the dtype of their inputs, so that what follows them stays in bfloat16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in CONVOLUTIONS or len(args) < 2 or not _grouped(args[0], args[1]):
            return func(*args, **(kwargs or {}))
        self.met, x = True, args[0]
        with torch.autocast(x.device.type, enabled=False):
            rest: list[Any] = [t.float() if isinstance(t, Tensor) else t for t in args[1:]]
            return func(x.float(), *rest, **(kwargs or {})).to(x.dtype)


def _grouped(x: Tensor, weight: Tensor) -> bool:
    """Return whether each filter sees a part of the channels; x: (N, C, …) or (C, …)."""
    return x.shape[-weight.ndim + 1] != weight.shape[1]


def has_grouped(network: nn.Module, x: Any) -> bool:
    """Return whether the network has grouped convolutions; x: a small batch for it."""
    network.eval()
    with torch.inference_mode(), GroupedInFloat32() as mode:
        network(x)
    return mode.met


def usual_arithmetic(device: torch.device) -> Arithmetic:
    return "float32" if device.type == "cpu" else "bfloat16"


def judging_arithmetic(device: torch.device, arithmetic: Arithmetic) -> Arithmetic:
    """Return the format in which a network is evaluated: that of its steps on an accelerator, and
    the usual one on a CPU."""
    return usual_arithmetic(device) if device.type == "cpu" else arithmetic


def settled(
    asked: ComputePrecision, device: torch.device, steps: int, *, compiled: bool
) -> Arithmetic | None:
    """Return the format of a phase of so many steps; None if a few steps should decide.

    Without bfloat16 instructions, and in a compiled network, which would be compiled again for
    every format, float32 is taken without a trial.
    """
    if device.type != "cpu":
        return "float32" if asked == "float32" else "bfloat16"
    if asked == "bfloat16":
        return "bfloat16" if compiled else "bfloat16-dense"
    if asked == "float32" or compiled or steps < PAYS or not bfloat16_processor():
        return "float32"
    return None
