"""Choose the number format of a training phase by timing its first steps in each."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import nn

from headstart.base.errors import Diverged
from headstart.training.arithmetic import Arithmetic, has_grouped
from headstart.training.feeds import RowNumbers
from headstart.training.network import Network
from headstart.training.parts import TrainingBatch

STEPS = 3  # of a trial; the first prepares operators and is not timed
SECONDS = 2.0  # of all trials together, or SHARE of a longer phase: slow steps are tried less often
SHARE = 0.02
LEAST_SECONDS = 5.0  # of the phase in float32; a shorter one is not worth a choice
GAIN = 1.1  # how many times as fast a reduced precision must be
LIMIT = 0.01  # largest difference of the loss, as a share of that in float32
SMALL_LOSS = 0.1  # below it, a difference is a share of this


@dataclass(frozen=True)
class FormatTrial:
    """The first steps of training in one format. seconds: of the fastest. loss: mean of rows."""

    seconds: float
    loss: float


def fastest(
    attempt: Callable[[Arithmetic, int], FormatTrial], all_steps: int, *, grouped: bool
) -> tuple[Arithmetic, str]:
    """Return the fastest format whose losses agree with float32's, and why; "" if nothing differs.

    attempt: takes the first steps of the phase, from the same weights each time. all_steps: of the
    phase. grouped: whether the network has grouped convolutions. A format that the network can't be
    computed in is left out.
    """
    usual = attempt("float32", 2)
    whole = usual.seconds * all_steps
    if whole < LEAST_SECONDS:
        return "float32", ""
    count = STEPS if 3 * STEPS * usual.seconds <= max(SECONDS, SHARE * whole) else 2
    usual = attempt("float32", count)
    tried = dict[Arithmetic, FormatTrial]()
    formats: tuple[Arithmetic, ...] = ("bfloat16-dense", "bfloat16")
    for arithmetic in formats if grouped else formats[1:]:
        with suppress(RuntimeError, Diverged):
            tried[arithmetic] = attempt(arithmetic, count)
    if not tried:
        return "float32", "float32: the network can't be computed in bfloat16"
    best = min(tried, key=lambda name: tried[name].seconds)
    return _decided(best, tried[best], usual)


def _decided(
    arithmetic: Arithmetic, reduced: FormatTrial, usual: FormatTrial
) -> tuple[Arithmetic, str]:
    gain = usual.seconds / reduced.seconds
    if gain < GAIN:
        return "float32", f"float32: a step in bfloat16 is {gain:.2f} times as fast"
    change = abs(reduced.loss - usual.loss) / max(abs(usual.loss), SMALL_LOSS)
    if not change <= LIMIT:
        return "float32", (
            f"float32: in bfloat16 the losses of the first steps differ by {change:.1%}, more than "
            f"{LIMIT:.0%}"
        )
    apart = ", depthwise convolutions in float32" if arithmetic == "bfloat16-dense" else ""
    return arithmetic, (
        f"bfloat16{apart}: a step takes {reduced.seconds:.3f} s instead "
        f"of {usual.seconds:.3f} s, {gain:.2f} times as fast; the losses of the first steps differ "
        f"by {change:.2%}"
    )


@dataclass(frozen=True, eq=False)
class FirstSteps:
    """The first steps of a phase, to be taken in several number formats.

    begin: rows and network inputs of each step. start: from a format to a function that takes one
    step in this format and returns the sum of its losses.
    """

    network: Network
    begin: Sequence[tuple[RowNumbers, TrainingBatch]]
    start: Callable[[Arithmetic], Callable[[RowNumbers, TrainingBatch], float]]

    @property
    def grouped(self) -> bool:
        return has_grouped(self.network, self.begin[0][1][torch.arange(1)])

    def attempt(self, arithmetic: Arithmetic, count: int) -> FormatTrial:
        """Take the first `count` steps in a number format, and give the weights back."""
        seconds, loss, rows = list[float](), 0.0, 0
        with restored(self.network):
            self.network.train()
            step = self.start(arithmetic)
            for picked, x in self.begin[:count]:
                began = time.perf_counter()
                loss += step(picked, x)
                seconds.append(time.perf_counter() - began)
                rows += len(picked)
        return FormatTrial(min(seconds[1:] or seconds), loss / rows)


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Give a network the weights and buffers after the block that it had before, to the bit."""
    learning = [p for p in network.parameters() if p.requires_grad]
    own = [tensor.data for tensor in (*learning, *network.buffers())]
    before = [tensor.clone() for tensor in own]
    try:
        yield
    finally:
        for tensor, value in zip(own, before, strict=True):
            tensor.copy_(value)
        for parameter in learning:
            parameter.grad = None
