"""From a recipe, a backbone and split data to a model: the head first, then the layers below it."""

import shutil
from collections.abc import Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import Cut
from headstart.backbones.inputs import Batch, length, only_array, rows_of
from headstart.backbones.views import PLAIN, Views
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import Mismatch, SpecError
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime, torch_threads
from headstart.base.store import USUAL, Store
from headstart.data.checks import refuse_reserved
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.features.engines import check_device, open_engine
from headstart.features.extract import FeatureTable, Tap, all_there, extract, extract_views
from headstart.heads.fit import fit_head
from headstart.heads.head import Rows, Table
from headstart.modalities.images.augment import Augment
from headstart.modalities.sources import load_backbone
from headstart.models.finetuning import Opened, Tuned, open_up, tune
from headstart.models.limits import Limits
from headstart.models.model import Model
from headstart.models.specs import FeatureExtraction, FineTune
from headstart.targets.metrics import accuracy, log_loss
from headstart.training.feeds import Feed, Fresh, Stored
from headstart.training.head_training import train_head
from headstart.training.history import Epoch
from headstart.training.loop import NOTHING, Figures, Trained
from headstart.training.network import Count, new_head

SOLVED = 1  # epochs that a head which is solved, not trained, counts for
SPARE = 0.9  # of the free disk that may be filled


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model; what was chosen on validation, and what else was tried there; the line an epoch of
    its history; and how many numbers it trained."""

    model: Model
    chosen: dict[str, Any]
    path: tuple[dict[str, Any], ...]
    history: tuple[Epoch, ...]
    count: Count


def fit(
    recipe: FeatureExtraction | FineTune,
    start: str | Backbone | Model,
    data: Splits,
    *,
    augment: Augment | None = None,
    store: Store | None = USUAL,
    runtime: Runtime | None = None,
    listener: Listener | None = None,
) -> Model:
    """A model on `data.train`, everything chosen on `data.val`; `data.test` is not touched.

    FeatureExtraction starts from a backbone (or its name), FineTune from a fitted model.
    Raises SpecError for the one given to the other, DataError for a class named "unknown" or "?".
    """
    refuse_reserved(data.train.classes)
    check_device(runtime or Runtime())
    context = RunContext(store, (runtime or Runtime()).resolved(), listener or Listener())
    with torch_threads(context.runtime.threads):
        return _fit(recipe, start, data, augment or Augment(), context)


def _fit(
    recipe: FeatureExtraction | FineTune,
    start: str | Backbone | Model,
    data: Splits,
    augment: Augment,
    context: RunContext,
) -> Model:
    if isinstance(recipe, FineTune):
        if not isinstance(start, Model) or not isinstance(start.backbone, Backbone):
            raise SpecError(
                "Fine-tuning goes on from a model with a fitted head, in PyTorch: fit one with "
                "FeatureExtraction first, and give fit() that model."
            )
        return _tuned_model(recipe, start, start.backbone, data, augment, context)
    if isinstance(start, Model):
        raise SpecError("FeatureExtraction starts from a backbone; give fit() model.backbone.")
    prepared = recipe.prepared(load_backbone(start) if isinstance(start, str) else start)
    train, val = (table_of(prepared, part, context) for part in (data.train, data.val))
    rows = train_tables(prepared, data.train, augment, recipe.seed, context, plain=train)
    fresh = fresh_features(recipe, prepared, data.train, augment, context)
    return fit_tables(recipe, prepared, rows, val, context=context, fresh=fresh).model


def fit_tables(
    recipe: FeatureExtraction,
    backbone: Backbone,
    rows: tuple[FeatureTable, ...],
    val: FeatureTable,
    *,
    context: RunContext = IN_MEMORY,
    fresh: Feed | None = None,
) -> Fitted:
    """The head that `recipe` asks for, on features of a backbone prepared for it.

    rows: a table a view. fresh: instead, where a head trained by epochs gets its features from.
    """
    train = rows[0]
    majority, frozen = _majority(train), _frozen_numbers(backbone)
    if recipe.by_epochs:
        feed = fresh or Stored(rows, cut=False, seed=recipe.seed)
        found = train_head(
            recipe,
            feed,
            Stored((val,), cut=False),
            backbone.card.dim,
            context=context,
        )
        last = found.trained.history[-1].epoch
        model = Model(
            backbone, found.head, train.classes, majority, head_lr=recipe.head_lr, epochs=last
        )
        by = _kept(recipe.head_keep, val)
        chosen = {"head": recipe.head, "epoch": found.trained.chosen, "by": by}
        chosen |= _stop_of(found.trained)
        count = Count(found.head.parameters, found.tensors, *frozen)
        return Fitted(model, chosen, (), found.trained.history, count)
    judged = stacked(rows if len(val) else rows[:1])  # folds may not part the views of a picture
    solved = fit_head(recipe, judged, val)
    model = Model(
        backbone, solved.head, train.classes, majority, head_lr=recipe.head_lr, epochs=SOLVED
    )
    count = Count(solved.head.parameters, len(solved.head.tensors()), *frozen)
    history = (_solved_line(model, judged, val),)
    return Fitted(model, solved.chosen, solved.path, history, count)


def fine_tune(
    recipe: FineTune,
    opened: Opened,
    start: Fitted,
    rows: Feed,
    val: Feed,
    *,
    context: RunContext = IN_MEMORY,
) -> Fitted:
    """The second phase, on from the head of `start`; its epochs are numbered on."""
    tuned = tune(
        recipe,
        opened,
        start.model.head,
        rows,
        val,
        after=start.model.epochs,
        context=context,
    )
    return _fitted(tuned, start.model, recipe, val.ids)


def fit_from_scratch(
    spec: FeatureExtraction,
    recipe: FineTune,
    backbone: Backbone,
    data: Splits,
    augment: Augment,
    context: RunContext,
    phase: str = "scratch",
) -> Fitted:
    """The whole of an untrained backbone and a new head, from pixels."""
    opened = open_up(backbone, "all", whole=True)
    whole = recipe.from_scratch(spec.head_lr)
    head = new_head(spec, backbone.card.dim, len(data.train.classes), recipe.seed)
    views, count = Views(augment, recipe.seed), augment.views if augment.active else 1
    rows = pixel_feed(opened.backbone, data.train, views, count, context)
    val = pixel_feed(opened.backbone, data.val, PLAIN, 1, context)
    tuned = tune(
        whole,
        opened,
        head,
        rows,
        val,
        phase=phase,
        context=context,
    )
    model = Model(tuned.backbone, tuned.head, data.train.classes, _majority(data.train))
    return _fitted(tuned, model, whole, data.val)


def table_of(
    backbone: Backbone, data: Dataset, context: RunContext, tap: Tap | None = None
) -> FeatureTable:
    """Features of all rows if they were checked, or else of those that can be read."""
    table = extract(
        backbone,
        data,
        store=context.store,
        runtime=context.runtime,
        listener=context.listener,
        tap=tap,
    )
    return all_there(table) if data.contents else table


def train_tables(
    backbone: Backbone,
    data: Dataset,
    augment: Augment,
    seed: int,
    context: RunContext,
    *,
    tap: Tap | None = None,
    plain: FeatureTable | None = None,
) -> tuple[FeatureTable, ...]:
    """A table a stored view; the plain one alone if nothing is augmented, or nothing is stored."""
    if not augment.active or not augment.views:
        return (plain or table_of(backbone, data, context, tap),)
    tables = extract_views(
        backbone,
        data,
        Views(augment, seed),
        augment.views,
        context,
        tap,
    )
    return (all_there(tables[0]), *tables[1:]) if data.contents else tables


def engine_feed(
    backbone: Backbone,
    cut: Cut | None,
    data: Dataset,
    views: Views,
    count: int,
    context: RunContext,
) -> Fresh:
    """What crosses the cut, or the features if there is none, computed whenever it is wanted."""
    frozen_part = replace(backbone, module=cut.trunk) if cut else backbone  # never what learns
    engine = open_engine(frozen_part, context.runtime)

    def frozen(batch: Batch) -> NDArray[np.generic]:
        size = engine.batch
        parts = (rows_of(batch, slice(i, i + size)) for i in range(0, length(batch), size))
        return np.concatenate([engine(part)[0] for part in parts])

    input, threads = backbone.card.input, context.runtime.decode_threads
    return Fresh(data, input, frozen, views, count, threads)


def fresh_features(
    recipe: FeatureExtraction,
    backbone: Backbone,
    data: Dataset,
    augment: Augment,
    context: RunContext,
) -> Fresh | None:
    """Features of new views every epoch, for a head trained by epochs, if that is asked for."""
    if not (recipe.by_epochs and augment.active and not augment.views):
        return None
    return engine_feed(backbone, None, data, Views(augment, recipe.seed), 0, context)


def pixel_feed(
    backbone: Backbone, data: Dataset, views: Views, count: int, context: RunContext
) -> Feed:
    """Examples for a network that is trained from its first layer on."""
    input, threads = backbone.card.input, context.runtime.decode_threads
    return Fresh(data, input, only_array, views, count, threads)


def tap_for(
    recipe: FineTune, opened: Opened, rows: int, augment: Augment, context: RunContext
) -> Tap | None:
    """What to keep at the cut of so many plain rows and their views; tells the disk it takes.

    None if nothing can be kept: no cut, new views every epoch, or too little room on the disk;
    then whatever is frozen runs again every epoch, which is said too.
    """
    say = context.listener.stage
    if opened.cut is None:
        say("cut", _whole_said(recipe))
    if opened.cut is None or (augment.active and not augment.views):
        return None
    kept = rows * (1 + (augment.views if augment.active else 0))
    tap = opened.tap(kept, recipe.cut_precision)
    if _fits(kept * tap.row_bytes, context.store):
        say("cut", f"keeping {_size(kept * tap.row_bytes)} at the cut {tap.name}, {tap.precision}")
        return tap
    if recipe.cut_precision == "auto":
        tap = replace(tap, precision="float16")
        if _fits(kept * tap.row_bytes, context.store):
            say("cut", f"keeping {_size(kept * tap.row_bytes)} at the cut: half, for want of room")
            return tap
    say(
        "cut",
        f"{_size(kept * tap.row_bytes)} at the cut do not fit the store's disk: the frozen layers "
        f"run again every epoch instead, which is slower and gives the same",
    )
    return None


def _whole_said(recipe: FineTune) -> str:
    if not recipe.adversarial:
        return "no frozen layers before the first thawed one: all of it runs"
    return (
        f"pixels change in every step, so nothing can be kept at a cut: all of it runs, there and "
        f"back {recipe.adversarial_steps + 1} times a step, which takes that much longer"
    )


def _fits(size: int, store: Store | None) -> bool:
    """Whether the store's disk has room for so many bytes; without a store memory has to do."""
    if store is None:
        return True
    folder = next(p for p in (store.folder, *store.folder.absolute().parents) if p.exists())
    return size <= SPARE * shutil.disk_usage(folder).free


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def stacked(tables: tuple[FeatureTable, ...]) -> Rows:
    """The rows of all views, one under the other."""
    first = tables[0]
    return Rows(
        np.concatenate([t.x for t in tables]), np.concatenate([t.y for t in tables]), first.classes
    )


