"""A CPU that stands for an accelerator, to find tensors that are on the wrong side.

What is moved to "cuda" is marked and stays where it is. An operation on marked and unmarked tensors
and `numpy()` of a marked one fail, as they would on a machine with such a device.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda")
OF_BOTH = {"_has_compatible_shallow_copy_type"}  # operations on tensors of two devices


class FakeCuda(TorchFunctionMode):
    """moved: how many tensors were moved to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return DEVICE if marked(args[0]) else func(*args)
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            func(*args)
            return mark(args[0], marked(args[1]))
        if func is Tensor.cpu:
            return args[0].clone()
        if func is Tensor.numpy and marked(args[0]):
            raise TypeError("can't convert a tensor on cuda to numpy")
        if func is torch.autograd.grad:
            found = func(*args, **kwargs)
            wanted = args[1] if isinstance(args[1], list | tuple) else (args[1],)
            return tuple(mark(f, marked(w)) for f, w in zip(found, wanted, strict=True))
        if func is Tensor.to:
            return self._to(args[0], args[1:], kwargs)
        there = _wanted(kwargs.pop("device", None)) or _side(func, (args, kwargs))
        return tree_map(lambda value: mark(value, there), func(*args, **kwargs))

    def _to(self, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        asked = [a for a in (*args, kwargs.pop("device", None)) if _is_device(a)]
        others = [a for a in args if isinstance(a, torch.dtype)]
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        to: Any = tensor.to
        result: Tensor = to(*others, **kwargs) if others or kwargs else tensor
        if not asked:
            return mark(result, marked(tensor))
        there = _wanted(asked[0])
        if there != marked(tensor):
            self.moved += there
            return mark(result.clone(), there)
        return mark(result, there)


def marked(value: Any) -> bool:
    return bool(getattr(value, "on_fake_device", False))


def mark(value: Any, there: bool) -> Any:
    if isinstance(value, Tensor):
        value.on_fake_device = there  # type: ignore[attr-defined]
    return value


def _is_device(value: Any) -> bool:
    return isinstance(value, str | torch.device)


def _wanted(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _side(func: Any, given: Any) -> bool:
    """Return whether the tensors of an operation are on the device; raises RuntimeError if some
    are and others, of more than one value, are not."""
    tensors = [value for value in tree_flatten(given)[0] if isinstance(value, Tensor)]
    sides = {marked(t) for t in tensors if t.dim()}
    name = getattr(func, "__name__", func)
    if len(sides) > 1 and name not in OF_BOTH:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    return any(marked(t) for t in tensors)
