"""Build a network that a file names without taking more memory than its weights warrant.

A card is a few lines of text that may name a network of any size; its weights are beside it, and
bound what an honest card can name.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from headstart.base.errors import Mismatch

BASE, TIMES = 16 * 2**20, 8  # bytes that any network may take, and for each byte of its weights
CALLS, EACH = 1000, 40  # tensors that are made for any network, and for each of its tensors
COUNTS = ("arange", "linspace")  # are given a number of elements, the others a shape
MAKES = ("empty", "zeros", "ones", "full", "rand", "new_", *COUNTS)


class _Room(TorchDispatchMode):
    """Counts the bytes of tensors as they are made, and refuses one that is too many."""

    def __init__(self, name: str, most: int, calls: int) -> None:
        super().__init__()
        self.name, self.left, self.calls = name, most, calls

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func.__name__.startswith(MAKES):
            self.calls -= 1
            self.left -= 4 * _elements(func.__name__, args)
            if self.left < 0 or self.calls < 0:
                raise Mismatch(
                    f"The card names {self.name[:80]!r}, a network far larger than the weights "
                    f"beside it: they are those of another one."
                )
        return func(*args, **(kwargs or {}))


def _elements(name: str, args: Sequence[Any]) -> int:
    if name.startswith(COUNTS):
        return max((n for n in args if type(n) is int), default=0)
    sizes = (size for size in args if isinstance(size, (list, tuple, torch.Size)))
    return max((math.prod(n for n in size if type(n) is int) for size in sizes), default=0)


@contextmanager
def room_for(name: str, size: int, tensors: int) -> Iterator[None]:
    """Raise Mismatch in the block if a network is built there that needs far more than its weights.

    name: of the network, for messages. size: bytes of the weights. tensors: their number.
    """
    with _Room(name, BASE + TIMES * size, CALLS + EACH * tensors):
        yield
