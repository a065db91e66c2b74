"""The networks of keras.applications, converted to PyTorch: `keras:MobileNetV2@160`, …"""

import math
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any, Literal, cast

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights
from headstart.base.errors import Mismatch, MissingPackage, SourceError, SpecError, UnknownName
from headstart.modalities.images.inputs import ImageInput

if TYPE_CHECKING:
    from torch import nn

weight_files = (".safetensors", ".h5")
COMPRESSED = 4  # times that the arrays of a file may be larger than the file
LICENCE = "Apache-2.0 (Keras; weights as their authors state)"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Mode = Literal["tf", "torch", "caffe", "inside"]
_NORMALISED: dict[Mode, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "tf": ((0.5,) * 3, (0.5,) * 3),
    "torch": (IMAGENET_MEAN, IMAGENET_STD),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
    "inside": ((0.0,) * 3, (1 / 255,) * 3),  # the network normalises
}


@dataclass(frozen=True)
class Application:
    """A network of keras.applications.

    file: of its ImageNet weights without the top; {size} is one of `trained`. size, least: side of
    the usual and of the smallest input, pixels. mode: of its `preprocess_input`. trained: sizes
    with their own weights; other sizes use those of the last.
    """

    file: str
    size: int = 224
    mode: Mode = "tf"
    least: int = 32
    trained: tuple[int, ...] = ()

    def weights_file(self, size: int = 0) -> str:
        if not self.trained:
            return self.file
        return self.file.format(size=size if size in self.trained else self.trained[-1])

    def input_at(self, size: int) -> ImageInput:
        """Return the input that matches the application's `preprocess_input`."""
        mean, std = _NORMALISED[self.mode]
        return ImageInput(
            size, size, mean, std, interpolation="bilinear", fit="squash", bgr=self.mode == "caffe"
        )


def _family(
    name: str, file: str, kinds: str, mode: Mode = "tf", sizes: Iterable[int] = repeat(224)
) -> dict[str, Application]:
    """Return applications by name; {} in `name` and `file` stands for one of `kinds`."""
    return {
        name.format(kind): Application(file.format(kind.lower()), size, mode)
        for kind, size in zip(kinds.split(), sizes, strict=False)
    }


_KERNELS = "weights_tf_dim_ordering_tf_kernels"
_SQUARES = (128, 160, 192, 224)
_B = (224, 240, 260, 300, 380, 456, 528, 600)  # usual inputs of EfficientNet B0 to B7
_V2 = (224, 240, 260, 300, 384, 480, 480)

APPLICATIONS: dict[str, Application] = {
    **_family("ConvNeXt{}", "convnext_{}_notop.h5", "Tiny Small Base Large XLarge", "inside"),
    **_family("DenseNet{}", f"densenet{{}}_{_KERNELS}_notop.h5", "121 169 201", "torch"),
    **_family("EfficientNetB{}", "efficientnetb{}_notop.h5", "0 1 2 3 4 5 6 7", "inside", _B),
    **_family("EfficientNetV2{}", "efficientnetv2-{}_notop.h5", "B0 B1 B2 B3 S M L", "inside", _V2),
    "InceptionResNetV2": Application(f"inception_resnet_v2_{_KERNELS}_notop.h5", 299, least=75),
    "InceptionV3": Application(f"inception_v3_{_KERNELS}_notop.h5", 299, least=75),
    "MobileNet": Application("mobilenet_1_0_{size}_tf_no_top.h5", trained=_SQUARES),
    "MobileNetV2": Application(
        f"mobilenet_v2_{_KERNELS}_1.0_{{size}}_no_top.h5", trained=(96, *_SQUARES)
    ),
    **_family(
        "MobileNetV3{}",
        "weights_mobilenet_v3_{}_224_1.0_float_no_top_v2.h5",
        "Small Large",
        "inside",
    ),
    "NASNetLarge": Application("nasnet_large_no_top.h5", 331),
    "NASNetMobile": Application("nasnet_mobile_no_top.h5"),
    **_family("ResNet{}", f"resnet{{}}_{_KERNELS}_notop.h5", "50 101 152", "caffe"),
    **_family("ResNet{}V2", f"resnet{{}}v2_{_KERNELS}_notop.h5", "50 101 152"),
    **_family("VGG{}", f"vgg{{}}_{_KERNELS}_notop.h5", "16 19", "caffe"),
    "Xception": Application(f"xception_{_KERNELS}_notop.h5", 299, least=71),
}


def load(id: str, weights: Weights) -> Backbone:
    """Load `keras:NAME` or `keras:NAME@SIZE`.

    weights: Keras' own, random, or a file: the network without its top as Keras writes it (.h5,
    .weights.h5), or .safetensors with the parameter names of the converted module.
    """
    name, size = parsed(id)
    application = APPLICATIONS[name]
    module, dim = _converted(name, size, weights)
    card = Card(
        name=f"keras:{id}",
        architecture=f"keras:{name}@{size}",
        dim=dim,
        input=application.input_at(size),
        origin=weights.origin,
        licence=LICENCE,
        source_task="" if weights.file or weights.random else "imagenet-1k",
    )
    return Backbone(card, module, blocks_of(module))


