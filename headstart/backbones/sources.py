"""The protocol and the table of backbone sources; `headstart.modalities.sources` fills the
table."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.weights import Weights
from headstart.base.errors import SpecError, UnknownName
from headstart.base.extensions import Extensions

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Listing:
    """A line of `headstart backbones`. size: in pixels; where: the origin of its weights."""

    name: str
    size: str = "-"
    dim: str = "-"
    parameters: str = "-"
    licence: str = "-"
    where: str = "-"


class Source(Protocol):
    """A provider of backbones: an object or a module with these names.

    weight_files: suffixes that a local file of its weights may have.
    """

    @property
    def weight_files(self) -> tuple[str, ...]: ...

    def load(self, id: str, weights: Weights) -> Backbone:
        """Load a backbone; raises UnknownName, or SourceError for unavailable weights."""

    def build(self, card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
        """Build the network `card.architecture`, with arbitrary weights, and its blocks."""

    def listing(self) -> Iterable[Listing]:
        """Return a line for each backbone of the source."""


SOURCES: Extensions[Source] = Extensions("source of backbones", "sources")


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """Build the network that a card names, with arbitrary weights, and its blocks.

    Raises SpecError if its source is not installed.
    """
    name = card.architecture.partition(":")[0]
    try:
        source = SOURCES[name]
    except UnknownName as error:
        raise SpecError(
            f"An architecture is source:id, and the sources here are {', '.join(error.known)}; the "
            f"card of {card.name} says {card.architecture!r}. Install the package, or import the "
            f"script, that adds this source."
        ) from error
    return source.build(card)
