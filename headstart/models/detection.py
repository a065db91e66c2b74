"""Train what finds boxes: a head on stored activations of three strides, shipped as one network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.views import FollowedViews, Views, ViewSpec
from headstart.base.context import RunContext
from headstart.base.errors import Mismatch, SpecError
from headstart.base.runtime import Stopwatch
from headstart.data.content import read_checked
from headstart.data.dataset import CheckedFile, Dataset
from headstart.data.splits import Splits
from headstart.features.extract import FeatureTable, Tap, all_there, extract, extract_views
from headstart.heads.given import GivenHead
from headstart.modalities.images.box_views import followed
from headstart.modalities.images.letterbox import LetterboxInput
from headstart.models.model import Model
from headstart.models.results import Candidate, Candidates, FitResult
from headstart.models.specs import FineTune
from headstart.models.training_data import Start, disk_room, size_text
from headstart.models.wording import extracted
from headstart.targets.box_values import BoxLabels, ExampleBoxes
from headstart.targets.boxes import ROW, BoxesTarget
from headstart.training.plan import Plan

if TYPE_CHECKING:
    from headstart.backbones.strides import Levels
    from headstart.training.box_head import BoxHead

NAME = "detector"  # of the candidate
# Settings that the user names replace these. The last weights, since those of the lowest loss on
# validation had a lower average precision, in each of three trainings on made pictures.
USUAL = Plan(
    epochs=24,
    batch_size=8,
    lr=2e-3,
    warmup=0.05,
    weight_decay=1e-4,
    ema=0.99,
    clip=10.0,
    keep="last",
)
STANDARDISED = 64  # examples by which activations are standardised


@dataclass(frozen=True, eq=False)
class Finding:
    """What training on boxes begins with: the levels of a backbone, and its settings."""

    levels: "Levels"
    plan: Plan
    views: FollowedViews


def settled(asked: FineTune, given: Sequence[str]) -> FineTune:
    """Return the settings of training with the usual ones for boxes in place of those that nobody
    named: that are not in `given` and as in any `FineTune`.

    Settings with a learning rate that is not in `given` come from a recipe, and stay as they are.
    """
    default, usual = FineTune(), vars(USUAL)
    recorded = asked.lr > 0 and "lr" not in given
    free = [n for n in usual if n not in given and getattr(asked, n) == getattr(default, n)]
    free = [] if recorded else free
    free += ["lr"] if not asked.lr and "lr" not in free else []
    free = [n for n in free if n != "ema" or not asked.average_last]
    for name in ("mixup", "adversarial", "label_smoothing"):
        if getattr(asked, name):
            raise SpecError(
                f"{name.replace('_', ' ').capitalize()} changes the label of a whole picture, and "
                f"boxes have places: leave it out."
            )
    return replace(asked, **{name: usual[name] for name in free})


def plan_of(settings: FineTune) -> Plan:
    """Return the phase of settings that are `settled`."""
    return Plan(**{f.name: getattr(settings, f.name) for f in fields(Plan)})


def begin(
    backbone: Backbone, data: Dataset, size: int, settings: FineTune, views: ViewSpec
) -> Start:
    """Return the start of training: the backbone for padded pictures, whose levels are kept.

    size: of the longer side of what the network is given; 0 for the usual one. Raises SpecError for
    a backbone without the strides.
    """
    from headstart.backbones.strides import levels_of

    y, card = data.y, backbone.card
    assert isinstance(y, BoxLabels)
    own = replace(backbone, card=replace(card, input=card.input.finding(y.sizes, size)))
    levels = levels_of(own)
    tap = Tap(f"levels {levels.name}", (levels.size,), levels.both, "float16")
    return Start(own, tap=tap, finding=Finding(levels, plan_of(settings), followed(views)))


def tell_room(start: Start, rows: int, context: RunContext) -> None:
    """Say how much the activations of so many rows and their views take; SpecError for want of
    room."""
    assert start.tap is not None
    finding: Finding = start.finding
    kept = rows * (1 + (finding.views.views if finding.views.active else 0))
    size = kept * start.tap.row_bytes
    context.listener.stage(
        "cut", f"keeping up to {size_text(size)} of activations at strides 8, 16 and 32, float16"
    )
    if not disk_room(size, context.store):
        raise SpecError(
            f"{size_text(size)} of activations do not fit the store's disk. Name another --store, "
            f"a smaller --size, or fewer --views."
        )


def fit_boxes(start: Start, splits: Splits, context: RunContext) -> Candidates:
    """Train a head on the stored activations of the training rows and their views.

    start: of `begin`, with the table of all rows.
    """
    import torch

    from headstart.training.box_feed import PlacedRows
    from headstart.training.box_head import BoxHead
    from headstart.training.loop import train
    from headstart.training.network import Network, count

    finding: Finding = start.finding
    backbone, clock = start.backbone, Stopwatch()
    assert isinstance(backbone, Backbone)
    assert isinstance(backbone.card.input, LetterboxInput)
    assert start.table is not None
    canvas = backbone.card.input.width, backbone.card.input.height
    counted = replace(splits, train=splits.train.counted())
    target = counted.train.target.fitted(counted.train.y)
    assert isinstance(target, BoxesTarget)
    target = replace(target, canvas=canvas)
    placed = _Placed(backbone.card.input, target)
    views = Views(finding.views, finding.plan.seed)
    with clock("views"):
        tables = _views(start, counted.train, views, context)
    moved = placed.views(counted.train, views, finding.views) if finding.views.active else ()
    rows = PlacedRows(
        tuple(placed.table(t, counted.train) for t in tables),
        cut=True,
        seed=finding.plan.seed,
        moved=moved,
    )
    val = PlacedRows((placed.table(start.table.of(splits.val), splits.val),), cut=True)
    head = BoxHead(finding.levels.shapes, len(target.names), finding.plan.seed)
    with clock("head"):
        some = np.arange(min(len(rows.ids), STANDARDISED))
        stored = rows.batch(some, 0)
        assert isinstance(stored, torch.Tensor)
        head.standardise(stored)
        network = Network(torch.nn.Identity(), head, ())
        trained = train(
            network,
            finding.plan,
            rows,
            val,
            context=_checkpoints(start, splits, context),
            phase=NAME,
        )
    with clock("export"):
        head = head.cpu().eval()
        frozen = detector(backbone, finding.levels, head)
    learned = count(backbone.module, network)
    model = Model(frozen, GivenHead(frozen.card.dim), replace(target, thresholds=()))
    table = extract(frozen, splits.val, store=context.store, runtime=context.runtime)
    model = replace(model, target=_decided(model, table))
    chosen = {"epoch": trained.chosen, "stopped": trained.stopped}
    fitted = FitResult(model, chosen, (), trained.history, learned)
    made = {NAME: Candidate(fitted, table)}
    return Candidates(made, NAME, clock.seconds, (*tables[:1], table) if moved else (table,))


def _decided(model: Model, table: FeatureTable) -> Any:
    """Return the target with its thresholds, chosen on the validation rows."""
    target = model.target
    assert isinstance(target, BoxesTarget)
    y = target.translate(table.y, table.target)
    known = np.flatnonzero(target.known(y))
    answers = target.activate(model.head.raw(table.x[known]))
    return target.decided(answers, y[known])


def _views(
    start: Start, data: Dataset, views: Views, context: RunContext
) -> tuple[FeatureTable, ...]:
    assert start.table is not None
    if not views.spec.active:
        return (start.table.of(data),)
    tables = extract_views(start.backbone, data, views, context, start.tap)
    first = all_there(tables[0]) if data.contents else tables[0]
    context.listener.stage("views", extracted(first, views.count, data.noun))
    return (first, *tables[1:])


def _checkpoints(start: Start, splits: Splits, context: RunContext) -> RunContext:
    """Return the context whose checkpoint is that of these rows, settings and activations."""
    if context.checkpoints.path is None:
        return context
    finding: Finding = start.finding
    assert start.tap is not None
    assert start.table is not None
    rows = [
        (p.ids, p.target.decode(p.y), [content.file for content in p.contents])
        for p in (splits.train, splits.val)
    ]
    made = start.table.made_by, start.tap.name, repr(finding.plan), repr(finding.views)
    own = context.checkpoints.of(NAME, start.backbone.fingerprint(), rows, list(made))
    return replace(context, checkpoints=own)


@dataclass(frozen=True, eq=False)
class _Placed:
    """Puts the boxes of upright pictures where the prepared pictures have them."""

    input: LetterboxInput
    target: BoxesTarget

    def example(self, own: ExampleBoxes) -> ExampleBoxes:
        if not len(own):
            return own
        corners = self.input.placing(*own.size).into(own.corners)
        return replace(own, corners=corners)

    def labels(self, y: BoxLabels) -> BoxLabels:
        return BoxLabels.of([self.example(y[i]) if y.known[i] else None for i in range(len(y))])

    def table(self, table: FeatureTable, data: Dataset) -> FeatureTable:
        return replace(table, y=self.labels(data.y), target=self.target)

    def digest(self, file: CheckedFile) -> bytes:
        return bytes.fromhex(file.digest) if file.digest else read_checked(self.input, file)[1]

    def views(self, data: Dataset, views: Views, spec: FollowedViews) -> tuple[BoxLabels, ...]:
        """Return the labels of each stored view of the rows."""
        plain = self.labels(data.y)
        size = self.input.width, self.input.height
        files = [self.digest(file) for file in data.files]

        def moved(row: int, number: int) -> ExampleBoxes:
            own: ExampleBoxes = spec.moved(plain[row], views.seed_of(files[row], number), *size)
            return own

        rows = range(len(data))
        return tuple(BoxLabels.of([moved(r, n) for r in rows]) for n in range(views.count))


def detector(backbone: Backbone, levels: "Levels", head: "BoxHead") -> Frozen:
    """Return trunk, head and decoding as one graph, compared with PyTorch on a known picture."""
    import torch

    from headstart.backbones.entry import WholeNetwork, tensors
    from headstart.backbones.graph import freeze, named_columns
    from headstart.features.engines import OnnxEngine
    from headstart.training.box_head import Detector

    module = Detector(levels.trunk, head).eval()
    input = backbone.card.input
    assert isinstance(input, LetterboxInput)
    card = replace(
        backbone.card,
        architecture=f"{NAME}:{backbone.card.architecture}",
        dim=module.found * ROW,
        input=replace(input, answers=True),
        origin="fine-tuned",
        source_task="",
        source_classes=(),
    )
    own = Backbone(card, module, ())
    columns: Mapping[str, tuple[int, int]] = {"boxes": (0, 4), "scores": (4, 5), "classes": (5, 6)}
    frozen = named_columns(freeze(own), ROW, columns)
    known = card.input.golden()
    with torch.inference_mode():
        theirs = WholeNetwork(module, card.input)(*tensors(known)).numpy()
    check_same(OnnxEngine(frozen, 1)(known)[0], theirs)
    return frozen


def check_same(ours: Any, theirs: Any, least: float = 0.01, far: float = 0.01) -> None:
    """Raise Mismatch unless detections (N, K * 6) are the same, above a score of `least`.

    Those near `least` may be on either side of it. far: pixels.
    """
    for a, b in zip(ours, theirs, strict=True):
        for x, y in ((a, b), (b, a)):
            own, other = x.reshape(-1, ROW), y.reshape(-1, ROW)
            for row in own[(own[:, 5] >= 0) & (own[:, 4] > least)]:
                alike = other[(other[:, 5] == row[5]) & (abs(other[:, 4] - row[4]) < 1e-3)]
                if not len(alike) or abs(alike[:, :4] - row[:4]).max(axis=1).min() > far:
                    raise Mismatch(
                        f"The exported graph must find the boxes that PyTorch finds; of one at "
                        f"{row[:4].round(2).tolist()} there is no other. Please report it."
                    )
