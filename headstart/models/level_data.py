"""The data of the phases of a head that reads activations of three strides."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.views import Views, ViewSpec
from headstart.base.context import RunContext
from headstart.base.errors import SpecError
from headstart.base.runtime import Stopwatch
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.features.extract import FeatureTable, all_there, extract, extract_views
from headstart.heads.given import GivenHead
from headstart.modalities.images.box_views import followed
from headstart.modalities.images.letterbox import LetterboxInput
from headstart.models.detector import detector
from headstart.models.model import Model
from headstart.models.placing import Placed
from headstart.models.results import Candidate, FitResult
from headstart.models.specs import TwoPhaseSpec
from headstart.models.training_data import Start, disk_room, size_text
from headstart.models.wording import extracted
from headstart.targets.boxes import BoxesTarget

if TYPE_CHECKING:
    from headstart.backbones.strides import Levels
    from headstart.training.box_feed import PlacedRows
    from headstart.training.box_head import BoxHead
    from headstart.training.history import Count
    from headstart.training.loop import Trained


def tell_room(start: Start, rows: int, views: ViewSpec, context: RunContext) -> None:
    """Report the size of the activations of so many rows and their views.

    Raises SpecError if they do not fit the store's disk.
    """
    assert start.tap is not None
    kept, tap = rows * (1 + (views.views if views.active else 0)), start.tap
    size, cut = kept * tap.row_bytes, tap.name.partition(" cut ")[2]
    where = "at strides 8, 16 and 32" + (f", and at the cut {cut}" if cut else "")
    context.listener.stage(
        "cut", f"keeping up to {size_text(size)} of activations {where}, {tap.precision}"
    )
    if not disk_room(size, context.store):
        raise SpecError(
            f"{size_text(size)} of activations do not fit the store's disk. Name another --store, "
            f"a smaller --size, or fewer --views."
        )


@dataclass(frozen=True, eq=False)
class LevelData:
    """What the phases learn from. target: with the canvas of the input. train, val: rows of stored
    activations. tables: all tables extracted here."""

    spec: TwoPhaseSpec
    start: Start
    splits: Splits
    context: RunContext
    target: BoxesTarget
    train: "PlacedRows"
    val: "PlacedRows"
    clock: Stopwatch
    tables: list[FeatureTable] = field(default_factory=list)

    @classmethod
    def of(
        cls, spec: TwoPhaseSpec, start: Start, splits: Splits, context: RunContext
    ) -> "LevelData":
        assert start.table is not None
        input, clock = start.backbone.card.input, Stopwatch()
        assert isinstance(input, LetterboxInput)
        splits = replace(splits, train=splits.train.counted())
        target = splits.train.target.fitted(splits.train.y)
        assert isinstance(target, BoxesTarget)
        target = replace(target, canvas=(input.width, input.height))
        views = Views(followed(spec.views), spec.head.seed)
        with clock("views"):
            tables = _views(start, splits.train, views, context)
        placed = Placed(input, target)
        train = placed.rows(tables, splits.train, views, spec.head.seed)
        val = placed.rows((start.table.of(splits.val),), splits.val, Views())
        new = list(tables[1:2])
        return cls(spec, start, splits, context, target, train, val, clock, new)

    @property
    def backbone(self) -> Backbone:
        assert isinstance(self.start.backbone, Backbone)
        return self.start.backbone

    @property
    def levels(self) -> "Levels":
        assert self.start.levels is not None
        return self.start.levels

    def phase(self, name: str, *decisive: object) -> RunContext:
        """Return the context whose checkpoint is that of these rows, settings and activations."""
        if self.context.checkpoints.path is None:
            return self.context
        assert self.start.tap is not None
        assert self.start.table is not None
        rows = [part.decisive for part in (self.splits.train, self.splits.val)]
        views = repr(followed(self.spec.views))
        made = [self.start.table.made_by, self.start.tap.name, views, *decisive]
        own = self.context.checkpoints.of(name, self.backbone.fingerprint(), rows, made)
        return replace(self.context, checkpoints=own)

    def candidate(
        self,
        backbone: Backbone,
        levels: "Levels",
        head: "BoxHead",
        trained: "Trained",
        count: "Count",
        chosen: Mapping[str, Any],
    ) -> Candidate:
        """Return what was trained as one network, with its features of the validation rows."""
        frozen = detector(backbone, levels, head)
        last = trained.history[-1].epoch
        given = GivenHead(frozen.card.dim)
        model = Model(frozen, given, replace(self.target, thresholds=()), epochs=last)
        store, runtime = self.context.store, self.context.runtime
        table = extract(frozen, self.splits.val, store=store, runtime=runtime)
        self.tables.append(table)
        model = replace(model, target=_decided(model, table))
        stopped = {"stopped_after": last} if trained.stopped else {}
        told = {**chosen, "epoch": trained.chosen, **stopped}
        return Candidate(FitResult(model, told, (), trained.history, count), table)


def _decided(model: Model, table: FeatureTable) -> Any:
    """Return the target with its thresholds, chosen on the validation rows."""
    target = model.target
    y = target.translate(table.y, table.target)
    known = np.flatnonzero(target.known(y))
    answers = target.activate(model.head.raw(table.x[known]))
    return target.decided(answers, y[known])


def _views(
    start: Start, data: Dataset, views: Views, context: RunContext
) -> tuple[FeatureTable, ...]:
    """Return the table of the rows themselves, then one per view.

    With views alone, crops would make the boxes larger on average than in pictures to predict.
    """
    assert start.table is not None
    plain = start.table.of(data)
    if not views.spec.active:
        return (plain,)
    tables = extract_views(start.backbone, data, views, context, start.tap)
    first = all_there(tables[0]) if data.contents else tables[0]
    context.listener.stage("views", extracted(first, views.count, data.noun))
    return (plain, first, *tables[1:])