def parsed(id: str) -> tuple[str, int]:
    """Return the application's name and its input side, pixels; raises UnknownName, SpecError."""
    name, at, size = id.partition("@")
    if name not in APPLICATIONS:
        raise UnknownName("Keras application", name, APPLICATIONS)
    application = APPLICATIONS[name]
    if not at:
        return name, application.size
    if not size.isdecimal() or int(size) < application.least:
        raise SpecError(
            f"keras:{name}@SIZE takes the side of its input, {application.least} pixels or more; "
            f"got {size!r}."
        )
    return name, int(size)


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """Return the network that a card describes, with random weights, and its blocks."""
    module, _ = _converted(*parsed(card.id), Weights("random"))
    return module, blocks_of(module)


def listing() -> Iterator[Listing]:
    """Yield the networks of keras.applications."""
    for id, application in APPLICATIONS.items():
        where = f"Keras' cache or server, or --weights {application.weights_file()}"
        yield Listing(f"keras:{id}", str(application.size), licence=LICENCE, where=where)


def _converted(name: str, size: int, weights: Weights) -> "tuple[nn.Module, int]":
    """Return the converted module and the number of its features."""
    keras = opened_keras()
    from headstart.modalities.images.keras_graph import convert

    with keras.device("cpu"), redirect_stdout(sys.stderr):  # Keras prints a download's progress
        if weights.random or weights.file:
            model = _model(keras, name, size)
        else:
            model = _pretrained(keras, name, size)
        if weights.of_keras:
            _read(model, weights, name)
    module = convert(model)
    if weights.random:
        _randomise(module)
    elif not weights.of_keras:
        weights.into(module)
    return module, int(model.output_shape[-1])


def opened_keras() -> Any:
    """Import Keras, on PyTorch unless it already runs on another backend."""
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import h5py  # noqa: F401  # Keras reads no weights without it
        import keras
    except ImportError as error:
        raise MissingPackage(str(error.name), purpose="keras:", extra="keras") from error
    if keras.config.image_data_format() != "channels_last":
        raise SpecError(
            f"Keras' networks are converted with channels last; ~/.keras/keras.json says "
            f"{keras.config.image_data_format()}. Change it there."
        )
    return keras


def _model(keras: Any, name: str, size: int, weights: str | None = None) -> Any:
    """Build the application without its top, for (N, size, size, 3); weights: Keras' argument.

    Raises SpecError if the input is too small for its layers.
    """
    asked = {"include_top": False, "weights": weights, "input_shape": (size, size, 3)}
    try:
        if name == "NASNetMobile":
            return _nasnet_mobile(keras, asked)
        model = getattr(keras.applications, name)(**asked)
    except ValueError as error:
        if weights:
            raise
        reason = str(error).splitlines()[0]
        raise SpecError(f"keras:{name} can't be built for {size} pixels: {reason}") from error
    return model if weights else _as_with_imagenet(keras, name, model)


def _nasnet_mobile(keras: Any, asked: dict[str, Any]) -> Any:
    """Build NASNetMobile, which Keras refuses on PyTorch although building it works.

    The numbers are those of keras.applications.NASNetMobile.
    """
    nasnet = sys.modules[keras.applications.NASNetMobile.__module__].NASNet
    return nasnet(
        penultimate_filters=1056,
        num_blocks=4,
        stem_block_filters=32,
        skip_reduction=False,
        filter_multiplier=2,
        default_size=224,
        **asked,
    )


def _as_with_imagenet(keras: Any, name: str, model: Any) -> Any:
    """Add the layer that Keras gives EfficientNetB0 to B7 only with their ImageNet weights.

    Those weights were trained on pictures divided by the variance; Normalization divides by its
    root. With the layer for all weights, an architecture is always the same network.
    """
    if not name.startswith("EfficientNetB"):
        return model
    again = keras.layers.Rescaling([1 / math.sqrt(std) for std in IMAGENET_STD])

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        value = layer(*args, **kwargs)
        return again(value) if isinstance(layer, keras.layers.Normalization) else value

    return keras.models.clone_model(model, call_function=call)


def _pretrained(keras: Any, name: str, size: int) -> Any:
    """Build the application with ImageNet weights, from Keras' cache or downloaded."""
    with warnings.catch_warnings():
        # MobileNets warn that a size without its own weights gets those of 224; the card says so
        warnings.filterwarnings("ignore", message=".*`input_shape` is undefined or non-square")
        try:
            return _model(keras, name, size, "imagenet")
        except Exception as error:  # each library has its own network errors
            file = APPLICATIONS[name].weights_file(size)
            raise SourceError(
                f"The weights of keras:{name}@{size} are the file {file} of Keras, which is not in "
                f"its cache and could not be fetched ({error}). Get it on a machine that reaches "
                f"the network and pass it with --weights FILE."
            ) from error


