"""Where backbones come from: what a source is, and the table of sources.

The built-in lines of the table stand in `headstart.modalities.sources`, which fills it.
"""

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
    """A line of `headstart backbones`. size: pixels; where: how its weights are come by."""

    name: str
    size: str = "-"
    dim: str = "-"
    parameters: str = "-"
    licence: str = "-"
    where: str = "-"


class Source(Protocol):
    """One place that backbones come from: an object, or a module that has these names.

    weight_files: suffixes that a local file of its weights may have.
    """

    @property
    def weight_files(self) -> tuple[str, ...]: ...

    def load(self, id: str, weights: Weights) -> Backbone:
        """Raises UnknownName with the nearest name, SourceError for weights that can't be had."""

    def build(self, card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
        """The network that `card.architecture` names, with any weights, and its blocks."""

    def listing(self) -> Iterable[Listing]:
        """A line for each backbone that it has."""


SOURCES: Extensions[Source] = Extensions("source of backbones", "sources")


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """The network that a card names, with any weights, and its blocks.

    Raises SpecError if nothing here can build it.
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
