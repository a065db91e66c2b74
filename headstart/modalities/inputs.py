"""The built-in kinds of input, a line each: importing this makes them known to saved cards."""

from headstart.backbones.inputs import INPUTS

INPUTS.add("image", "headstart.modalities.images.inputs:ImageInput")
