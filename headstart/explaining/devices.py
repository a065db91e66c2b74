"""Networks on an accelerator, for gradients."""

import copy
from dataclasses import replace

from headstart.backbones.backbone import Backbone
from headstart.base.runtime import Device, Runtime
from headstart.features.engine_table import check_device


def device_of(asked: Device) -> Device:
    """Return the device of PyTorch that is asked for; "auto" is an accelerator if there is one.

    Raises SpecError for one that this machine lacks.
    """
    import torch  # noqa: F401  # an accelerator is looked for only where PyTorch is loaded

    runtime = Runtime(device=asked)
    check_device(runtime)
    return runtime.resolved().device


def on_device(backbone: Backbone, device: str) -> Backbone:
    """Return the backbone with its module on a device of PyTorch: on the CPU as it is, elsewhere a
    copy, so that the caller's own module stays where it was."""
    if device == "cpu":
        return backbone
    return replace(backbone, module=copy.deepcopy(backbone.module).to(device))
