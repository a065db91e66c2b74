"""Fine-tuning: the top layers of a backbone go on learning, from a head that is fitted already."""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import Cut, cut_before, thawed_by
from headstart.backbones.entry import WholeNetwork
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import Mismatch
from headstart.features.extract import Tap
from headstart.heads.head import Head
from headstart.models.specs import FineTune
from headstart.training.attacked import judging_attack
from headstart.training.feeds import Feed
from headstart.training.folding import folded
from headstart.training.judging import judge
from headstart.training.loop import Trained, train
from headstart.training.network import Count, Network, count, head_module, head_of
from headstart.training.plan import Norms

HALF_FROM_BYTES = 2**30  # of activations at the cut: more of them are kept in half precision
LINE = np.linspace(0, 1, 11)  # places between the weights before and after


@dataclass(frozen=True, eq=False)
class ThawedBackbone:
    """A backbone made ready to learn: a copy of its own, what is thawed, and where it is cut.

    cut: None if no point before the first thawed layer will do, or the pictures change in every
    step: then the whole network is run.
    """

    backbone: Backbone
    thawed: tuple[str, ...]
    cut: Cut | None

    def tap(self, rows: int, precision: Literal["auto", "float32", "float16"]) -> Tap:
        """What extraction is to keep of so many rows beside their features, and how exactly."""
        assert self.cut is not None  # or there is nothing to keep
        tap = Tap(self.cut.name, self.cut.shape, self.cut.both)
        if precision == "auto":
            precision = "float16" if rows * tap.row_bytes > HALF_FROM_BYTES else "float32"
        return replace(tap, precision=precision)

    def network(self, head: torch.nn.Module, norms: Norms) -> Network:
        """The thawed tail, or the whole network from its pixels, with a head on it."""
        if self.cut is not None:
            tail = folded(self.cut.tail) if norms == "frozen" else self.cut.tail
            return Network(tail, head, self.thawed, norms == "trained")
        whole = WholeNetwork(self.backbone.module, self.backbone.card.input)
        return Network(whole, head, (f"network.{n}" for n in self.thawed), norms == "trained")

    def depth(self) -> dict[str, int]:
        """How many blocks below the head each parameter is."""
        blocks = enumerate(reversed(self.backbone.blocks), start=1)
        below = {name: n for n, block in blocks for name in block.parameters}
        return below if self.cut else {f"network.{name}": n for name, n in below.items()}


@dataclass(frozen=True, eq=False)
class Tuned:
    """A backbone and a head that learned together. wise: the share of what they learned that was
    kept, if it was chosen; 1 is all of it."""

    backbone: Backbone
    head: Head
    trained: Trained
    count: Count
    wise: float = 1.0


def thaw(
    backbone: Backbone, layers: str, thaw_from: int | None = None, *, whole: bool = False
) -> ThawedBackbone:
    """A copy of the backbone with these layers thawed (see `thawed_by`), cut before them.

    whole: it is not to be cut.
    """
    own = replace(backbone, module=copy.deepcopy(backbone.module), source_head=None)
    thawed = thawed_by(own, layers, thaw_from)
    return ThawedBackbone(own, thawed, None if whole else cut_before(own, thawed))


def tune(
    recipe: FineTune,
    thawed: ThawedBackbone,
    head: Head | torch.nn.Module,
    feeds: tuple[Feed, Feed],
    *,
    context: RunContext = IN_MEMORY,
    phase: str = "finetune",
    after: int = 0,
) -> Tuned:
    """Train the thawed layers and the head, by a recipe with nothing "auto" left in it.

    Feeds give what crosses the cut, or pixels if there is none.
    Raises SpecError for a head that can't go on learning, Diverged for numbers that aren't finite,
    Mismatch if pictures are to be attacked and there is a cut.
    """
    if recipe.adversarial and thawed.cut is not None:
        raise Mismatch(
            "Adversarial training changes the pixels, and this network starts from what crosses "
            "its cut: open it whole, thaw(…, whole=True), and give it pixels."
        )
    module = head if isinstance(head, torch.nn.Module) else head_module(head, recipe.dropout)
    network = thawed.network(module, recipe.norms)
    counted = count([thawed.backbone.module, module], network)
    trained = train(
        network,
        recipe,
        *feeds,
        phase=phase,
        after=after,
        depth=thawed.depth(),
        context=context,
    )
    val = feeds[1]
    share = _wise(network, recipe, trained, val) if recipe.wise and len(val.ids) else 1.0
    network.cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    thawed.backbone.module.eval().requires_grad_(False)
    return Tuned(_named(thawed.backbone), head_of(module), trained, counted, share)


def _wise(network: Network, recipe: FineTune, trained: Trained, val: Feed) -> float:
    """Leave the network at the best place, on validation, between where it began and ended.

    Wortsman et al. 2022, Robust fine-tuning of zero-shot models, eq. 1; of equals the smaller loss.
    """
    end = {name: t.clone() for name, t in network.learned().items()}

    def at(share: float) -> None:
        network.load({n: torch.lerp(trained.start[n].float(), end[n].float(), share) for n in end})

    def merit(share: float) -> tuple[float, float]:
        at(share)
        loss, accuracy = judge(network, val, judging_attack(recipe))
        return accuracy or 0.0, -(loss or 0.0)

    best = max((float(share) for share in LINE), key=merit)
    at(best)
    return best


def _named(backbone: Backbone) -> Backbone:
    return replace(backbone, card=replace(backbone.card, origin="fine-tuned"))
