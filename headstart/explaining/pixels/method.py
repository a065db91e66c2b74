"""The methods of attribution. No PyTorch, for the flags of commands."""

from typing import Literal, get_args

Method = Literal["best", "places", "hiding", "gradcam", "pixels"]
METHODS = get_args(Method)
PIXELS: Literal["pixels"] = "pixels"
