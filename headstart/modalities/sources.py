"""Register the built-in sources of backbones, one line each; load and list backbones by name."""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import cast

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.sources import SOURCES, build
from headstart.backbones.sources import Listing as Listing
from headstart.backbones.weights import Weights, fill, room_of
from headstart.base.errors import HeadstartError, MissingPackage, SpecError
from headstart.base.runtime import installed
from headstart.data.dataset import Dataset
from headstart.modalities import inputs as inputs


class UsualName(str):
    """The name of the backbone that is used if none is named, equal to this name as a str.

    `usual_backbone` replaces it, and no name that a user gives, by the usual one of the data.
    """


DEFAULT_BACKBONE = UsualName("packaged:efficientnet_lite0")

for _name, _where in {
    "packaged": "headstart.modalities.packaged",
    "timm": "headstart.modalities.images.from_timm",
    "keras": "headstart.modalities.images.from_keras",
    "hf": "headstart.modalities.from_transformers",
    "file": "headstart.backbones.saved",
    "scratch": "headstart.modalities.images.scratch",
    "tiny": "headstart.modalities.images.tiny",
    "tiny-text": "headstart.modalities.text.tiny",
    "wrapped": "headstart.modalities.images.wrapping",
    "ensemble": "headstart.backbones.ensembles",
}.items():
    SOURCES.add(_name, _where)

# One line for all backbones of a source that has many or is slow to list.
_OVERVIEW = (
    Listing("timm:NAME[.TAG]", licence="each its own", where="Hugging Face Hub, or --weights FILE"),
    Listing(
        "keras:NAME[@SIZE]",
        licence="each its own",
        where="Keras' cache or server, or --weights FILE",
    ),
    Listing(
        "hf:ID[@POOL]",
        licence="each its own",
        where="Hugging Face Hub, hf:FOLDER or --weights FILE",
    ),
    Listing("file:FOLDER", licence="its card's", where="card.json + weights.safetensors"),
    Listing(
        "scratch:cnn", "32", "128", "0.3 M", "Apache-2.0", "random: it is trained from scratch"
    ),
    Listing("tiny:D", "32", "D", "tiny", "Apache-2.0", "made on the spot, for tests"),
    Listing("tiny-text:D", "-", "D", "tiny", "Apache-2.0", "made on the spot, for tests"),
)
_OVERVIEWS = {line.name.partition(":")[0]: line for line in _OVERVIEW}


def load_backbone(name: str, *, weights: str | Path = "pretrained") -> Backbone:
    """Load the backbone `source:id`.

    weights: "pretrained", "random" or a .safetensors file; for keras: also an .h5 file of Keras.
    Without PyTorch, packaged networks come as a `Frozen` (typed as a Backbone, since only code that
    needs PyTorch tells them apart): it gives features, and has no module and no blocks. Raises
    UnknownName (with the nearest name), SourceError if weights can't be read or downloaded,
    Mismatch if they are of another network, MissingPackage if a library is not installed.

    >>> load_backbone("tiny:32").card.dim
    32
    """
    source, colon, id = name.partition(":")
    if not colon:
        raise SpecError(
            f"A backbone is named source:id, as in {DEFAULT_BACKBONE!r}; got {name!r}. "
            f"`headstart backbones` lists them."
        )
    if not installed("torch", "timm") and (frozen := load_shipped(name, weights)) is not None:
        return cast(Backbone, frozen)
    try:
        chosen = SOURCES[source]
        return chosen.load(id, Weights(str(weights), tuple(chosen.weight_files)))
    except ModuleNotFoundError as error:
        raise MissingPackage(str(error.name), purpose=f"Loading {name}", extra="train") from error


def load_shipped(name: str, weights: str | Path = "pretrained") -> Frozen | None:
    """Load a backbone as the graph that Headstart ships, without PyTorch; None if it ships none.

    Its fingerprint is that of `load_backbone`. Raises MissingPackage without the weights' package.
    """
    source, _, id = name.partition(":")
    if source != "packaged" or str(weights) != "pretrained":
        return None
    from headstart.modalities import packaged

    return packaged.load_shipped(id)


def usual_backbone(name: str, data: Dataset) -> tuple[str, str]:
    """Return the backbone for data of another kind than images if none was named, and why.

    name: DEFAULT_BACKBONE itself if none was named; any other is returned as it is, with "".
    """
    if not isinstance(name, UsualName) or data.input is None:
        return name, ""
    own, why = data.input.default_backbone(data)
    return own or name, why


def list_backbones(pattern: str = "") -> tuple[Listing, ...]:
    """Return all sources; with a pattern such as "timm:*vit*", the matching names of that source.

    A listing has `name`, `size`, `dim`, `parameters`, `licence`, and `where` its weights are.

    >>> [line.name for line in list_backbones("scratch:*")]
    ['scratch:cnn']
    """
    return tuple(_listings(pattern))


def _listings(pattern: str) -> Iterator[Listing]:
    for name in SOURCES.names():
        overview = _OVERVIEWS.get(name)
        if not overview:
            yield from _of_all(name, pattern)
        elif pattern.startswith(f"{name}:"):
            yield from _matching(name, pattern)
        elif not pattern:
            yield overview


def _of_all(source: str, pattern: str) -> tuple[Listing, ...]:
    """Return a source's backbones among those of all sources; none if its library is missing."""
    try:
        return tuple(_matching(source, f"*{pattern}*"))
    except MissingPackage as error:
        if pattern.startswith(f"{source}:"):
            raise
        built_in = source in SOURCES.built_in
        return () if built_in else (Listing(f"{source}:", where=str(error)),)


def reopened(frozen: Frozen) -> Backbone:
    """Return the PyTorch network of a frozen backbone, with its weights.

    Raises MissingPackage without the library of its architecture, SpecError for a network that
    answers by itself, which exists as a graph alone.
    """
    if frozen.card.architecture.startswith("detector:"):
        raise SpecError(
            f"{frozen.card.name} finds boxes, and its saved graph can neither be explained, "
            f"attacked nor trained further; it predicts and is evaluated."
        )
    try:
        import torch

        with room_of(frozen.card.architecture, frozen.weights):
            module, blocks = build(frozen.card)
    except ModuleNotFoundError as error:
        raise MissingPackage(
            str(error.name), purpose=f"Opening {frozen.card.name}", extra="train"
        ) from error
    fill(module, {k: torch.tensor(v) for k, v in frozen.weights.items()}, frozen.card.name)
    return Backbone(frozen.card, module, blocks)


def _matching(source: str, pattern: str) -> Iterator[Listing]:
    """Yield the source's backbones whose name, with or without its tag, matches."""
    try:
        listed = list(SOURCES[source].listing())
    except ModuleNotFoundError as error:
        missing = str(error.name)
        raise MissingPackage(missing, purpose=f"Listing {source}:", extra="train") from error
    except HeadstartError as error:  # one broken package must not hide the other sources
        listed = [Listing(f"{source}:", where=str(error))]
    for line in listed:
        if fnmatch(line.name, pattern) or fnmatch(line.name.partition(".")[0], pattern):
            yield line
