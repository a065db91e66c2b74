"""Fine-tuning: train the top layers of a backbone together with a fitted head."""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import Cut, cut_before, thawed_by
from headstart.backbones.entry import WholeNetwork
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import Mismatch, SpecError
from headstart.features.extract import Tap
from headstart.heads.head import Head
from headstart.models.specs import FineTune
from headstart.targets.target import Target
from headstart.training.adapters import (
    add_adapters,
    count_with_adapters,
    depth_with_adapters,
    merge_adapters,
)
from headstart.training.arithmetic import judging_arithmetic
from headstart.training.attacked import judging_attack
from headstart.training.feeds import Feed
from headstart.training.folding import folded
from headstart.training.history import Count
from headstart.training.judging import judge, raw_outputs
from headstart.training.loop import Again, Trained, train
from headstart.training.network import Network, count, head_module, head_of, parameters_of, tied
from headstart.training.plan import Norms

HALF_FROM_BYTES = 2**30  # activations at the cut beyond this size are stored in half precision
LINE = np.linspace(0, 1, 11)  # interpolation weights between start and end


@dataclass(frozen=True, eq=False)
class ThawedBackbone:
    """A copy of a backbone for fine-tuning, and the names of its trainable parameters.

    cut: the split into a frozen and a trained part. None if the network can't be split before its
    first thawed layer or if the images change in every step; then the whole network is run.
    """

    backbone: Backbone
    thawed: tuple[str, ...]
    cut: Cut | None

    def tap(self, rows: int, precision: Literal["auto", "float32", "float16"]) -> Tap:
        """Return the request for activations at the cut, for storing `rows` rows in `precision`.

        rows: of sequences, their positions.
        """
        assert self.cut is not None  # otherwise there is nothing to store
        cut = self.cut
        tap = Tap(cut.name, cut.shape, cut.both, sequences=cut.sequences)
        if precision == "auto":
            precision = "float16" if rows * tap.row_bytes > HALF_FROM_BYTES else "float32"
        return replace(tap, precision=precision)

    def network(self, head: torch.nn.Module, norms: Norms) -> Network:
        """Return the thawed tail, or without a cut the whole network, with a head."""
        if self.cut is not None:
            tail = folded(self.cut.tail) if norms == "frozen" else self.cut.tail
            inside = self.cut.in_tail(self.backbone.module)
            return Network(tail, head, (inside.get(n, n) for n in self.thawed), norms == "trained")
        whole = WholeNetwork(self.backbone.module, self.backbone.card.input)
        return Network(whole, head, (f"network.{n}" for n in self.thawed), norms == "trained")

    def depth(self) -> dict[str, int]:
        """Return, by parameter, how many blocks below the head it is."""
        blocks = enumerate(reversed(self.backbone.blocks), start=1)
        below = {name: n for n, block in blocks for name in block.parameters}
        inside = self.cut.in_tail(self.backbone.module) if self.cut else None
        if inside is None:
            return {f"network.{name}": n for name, n in below.items()}
        return {inside[name]: n for name, n in below.items() if name in inside}


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned backbone and head. wise: the chosen share of the interpolation towards the
    fine-tuned weights; 1 means all. target: with its decisions chosen on validation."""

    backbone: Backbone
    head: Head
    trained: Trained
    count: Count
    target: Target
    wise: float = 1.0


def thaw(
    backbone: Backbone, layers: str, thaw_from: int | None = None, *, whole: bool = False
) -> ThawedBackbone:
    """Return a copy of the backbone with these layers thawed (see `thawed_by`) and cut before them.

    whole: do not cut.
    """
    own = replace(backbone, module=copy.deepcopy(backbone.module), source_head=None)
    thawed = thawed_by(own, layers, thaw_from)
    return ThawedBackbone(own, thawed, None if whole else cut_before(own, thawed))


def tune(
    recipe: FineTune,
    thawed: ThawedBackbone,
    head: Head | torch.nn.Module,
    feeds: tuple[Feed, Feed],
    target: Target | None = None,
    *,
    context: RunContext = IN_MEMORY,
    phase: str = "finetune",
    after: int = 0,
    again: Again | None = None,
) -> Tuned:
    """Train the thawed layers and the head, with resolved settings (nothing "auto").

    feeds: activations at the cut, or prepared examples if there is none. target: with decisions
    that are kept without validation rows; None for the target of the feeds. again: what an earlier
    training chose. Raises SpecError for a
    head that can't be fine-tuned, Diverged for non-finite numbers, Mismatch for adversarial
    training with a cut.
    """
    target = target or feeds[0].target
    if recipe.adversarial and not target.counts_right:
        raise SpecError(
            f"Adversarial training makes right answers wrong, which those of {target.noun} are not "
            f"by themselves: leave adversarial out."
        )
    if recipe.adversarial and thawed.cut is not None:
        raise Mismatch(
            "Adversarial training changes the pixels, and this network starts from what crosses "
            "its cut: open it whole, thaw(…, whole=True), and give it pixels."
        )
    module = head if isinstance(head, torch.nn.Module) else head_module(head, recipe.dropout)
    network = thawed.network(tied(module, target), recipe.norms)
    learned = tune_network(
        recipe, thawed, network, feeds, context=context, phase=phase, after=after, again=again
    )
    val, card = feeds[1], thawed.backbone.card
    if target.decides and len(val.ids):
        raw = raw_outputs(network, val, learned.trained.arithmetic)
        target = target.decided(target.activate(raw), val.y)
    at_rest(network, thawed)
    backbone = replace(thawed.backbone, card=replace(card, origin="fine-tuned"))
    return Tuned(
        backbone, head_of(module, head), learned.trained, learned.count, target, learned.wise
    )


@dataclass(frozen=True, eq=False)
class Learned:
    """How a network was tuned in place. wise: as in `Tuned`."""

    trained: Trained
    count: Count
    wise: float


def tune_network(
    recipe: FineTune,
    thawed: ThawedBackbone,
    network: Network,
    feeds: tuple[Feed, Feed],
    *,
    context: RunContext = IN_MEMORY,
    phase: str = "finetune",
    after: int = 0,
    again: Again | None = None,
) -> Learned:
    """Train a network of `thawed.network` in place; see `tune`."""
    counted, depth = what_learns(recipe, thawed, network)
    trained = train(
        network,
        recipe,
        *feeds,
        phase=phase,
        after=after,
        depth=depth,
        context=context,
        again=again,
    )
    val, share = feeds[1], again.wise if again else 1.0
    if again and recipe.wise:
        _average(network, trained.start, network.learned(), share)
    elif recipe.wise and len(val.ids):
        share = _wise(network, recipe, trained, val)
    if recipe.lora:
        merge_adapters(network)
    return Learned(trained, counted, share)


def at_rest(network: Network, thawed: ThawedBackbone) -> None:
    """Leave a network that was tuned, and its backbone, as they predict: on the CPU, frozen."""
    network.cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    thawed.backbone.module.eval().requires_grad_(False)


def what_learns(
    recipe: FineTune, thawed: ThawedBackbone, network: Network
) -> tuple[Count, dict[str, int]]:
    """Return what learns, and its depth; for LoRA, put adapters into the network."""
    module, depth = thawed.backbone.module, thawed.depth()
    if not recipe.lora:
        return count(module, network), depth
    whole = parameters_of(module)
    add_adapters(network, recipe.lora, recipe.lora_alpha, recipe.seed)
    return count_with_adapters(network, whole), depth_with_adapters(network, depth)


Weights = dict[str, torch.Tensor]


def _average(network: Network, start: Weights, end: Weights, share: float) -> None:
    """Load the weights at this share of the way from the start of training to its end."""
    network.load({n: torch.lerp(start[n].float(), end[n].float(), share) for n in end})


def _wise(network: Network, recipe: FineTune, trained: Trained, val: Feed) -> float:
    """Load the weights between start and end that are best on validation; return their share.

    Wortsman et al. 2022, Robust fine-tuning of zero-shot models, eq. 1; ties go to the smaller
    loss.
    """
    end = {name: t.clone() for name, t in network.learned().items()}
    own = judging_arithmetic(next(network.parameters()).device, trained.arithmetic)

    def merit(share: float) -> tuple[float, float]:
        _average(network, trained.start, end, share)
        loss, accuracy = judge(network, val, judging_attack(recipe), own)
        return accuracy or 0.0, -(loss or 0.0)

    best = max((float(share) for share in LINE), key=merit)
    _average(network, trained.start, end, best)
    return best