def feeds(
    opened: Opened,
    data: Splits,
    augment: Augment,
    seed: int,
    context: RunContext,
    tap: Tap | None,
    table: FeatureTable | None = None,
) -> tuple[Feed, Feed]:
    """Training and validation rows for fine-tuning: from the cut, or from pixels.

    table: plain features of all rows, extracted with this tap, if they are there already.
    """
    views, count = Views(augment, seed), augment.views if augment.active else 1
    backbone = opened.backbone
    if opened.cut is None:
        train = pixel_feed(backbone, data.train, views, count, context)
        return train, pixel_feed(backbone, data.val, PLAIN, 1, context)
    if tap is None:
        fresh = engine_feed(backbone, opened.cut, data.train, views, count, context)
        return fresh, replace(fresh, data=data.val, views=PLAIN, count=1)
    plain = None if table is None else table.of(data.train)
    val = table_of(backbone, data.val, context, tap) if table is None else table.of(data.val)
    tables = train_tables(backbone, data.train, augment, seed, context, tap=tap, plain=plain)
    return Stored(tables, cut=True, seed=seed), Stored((val,), cut=True)


def _tuned_model(
    recipe: FineTune,
    start: Model,
    backbone: Backbone,
    data: Splits,
    augment: Augment,
    context: RunContext,
) -> Model:
    if start.classes != data.train.classes:
        raise Mismatch(
            f"A model goes on learning the classes that it knows, in their order: "
            f"{', '.join(start.classes)}; the data has {', '.join(data.train.classes)}."
        )
    if not recipe.thaws:
        raise SpecError(
            "Fine-tuning is of layers that are thawed, and thaw=none leaves none to learn. Name "
            "what may learn."
        )
    settings = recipe.resolved(backbone, start.head_lr)
    opened = open_up(backbone, settings.thaw, settings.thaw_from, whole=settings.adversarial > 0)
    rows = len(data.train) + len(data.val) + len(data.test)  # as a run counts, for the precision
    tap = tap_for(settings, opened, rows, augment, context)
    train, val = feeds(opened, data, augment, settings.seed, context, tap)
    tuned = tune(
        settings,
        opened,
        start.head,
        train,
        val,
        after=start.epochs,
        context=context,
    )
    return _fitted(tuned, start, settings, data.val).model


