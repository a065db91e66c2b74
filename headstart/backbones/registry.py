"""Where backbones come from. A name is `source:id`; a source is imported only when asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

from headstart.backbones.backbone import Backbone
from headstart.backbones.weights import Weights
from headstart.base.errors import MissingPackage, SpecError, UnknownName

DEFAULT_BACKBONE = "packaged:efficientnet_lite0"

_SOURCES = {
    "packaged": "headstart.modalities.images.packaged",
    "timm": "headstart.modalities.images.from_timm",
    "keras": "headstart.modalities.images.from_keras",
    "file": "headstart.backbones.saved",
    "scratch": "headstart.modalities.images.scratch",
    "tiny": "headstart.modalities.images.tiny",
}


@dataclass(frozen=True)
class Listing:
    """A line of `headstart backbones`. size: pixels; where: how its weights are come by."""

    name: str
    size: str
    dim: str
    parameters: str
    licence: str
    where: str


def load_backbone(name: str, *, weights: str | Path = "pretrained") -> Backbone:
    """The backbone `source:id`, with weights "pretrained", "random" or of a .safetensors file.

    keras: takes the .h5 files that Keras writes too.
    Raises UnknownName (with the nearest name), SourceError when weights can't be had, Mismatch
    when they are another network's, MissingPackage when a library is not installed.

    >>> load_backbone("tiny:32").card.dim
    32
    """
    source, colon, id = name.partition(":")
    if not colon:
        raise SpecError(
            f"A backbone is named source:id, as in {DEFAULT_BACKBONE!r}; got {name!r}. "
            f"`headstart backbones` lists them."
        )
    if source not in _SOURCES:
        raise UnknownName("source of backbones", source, _SOURCES)
    chosen = Weights(str(weights))
    if chosen.of_keras and source != "keras":
        raise SpecError(
            f"Weights in a .h5 file are Keras' and go into a backbone of keras: alone; got "
            f"{chosen.choice!r} for {name}. Give a .safetensors file."
        )
    try:
        load = import_module(_SOURCES[source]).load
        return load(id, chosen)
    except ModuleNotFoundError as error:
        raise MissingPackage(str(error.name), purpose=f"Loading {name}", extra="train") from error


def list_backbones(pattern: str = "") -> Iterator[Listing]:
    """What there is; with a pattern such as "timm:*vit*", the names of that source that match."""
    from headstart.modalities.images.packaged import PACKAGED

    for id, p in PACKAGED.items():
        if fnmatch(f"packaged:{id}", f"*{pattern}*"):
            where = "installed" if p.folder else f"pip install 'headstart[{p.extra}]'"
            millions = f"{p.parameters / 1e6:.1f} M"
            yield Listing(f"packaged:{id}", str(p.size), str(p.dim), millions, p.licence, where)
    if pattern.startswith("timm:"):
        yield from _timm(pattern.removeprefix("timm:"))
    elif pattern.startswith("keras:"):
        yield from _keras(pattern)
    elif not pattern:
        hub = "Hugging Face Hub, or --weights FILE"
        yield Listing("timm:NAME[.TAG]", "-", "-", "-", "each its own", hub)
        ours = "Keras' cache or server, or --weights FILE"
        yield Listing("keras:NAME[@SIZE]", "-", "-", "-", "each its own", ours)
        yield Listing("file:FOLDER", "-", "-", "-", "its card's", "card.json + weights.safetensors")
        small = "random: it is trained from scratch"
        yield Listing("scratch:cnn", "32", "128", "0.3 M", "Apache-2.0", small)
        yield Listing("tiny:D", "32", "D", "tiny", "Apache-2.0", "made on the spot, for tests")


def _keras(pattern: str) -> Iterator[Listing]:
    from headstart.modalities.images.from_keras import APPLICATIONS, LICENCE

    for id, application in APPLICATIONS.items():
        if fnmatch(f"keras:{id}", pattern):
            where = f"Keras' cache or server, or --weights {application.weights_file()}"
            yield Listing(f"keras:{id}", str(application.size), "-", "-", LICENCE, where)


def _timm(pattern: str) -> Iterator[Listing]:
    try:
        import timm
    except ImportError as error:
        raise MissingPackage("timm", purpose="Listing timm:", extra="train") from error
    for id in timm.list_pretrained(pattern):
        config = timm.get_pretrained_cfg(id)
        yield Listing(
            f"timm:{id}",
            str(config.input_size[-1]),
            "-",
            "-",
            config.license or "unknown",
            "Hugging Face Hub, or --weights FILE",
        )
