"""Register the built-in kinds of input, one line each, so that saved cards can be read."""

from headstart.backbones.inputs import INPUTS

INPUTS.add("image", "headstart.modalities.images.inputs:ImageInput")
INPUTS.add("text", "headstart.modalities.text.inputs:TextInput")
INPUTS.add("letterboxed image", "headstart.modalities.images.letterbox:LetterboxInput")
