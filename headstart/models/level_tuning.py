"""Fine-tuning below a head that reads activations of three strides, from the cut: the strides below
it come from the store, those above it are computed anew.
"""

import copy
from dataclasses import replace

from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import thawed_by
from headstart.backbones.strides import Levels, levels_cut, levels_of
from headstart.base.context import Precision
from headstart.base.errors import SpecError
from headstart.base.runtime import torch_threads
from headstart.features.extract import Tap
from headstart.models.finetuning import ThawedBackbone, at_rest, tune_network
from headstart.models.level_data import LevelData
from headstart.models.results import Candidate
from headstart.models.specs import FineTune
from headstart.models.training_data import Start, array_name
from headstart.models.wording import result_message
from headstart.training.box_head import BoxHead


def with_thawed(start: Start, asked: FineTune, head_lr: float) -> Start:
    """Return the start with a thawed copy of the backbone, and the request for what passes its cut.

    Blocks count from the deepest one that the levels depend on. Raises SpecError if no frozen layer
    is left below the thawed ones, or if nothing that the levels depend on is thawed.
    """
    backbone, levels = start.backbone, start.levels
    assert isinstance(backbone, Backbone)
    assert levels is not None
    names = _below(backbone, levels)
    blocks = tuple(b for b in backbone.blocks if names.intersection(b.parameters))
    whole = replace(backbone, module=copy.deepcopy(backbone.module), source_head=None)
    own = replace(whole, blocks=blocks)
    settings = asked.resolved(own, head_lr)
    named = thawed_by(own, settings.thaw, settings.thaw_from)
    thawed = tuple(name for name in named if name in names)
    cut = levels_cut(whole, thawed) if thawed else None
    if cut is None:
        raise SpecError(_no_cut(settings, blocks=len(blocks), any_thawed=bool(thawed)))
    precision: Precision = "float32" if settings.cut_precision == "float32" else "float16"
    return replace(
        start,
        settings=replace(settings, cut_precision=precision),
        thawed=ThawedBackbone(own, thawed, cut),
        tap=Tap(cut.name, cut.shape, cut.both, precision),
    )


def tune_levels(data: LevelData, head: BoxHead, after: int) -> Candidate:
    """Train the thawed layers and a copy of the head. after: epochs of the head."""
    settings, thawed = data.start.settings, data.start.thawed
    assert settings is not None
    assert thawed is not None
    module = head.learning()
    begun = [array_name(t.detach().numpy()) for t in module.state_dict().values()]
    context = data.phase("finetune", repr(settings), thawed.thawed, begun)
    with data.clock("fine-tuning"), torch_threads(context.runtime.threads):
        network = thawed.network(module, settings.norms)
        feeds = replace(data.train, seed=settings.seed), data.val
        learned = tune_network(settings, thawed, network, feeds, context=context, after=after)
        at_rest(network, thawed)
        trained = learned.trained
        by = "loss on validation" if settings.keep == "best" else "the last epoch"
        chosen = {"by": by} | ({"wise": learned.wise} if settings.wise else {})
        if trained.arithmetic != "float32":
            chosen["arithmetic"] = trained.arithmetic
        own = replace(thawed.backbone, blocks=data.backbone.blocks)
        made = data.candidate(own, levels_of(own), module, trained, learned.count, chosen)
    context.listener.stage("finetune", result_message(made.fitted))
    return made


def _below(backbone: Backbone, levels: Levels) -> set[str]:
    """Return the names of the parameters that the levels depend on."""
    used = {id(parameter) for parameter in levels.trunk.parameters()}
    return {name for name, p in backbone.module.named_parameters() if id(p) in used}


def _no_cut(settings: FineTune, *, blocks: int, any_thawed: bool) -> str:
    index = settings.thaw_from
    what = f"thaw={settings.thaw}" if index is None else f"thaw_from={index}"
    if any_thawed:
        return (
            f"Training on boxes starts from stored activations of frozen layers, and {what} leaves "
            f"none: name fewer of the {blocks} blocks, such as --thaw 2."
        )
    return (
        f"Boxes are found on activations up to stride 32, and {what} names only layers above "
        f"them: name some of the {blocks} blocks below, such as --thaw 2."
    )