def _fitted(tuned: Tuned, start: Model, recipe: FineTune, val: Sized) -> Fitted:
    model = replace(
        start,
        backbone=tuned.backbone,
        head=tuned.head,
        limits=Limits(),
        epochs=tuned.trained.history[-1].epoch,
    )
    by = _kept(recipe.keep, val, under_attack=recipe.adversarial > 0)
    chosen: dict[str, Any] = {"epoch": tuned.trained.chosen, "by": by}
    if recipe.wise:
        chosen["wise"] = tuned.wise
    chosen |= _stop_of(tuned.trained)
    return Fitted(model, chosen, (), tuned.trained.history, tuned.count)


def _stop_of(trained: Trained) -> dict[str, int]:
    """The epoch after which the listener stopped training; nothing where it did not."""
    return {"stopped_after": trained.history[-1].epoch} if trained.stopped else {}


def _kept(keep: str, val: Sized, *, under_attack: bool = False) -> str:
    if keep != "best" or not len(val):
        return "the last epoch"
    return f"accuracy {'under attack ' if under_attack else ''}on validation"


def _solved_line(model: Model, train: Rows, val: FeatureTable) -> Epoch:
    """A solved head's line of history: there is one, since it is not trained by epochs."""

    def figures(rows: Table) -> Figures:
        if not len(rows.y):
            return NOTHING
        scores = model.head.scores(rows.x)
        return log_loss(scores, rows.y), accuracy(scores, rows.y)

    return Epoch("head", SOLVED, None, *figures(train), *figures(val), 0.0)


def _majority(data: Dataset | FeatureTable) -> str:
    return data.classes[int(np.bincount(data.y).argmax())]


def _frozen_numbers(backbone: Backbone) -> tuple[int, int]:
    """Numbers and tensors of a backbone, with the statistics of its norms, as Keras counts them."""
    state = backbone.module.state_dict().items()
    tensors = [tensor for name, tensor in state if not name.endswith("_tracked")]
    return sum(tensor.numel() for tensor in tensors), len(tensors)
