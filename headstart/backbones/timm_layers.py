"""Layers and functions of timm that are treated in a way of their own.

timm takes seconds to import, and a network has none of them where nothing has imported it.
"""

import sys
from collections.abc import Callable
from typing import Any

from torch import nn


def same_convolutions() -> tuple[type[nn.Conv2d], ...]:
    """Return timm's convolutions whose "SAME" padding is computed at run time."""
    if not _imported():
        return ()
    from timm.layers import Conv2dSame

    return (Conv2dSame,)


def opaque_modules() -> tuple[type[nn.Module], ...]:
    """Return the modules that torch.fx can't trace into."""
    if not _imported():
        return ()
    from timm.models._features_fx import get_notrace_modules

    return tuple(get_notrace_modules())


def opaque_functions() -> tuple[Callable[..., Any], ...]:
    """Return the functions that torch.fx can't trace into."""
    if not _imported():
        return ()
    from timm.models._features_fx import get_notrace_functions

    return tuple(get_notrace_functions())


def _imported() -> bool:
    return "timm.layers" in sys.modules
