"""Fine-tuned copies of a network as one network: (N, D) features of each, side by side.

Layers that the copies share run once, where there is a cut behind them. A linear head on all these
features can give the mean of the raw outputs of the copies' own heads. The card names the
architecture of a copy, `ensemble:SOURCE:ID`, and holds an `EnsemblePlan`.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.cutting import Cut, cut_before, sequence_cut, thawed_by
from headstart.backbones.inputs import has_parts
from headstart.base.errors import SpecError
from headstart.base.values import Record

NAME = "ensemble"  # the source of ensembles


@dataclass(frozen=True)
class EnsemblePlan(Record):
    """What an ensemble is made of, besides the architecture of its copies.

    members: the number of copies. thaw, thaw_from: the layers in which they differ, as in
    `thawed_by`. dim, config: of the card of a copy.
    """

    members: int
    thaw: str
    thaw_from: int | None
    dim: int
    config: str = ""


def card_of(card: Card, plan: EnsemblePlan) -> Card:
    """Return the card of an ensemble; card: of a copy."""
    config = json.dumps(plan.to_plain(), sort_keys=True)
    name = f"{NAME}:{card.architecture}"
    return replace(card, architecture=name, dim=plan.members * plan.dim, config=config)


def plan_of(card: Card) -> EnsemblePlan:
    """Return the plan in the card of an ensemble; raises SpecError if it is damaged."""
    try:
        return EnsemblePlan.read(json.loads(card.config))
    except ValueError as error:
        raise SpecError(f"The card of an ensemble holds its plan; got {card.config!r}.") from error


def side_by_side(
    copies: Sequence[Backbone], thaw: str = "all", thaw_from: int | None = None
) -> Backbone:
    """Return copies of a network as one backbone, which shares their modules.

    thaw, thaw_from: the layers in which the copies may differ, as in `thawed_by`.
    """
    first = copies[0]
    plan = EnsemblePlan(len(copies), thaw, thaw_from, first.card.dim, first.card.config)
    module = _module([replace(b, card=_plain(b)) for b in copies], plan)
    module.eval().requires_grad_(False)
    return Backbone(card_of(first.card, plan), module, _blocks(copies, module))


def _plain(backbone: Backbone) -> Card:
    """Return the card without test-time views, which do not concern the network."""
    card = backbone.card
    return replace(card, input=card.input.averaging(None, 1))


def _module(copies: Sequence[Backbone], plan: EnsemblePlan) -> nn.Module:
    networks = [backbone.module for backbone in copies]
    if has_parts(copies[0].card.input):
        return SequencesSideBySide(networks)
    thawed = thawed_by(copies[0], plan.thaw, plan.thaw_from)
    cuts = [cut for b in copies if (cut := cut_before(b, thawed)) is not None]
    made = SideBySide(cuts[0].trunk, [c.tail for c in cuts]) if cuts else SideBySide(None, networks)
    made.num_prefix_tokens = getattr(networks[0], "num_prefix_tokens", None)
    return made


class SideBySide(nn.Module):
    """trunk: the shared layers, None without any. tails: what follows in each copy.

    num_prefix_tokens: timm's, of a transformer, by which explanations find the patches.
    """

    num_prefix_tokens: int | None = None

    def __init__(self, trunk: nn.Module | None, tails: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk, self.tails = trunk, nn.ModuleList(tails)

    def forward(self, x: Tensor) -> Tensor:  # -> (N, copies D)
        hidden = x if self.trunk is None else self.trunk(x)
        return torch.cat([tail(hidden) for tail in self.tails], dim=1)


class SequencesSideBySide(nn.Module):
    """Copies of a network whose examples have parts or lengths of their own; each runs whole."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        if isinstance(first := getattr(networks[0], "first", None), str):
            self.first = first  # the name of the block that explanations of texts start behind

    def forward(self, *arrays: Tensor) -> Tensor:  # -> (P, copies D)
        return torch.cat([network(*arrays) for network in self.networks], dim=1)

    def cut_before(self, thawed: Collection[str]) -> Cut | None:
        """Cut each copy; hidden states at the cut stand side by side, too."""
        cuts = list[Cut]()
        for i, network in enumerate(self.networks):
            prefix = f"networks.{i}."
            own = tuple(n.removeprefix(prefix) for n in thawed if n.startswith(prefix))
            divide: Any = getattr(network, "cut_before", None)
            if divide is None or (cut := divide(own)) is None:
                return None
            cuts.append(cut)
        width = cuts[0].shape[0]
        tail = _TailsOfHidden([cut.tail for cut in cuts], width)
        return sequence_cut(
            cuts[0].name, _HiddenSideBySide([cut.trunk for cut in cuts]), tail, width * len(cuts)
        )


class _HiddenSideBySide(nn.Module):
    """The arrays of a batch -> hidden (P, L, copies H) and mask (P, L)."""

    def __init__(self, trunks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunks)

    def forward(self, *arrays: Tensor) -> tuple[Tensor, Tensor]:
        made = [trunk(*arrays) for trunk in self.trunks]
        return torch.cat([hidden for hidden, _ in made], dim=2), made[0][1]


class _TailsOfHidden(nn.Module):
    """hidden (P, L, copies H) and mask -> (P, copies D). width: H."""

    def __init__(self, tails: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.tails, self.width = nn.ModuleList(tails), width

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        each = hidden.split(self.width, dim=2)
        made = [tail(own, mask) for tail, own in zip(self.tails, each, strict=True)]
        return torch.cat(made, dim=1)


def _blocks(copies: Sequence[Backbone], module: nn.Module) -> tuple[Block, ...]:
    """Return the blocks of the copies, each with its parameters in all of them."""
    own = {id(p): name for b in copies for name, p in b.module.named_parameters()}
    block_of = {name: block.name for block in copies[0].blocks for name in block.parameters}
    named = module.named_parameters(remove_duplicate=False)
    blocks = {name: block_of[own[id(p)]] for name, p in named}
    return tuple(
        Block(block.name, tuple(name for name, its in blocks.items() if its == block.name))
        for block in copies[0].blocks
    )
