"""The source of ensembles, which training makes of fine-tuned copies (`side_by_side`)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from headstart.backbones import sources
from headstart.backbones.backbone import Backbone, Card
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights
from headstart.base.errors import SpecError

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones.backbone import Block

weight_files = (".safetensors",)


def load(id: str, weights: Weights) -> Backbone:
    """Raise SpecError: an ensemble is made by training, and is loaded with its bundle."""
    raise SpecError(
        f"An ensemble is made by training, with --seeds N --ensemble, and is loaded with its "
        f"bundle; got ensemble:{id}. Name the network of its members."
    )


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """Return the network of an ensemble, with arbitrary weights, and its blocks."""
    from headstart.backbones.side_by_side import plan_of, side_by_side

    plan = plan_of(card)
    own = replace(card, architecture=card.id, dim=plan.dim, config=plan.config)
    copies = [Backbone(own, *sources.build(own)) for _ in range(plan.members)]
    return side_by_side(copies, plan.thaw, plan.thaw_from).parts


def listing() -> tuple[Listing, ...]:
    """Return nothing: ensembles are made by training."""
    return ()
