"""A learning-rate range test: the losses of single steps at rising rates.

Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3; the rates rise by a
constant factor. The steps start from stored activations, as training does.
"""

import math
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.base.context import RunContext
from headstart.base.errors import SpecError
from headstart.base.notebook import text_table
from headstart.base.runtime import ON_CPU, torch_threads
from headstart.base.values import Record, later
from headstart.data.dataset import LeftOut
from headstart.data.splits import Splits
from headstart.heads.specs import LinearSpec, TrainedSpec
from headstart.models.finetuning import thaw, what_learns
from headstart.models.fitting import fit_phase
from headstart.models.specs import TwoPhaseSpec
from headstart.models.training_data import Start, TrainingData, prepare, with_tap
from headstart.training.feeds import Feed, Stored
from headstart.training.loop import losses_at
from headstart.training.network import Network, head_module, new_head, tied
from headstart.training.plan import Plan, head_plan

LOWEST, HIGHEST = 1e-7, 10.0
STEPS = 100
KEPT = 0.9  # share of the mean so far in the smoothed loss
DIVERGED = 4.0  # times the loss at the lowest rates, at which the test ends;
LEAST = 0.25  # or this loss, if a fitted head has almost none
FIRST = 20  # steps at rates too low to learn, whose losses show the noise
SURE = 3.0  # standard errors that the loss must fall by
LEAST_FALL = 1e-3  # of the loss: a fitted head that has almost none left shows nothing
MARGIN = 10.0  # the rate of the lowest loss over the suggested one
SHOWN = 15  # lines of the table
BAR = 40  # characters of the longest bar


@dataclass(frozen=True, repr=False)
class RateTest(Record):
    """The losses of single steps of training at rising learning rates.

    setting: that the rate is of, "lr" or "head_lr". rates, losses: of each step; losses are means
    over the batch, before the step. usual: the rate that training would use now. left_out: files
    of the data that were not used.

    >>> hs.train("photos", lr_find=True).suggested  # doctest: +SKIP
    0.00032
    """

    setting: str
    usual: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    left_out: tuple[LeftOut, ...] = field(default=(), metadata=later())

    @property
    def smooth(self) -> NDArray[np.float64]:
        """(S,) the losses' running means, each step weighted by 0.9 of the step after it."""
        mean, found = 0.0, list[float]()
        for step, loss in enumerate(self.losses, start=1):
            mean = KEPT * mean + (1 - KEPT) * loss
            found.append(mean / (1 - KEPT**step))
        return np.array(found)

    @property
    def suggested(self) -> float | None:
        """A tenth of the rate at which the loss is lowest; None if it falls no further than noise.

        Two significant digits.
        """
        smooth, first = self.smooth, np.array(self.losses[:FIRST])
        if len(smooth) <= FIRST:
            return None
        error = first.std() * math.sqrt((1 - KEPT) / (1 + KEPT) + 1 / FIRST)
        lowest = int(smooth[FIRST:].argmin()) + FIRST
        if first.mean() - smooth[lowest] <= max(SURE * error, LEAST_FALL):
            return None
        return float(f"{self.rates[lowest] / MARGIN:.2g}")

    @property
    def verdict(self) -> str:
        """The suggestion as a sentence."""
        flag = f"--{self.setting.replace('_', '-')}"
        if (rate := self.suggested) is None:
            return (
                f"No rate is suggested: within a pass the loss does not fall by more than its "
                f"noise. Leave {flag} out ({self.usual:.2g})."
            )
        return (
            f"Suggested: {flag} {rate:g}, a tenth of the rate with the lowest loss; without it "
            f"training would take {self.usual:.2g}."
        )

    def table(self) -> list[tuple[str, ...]]:
        """Return rows to print: the rate, the smoothed loss, and a bar of its length."""
        smooth = self.smooth
        chosen = np.unique(np.linspace(0, len(smooth) - 1, SHOWN).round().astype(int))
        shown = smooth[chosen]
        top = min(float(shown.max()), 2 * float(shown[0]))  # one that diverges hides no valley
        unit = BAR / top if top > 0 else 0.0
        bars = ["#" * round(unit * min(max(value, 0.0), top)) for value in shown.tolist()]
        lines = zip(chosen.tolist(), shown.tolist(), bars, strict=True)
        rows = [(f"{self.rates[i]:.1e}", f"{loss:.4g}", bar) for i, loss, bar in lines]
        return [("rate", "loss", ""), *rows]

    def __repr__(self) -> str:
        return f"{text_table(self.table())}\n{self.verdict}"


