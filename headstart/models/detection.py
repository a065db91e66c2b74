"""The phases of a head that reads activations of three strides, such as one that finds boxes: the
head on stored activations, then the upper layers; the better is shipped as one network.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.base.context import RunContext
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.features.extract import Tap
from headstart.heads.specs import PyramidSpec
from headstart.modalities.images.box_views import followed
from headstart.modalities.sources import reopened
from headstart.models.level_data import LevelData, tell_room
from headstart.models.results import Candidate, Candidates, worth_keeping
from headstart.models.specs import TwoPhaseSpec
from headstart.models.training_data import Start, table_of
from headstart.models.wording import result_message
from headstart.targets.box_values import BoxLabels
from headstart.training.plan import pyramid_plan

if TYPE_CHECKING:
    from headstart.training.box_head import BoxHead

STANDARDISED = 64  # examples by which activations are standardised


def begin(spec: TwoPhaseSpec, backbone: Backbone | Frozen, data: Dataset) -> Start:
    """Return the start of training: the backbone for padded pictures, whose levels are kept.

    data: its pictures decide the proportions of the input. Raises SpecError for a backbone without
    the strides, and for views that boxes can't follow.
    """
    from headstart.backbones.strides import levels_of

    followed(spec.views)
    network = reopened(backbone) if isinstance(backbone, Frozen) else backbone
    y, card = data.y, network.card
    assert isinstance(y, BoxLabels)
    own = replace(network, card=replace(card, input=card.input.finding(y.sizes, spec.head.size)))
    levels = levels_of(own)
    tap = Tap(f"levels {levels.name}", (levels.size,), levels.both, "float16")
    start = Start(own, tap=tap, levels=levels)
    if spec.finetune is None:
        return start
    from headstart.models.level_tuning import with_thawed

    return with_thawed(start, spec.finetune, spec.head.head_lr)


def phases_on_levels(
    spec: TwoPhaseSpec,
    backbone: Backbone | Frozen,
    splits: Splits,
    context: RunContext,
    start: Start | None = None,
) -> Candidates:
    """Train a head on activations of training rows and their views; see `fitting.two_phases`.

    start: of `begin`, with the table of all rows.
    """
    rows = splits.train_val
    start = start or begin(spec, backbone, rows)
    if start.table is None:
        tell_room(start, len(rows), spec.views, context)
        start = replace(start, table=table_of(start.backbone, rows, context, start.tap))
    data = LevelData.of(spec, start, splits, context)
    head, made = fit_head(data)
    if start.thawed is not None:
        from headstart.models.level_tuning import tune_levels

        made["finetune"] = tune_levels(data, head, made["head"].fitted.model.epochs)
    kept = spec.keep if spec.keep in made else worth_keeping(made)
    return Candidates(made, kept, data.clock.seconds, tuple(data.tables))


def fit_head(data: LevelData) -> "tuple[BoxHead, dict[str, Candidate]]":
    """Train the head on stored activations; return it, too, for the second phase to begin with."""
    import torch

    from headstart.training.box_head import BoxHead, Leading
    from headstart.training.loop import train
    from headstart.training.network import Network, count

    spec, seed = data.spec.head.head, data.spec.head.seed
    assert isinstance(spec, PyramidSpec)
    plan = pyramid_plan(spec, seed)
    head = BoxHead(data.levels.shapes, len(data.target.names), seed)
    with data.clock("head"):
        some = np.arange(min(len(data.train.ids), STANDARDISED))
        stored = data.train.batch(some, 0)
        assert isinstance(stored, torch.Tensor)
        size = data.levels.size
        head.standardise(stored[:, :size])
        only = torch.nn.Identity() if stored.shape[1] == size else Leading(size)
        network = Network(only, head, ())
        context = data.phase("head", repr(plan))
        trained = train(network, plan, data.train, data.val, context=context, phase="head")
    with data.clock("export"):
        head = head.cpu().eval()
        learned = count(data.backbone.module, network)
        by = "loss on validation" if plan.keep == "best" else "the last epoch"
        chosen = {"head": spec.family, "by": by}
        made = data.candidate(data.backbone, data.levels, head, trained, learned, chosen)
    data.context.listener.stage("head", result_message(made.fitted))
    return head, {"head": made}