def _read(model: Any, weights: Weights, name: str) -> None:
    """Load Keras' weights file; raises SourceError for a file of another kind, Mismatch for weights
    of another network."""
    path = str(weights.file)
    try:
        _check_one_file(path)
        with warnings.catch_warnings():
            # Keras only warns of layers that the file lacks
            warnings.filterwarnings("error", "Skipping nested container", UserWarning)
            model.load_weights(path)
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{path} cannot be read as an HDF5 file: {error}.") from error
    except (ValueError, KeyError, UserWarning) as error:
        reason = str(error).splitlines()[0]
        raise Mismatch(
            f"The weights in {path} must be those of keras:{name} without its top "
            f"(include_top=False); they do not fit: {reason}"
        ) from error


def _check_one_file(path: str) -> None:
    """Raise SourceError if an HDF5 file reads other files, by a link or in a dataset, or holds
    arrays far larger than itself: a hole of 10 GB compresses to nothing.

    The latest versions of Keras refuse this in `.weights.h5`; none does in the older `.h5`.
    """
    import h5py

    sizes = list[int]()

    def foreign(name: str, part: Any) -> str | None:
        elsewhere = isinstance(part, h5py.ExternalLink)
        if isinstance(part, h5py.Dataset):
            elsewhere = bool(part.external) or part.is_virtual
            sizes.append(part.nbytes)
        return name if elsewhere else None

    with h5py.File(path) as file:
        name = file.visititems_links(foreign) or file.visititems(foreign)
    if name is not None:
        raise SourceError(
            f"Weights are read from one file alone, but {path} takes {name} from another file of "
            f"this machine. Keras wrote no such file: don't use it."
        )
    if sum(sizes) > COMPRESSED * os.path.getsize(path) + 2**20:
        raise SourceError(
            f"Weights in a file take as much memory as the file has bytes; {path} would take "
            f"{sum(sizes) / 1e6:,.0f} MB. Keras wrote no such file: don't use it."
        )


def _randomise(module: "nn.Module") -> None:
    """Draw normal weights that keep the scale of activations (He et al. 2015, eq. 10), seed 0.

    Biases become 0; norms keep Keras' initial scale 1 and shift 0.
    """
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            inputs = part.weight[0].numel()
            nn.init.normal_(part.weight, 0.0, math.sqrt(2 / inputs), generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


# The block at the start of a layer's name, or at its end in NASNet.
_BEGINS = re.compile(
    r"(?:convnext_[a-z]+_)?"
    r"(stage_\d+_block_\d+|downsampling_block_\d+|conv\d+_block\d+|block\d+_\d+|block_?\d+[a-z]?"
    r"|expanded_conv(?:_\d+)?|conv_(?:dw|pw)_\d+|pool\d+)(?:_.*)?|(mixed\d+|mixed_\d+[a-z])"
)
_ENDS = re.compile(r"(?:separable|normal|reduction|adjust)_.*?_(stem_\d+|reduce_\d+|\d+)")


def blocks_of(module: "nn.Module") -> tuple[Block, ...]:
    """Group the layers by the block in their names, in execution order."""
    layers = cast(tuple[str, ...], module.layers)  # set by convert
    parts = dict(module.named_children())
    places: dict[str, int] = {}
    groups: dict[str, list[str]] = {}
    latest = "stem"
    for layer, block in zip(layers, block_names(layers), strict=True):
        # a branch of the next block may begin before the last block ends: blocks never go back
        if places.setdefault(block, len(places)) >= places.get(latest, 0):
            latest = block
        if layer in parts:
            names = (name for name, _ in parts[layer].named_parameters())
            groups.setdefault(latest, []).extend(f"{layer}.{name}" for name in names)
    return tuple(Block(name, tuple(own)) for name, own in groups.items() if own)


def block_names(layers: tuple[str, ...]) -> list[str]:
    """Return the block of each layer; a layer without one in its name joins the block around it.

    >>> block_names(("conv", "block_1_expand", "re_lu", "block_2_add", "bn"))
    ['stem', 'block_1', 'block_1', 'block_2', 'top']
    """
    named = [_block_of(layer) for layer in layers]
    first, *_, last = (i for i, block in enumerate(named) if block)
    top = ["top"] * (len(named) - last - 1)
    if not any(layer.startswith("mixed") for layer in layers):
        return [*_filled(named[: last + 1], "stem"), *top]
    # Inception names the end of each block; its stem ends in a pooling layer
    stem = max(i for i in range(first) if layers[i].startswith("max_pooling2d")) + 1
    return [*["stem"] * stem, *reversed(_filled(named[last : stem - 1 : -1], "")), *top]


def _filled(named: list[str], block: str) -> list[str]:
    """Replace each empty name by the name before it; block: the name before the first."""
    return list(accumulate(named, lambda before, name: name or before, initial=block))[1:]


def _block_of(layer: str) -> str:
    """
    >>> _block_of("conv_pw_3_bn"), _block_of("normal_conv_1_0"), _block_of("Conv_1")
    ('block_3', 'cell_0', '')
    """
    if begins := _BEGINS.fullmatch(layer):
        return re.sub(r"^conv_(?:dw|pw)", "block", begins[1] or begins[2])
    ends = _ENDS.fullmatch(layer)
    return f"cell_{ends[1]}" if ends else ""