@dataclass(frozen=True, eq=False)
class LearningPhase:
    """A network, how it would learn, and from which rows. setting: the rate's name."""

    setting: str
    network: Network
    plan: Plan
    rows: Feed
    depth: dict[str, int] | None = None


def rate_test(
    spec: TwoPhaseSpec,
    backbone: Backbone | Frozen,
    splits: Splits,
    context: RunContext,
    *,
    scratch: bool = False,
) -> RateTest:
    """Test the rates of fine-tuning; without it those of the head, which is trained by epochs.

    scratch: test those of training the whole, untrained network. Only features and activations are
    kept, in the store. Raises SpecError if nothing is thawed.
    """
    spec = replace(spec, head=spec.head.for_target(splits.train.target, context.listener))
    if scratch:
        phase = _scratch(spec, backbone, splits, context)
    elif spec.finetune is not None:
        phase = _tuning(spec, backbone, splits, context)
    else:
        phase = _head(spec, backbone, splits, context)
    return tested(phase, context)


def tested(phase: LearningPhase, context: RunContext) -> RateTest:
    """Take a step at each rate, until the loss is far above that at the lowest rates."""
    if phase.setting == "head_lr":
        context = replace(context, runtime=ON_CPU.resolved())
    rates, losses = np.geomspace(LOWEST, HIGHEST, STEPS).tolist(), list[float]()
    steps = losses_at(
        rates, phase.network, phase.plan, phase.rows, context=context, depth=phase.depth
    )
    with torch_threads(context.runtime.threads), closing(steps):
        for loss in steps:
            losses.append(loss)
            context.listener.progress("rates", len(losses), STEPS)
            base = max(float(np.mean(losses[:FIRST])), LEAST)
            if len(losses) > FIRST and loss > DIVERGED * base:
                break
    return RateTest(phase.setting, phase.plan.lr, tuple(rates[: len(losses)]), tuple(losses))


def _tuning(
    spec: TwoPhaseSpec, backbone: Backbone | Frozen, splits: Splits, context: RunContext
) -> LearningPhase:
    """Return the second phase, which starts from a head fitted as in training."""
    start = with_tap(prepare(spec, backbone), splits, spec.views, context)
    settings, thawed = start.settings, start.thawed
    if settings is None or thawed is None:
        raise SpecError("Fine-tuning is of thawed layers, and none is thawed: name --thaw.")
    data = TrainingData(start, splits, spec.views, context)
    val = data.plain(data.splits.val)
    tables = data.train(spec.head.seed, cut=spec.same_views), val
    model = fit_phase(spec.head, data, tables).model
    if not spec.same_views:
        tables = data.train(settings.seed, cut=True), val
    rows, _ = data.for_tuning(tables)
    module = tied(head_module(model.head, settings.dropout), model.target)
    network = thawed.network(module, settings.norms)
    _, depth = what_learns(settings, thawed, network)
    return LearningPhase("lr", network, settings, rows, depth)


def _head(
    spec: TwoPhaseSpec, backbone: Backbone | Frozen, splits: Splits, context: RunContext
) -> LearningPhase:
    """Return the first phase of a head that is trained by epochs."""
    own = spec.head.head
    assert isinstance(own, TrainedSpec), "a solved head has no rate"
    data = TrainingData(prepare(spec, backbone), splits, spec.views, context)
    tables = data.train(spec.head.seed, cut=False)
    rows = data.new_features(spec.head) or Stored(tables, cut=False, seed=spec.head.seed)
    dim, seed = data.start.backbone.card.dim, spec.head.seed
    module = tied(new_head(own, dim, rows.target.outputs, seed), rows.target)
    return LearningPhase("head_lr", Network(nn.Identity(), module, ()), head_plan(own, seed), rows)


def _scratch(
    spec: TwoPhaseSpec, backbone: Backbone | Frozen, splits: Splits, context: RunContext
) -> LearningPhase:
    """Return the only phase of training from scratch."""
    assert isinstance(backbone, Backbone)
    assert spec.finetune is not None
    settings = spec.finetune.from_scratch(spec.head.head_lr)
    thawed, own = thaw(backbone, "all", whole=True), spec.head.head
    data = TrainingData(Start(backbone, settings, thawed), splits, spec.views, context)
    layers = own if isinstance(own, TrainedSpec) else LinearSpec(dropout=settings.dropout)
    rows, _ = data.for_tuning()
    new = new_head(layers, backbone.card.dim, rows.target.outputs, settings.seed)
    network = thawed.network(tied(new, rows.target), settings.norms)
    return LearningPhase("lr", network, settings, rows)
