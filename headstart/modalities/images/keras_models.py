"""Convert a Keras model in memory to PyTorch, without its top, and check the result."""

import re
from typing import Any

import numpy as np
import torch

from headstart.base.errors import Mismatch, SpecError
from headstart.modalities.images import from_keras
from headstart.modalities.images.inputs import ImageInput
from headstart.modalities.images.keras_graph import Converted, convert, copied

TOLERANCE = 1e-4  # share of the largest feature by which the conversion may differ
_TOPS = ("linear", "softmax", "sigmoid")  # activations of a Dense that classifies


def opened_model(model: Any, size: int | None) -> tuple[Converted, ImageInput]:
    """Return the model in PyTorch, without its last Dense, and its input.

    Raises SpecError for a model that is no graph of layers or takes no square RGB pictures,
    Mismatch for a layer that can't be converted.
    """
    keras = from_keras.opened_keras()
    sized = _sized(keras, _functional(model), size)
    body = _without_top(keras, sized)
    own = convert(body, pool=len(body.output_shape) == 4)
    own.float()
    _check_equal(keras, body, own)
    return own, _input(model.name, int(sized.input_shape[1]))


def _functional(model: Any) -> Any:
    """Return the graph of layers; raises SpecError for a subclass with its own `call`."""
    graph = getattr(model, "_functional", model)
    if not hasattr(graph, "operations") or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise SpecError(
            f"A Keras model is wrapped if it is Sequential or functional, is built, and has one "
            f"input and one output; {model.name} is not so. Call it once if it is not built, or "
            f"give the functional model in it."
        )
    return graph


def _sized(keras: Any, model: Any, size: int | None) -> Any:
    """Return the model for (N, size, size, 3), cloned if its own input has no fixed size."""
    _, height, width, channels = (*model.input_shape, None, None, None)[:4]
    if channels != 3 or height != width or (height is None and size is None):
        raise SpecError(
            f"A backbone takes square RGB pictures of one size; the input of {model.name} is "
            f"{model.input_shape}. Give size= if it has none."
        )
    if height is not None and size not in (None, height):
        raise SpecError(f"{model.name} is built for {height} pixels; got size={size}.")
    if height is not None:
        return model
    made = keras.models.clone_model(model, input_tensors=keras.Input((size, size, 3)))
    for own, theirs in zip(made.weights, model.weights, strict=True):
        own.assign(theirs.value)
    return made


def _without_top(keras: Any, model: Any) -> Any:
    """Return the model without its last Dense, if only activations or dropout follow that layer."""
    output = model.outputs[0]
    while type(layer := _maker(output)).__name__ in ("Activation", "Softmax", "Dropout"):
        output = layer.input
    hidden = getattr(getattr(layer, "activation", None), "__name__", "") not in _TOPS
    is_top = type(layer).__name__ == "Dense" and not (hidden and output is model.outputs[0])
    return keras.Model(model.inputs[0], layer.input if is_top else model.outputs[0])


def _maker(tensor: Any) -> Any:
    return tensor._keras_history.operation


def _check_equal(keras: Any, model: Any, own: Converted) -> None:
    """Raise Mismatch unless the conversion gives the same features as Keras."""
    size = int(model.input_shape[1])
    pixels = np.random.default_rng(0).random((2, size, size, 3), dtype=np.float32)
    with keras.device("cpu"), torch.no_grad():
        theirs = copied(model(pixels, training=False))
        ours = own(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy()
    theirs = theirs.mean(axis=(1, 2)) if theirs.ndim == 4 else theirs
    off = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf
    if not off <= TOLERANCE * max(1.0, float(np.abs(theirs).max())):
        raise Mismatch(
            f"{model.name} must give the same features in PyTorch as in Keras, but they differ by "
            f"{off:.1e}. It has a layer that is not converted truly: please report it."
        )


def _input(name: str, size: int) -> ImageInput:
    """Return the input of an application by its name; other models take pixels of 0 to 255.

    >>> _input("mobilenetv2_1.00_160", 160).mean, _input("sequential", 32).std == (1 / 255,) * 3
    ((0.5, 0.5, 0.5), True)
    """
    plain = re.sub("[^a-z0-9]", "", name.lower())
    for known, application in from_keras.APPLICATIONS.items():
        if re.fullmatch(known.lower() + r"(\d{5,})?", plain):
            return application.input_at(size)
    return from_keras.Application("", mode="inside").input_at(size)
