"""The data of the two phases: stored features and activations, or examples read every epoch."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Batch, Input, has_parts, length, only_array, rows_of
from headstart.backbones.views import PLAIN, Views, ViewSpec
from headstart.base.context import RunContext
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.base.mapped import empty_rows
from headstart.base.runtime import Stopwatch
from headstart.base.store import Store, digest
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.features.choosing import choice_so_far
from headstart.features.engine_table import FrozenPart, open_engine
from headstart.features.extract import FeatureTable, Tap, all_there, extract, extract_views
from headstart.features.parts import sizes_of
from headstart.heads.head import Rows
from headstart.modalities.sources import reopened
from headstart.models.model import Model
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.models.wording import extracted, more_parts
from headstart.targets.target import Target

if TYPE_CHECKING:
    from headstart.backbones.cutting import Cut
    from headstart.backbones.strides import Levels
    from headstart.models.finetuning import ThawedBackbone
    from headstart.training.feeds import Feed, Fresh

SPARE = 0.9  # share of the free disk that may be filled
MOST_PARTS = 8  # of an example that a training step learns from, evenly spread; evaluated are all


@dataclass(frozen=True, eq=False)
class Start:
    """The backbone and the settings with which the two phases of training begin.

    backbone: with the spec's input settings. settings: for fine-tuning, with "auto" resolved.
    thawed: None without a second phase. tap: the activations to store for every row, or None.
    table: plain features of all rows, if already extracted. levels: of the backbone, if the head
    reads these and not its features; then `tap` is of them, and of the cut if there is one.
    """

    backbone: Backbone | Frozen
    settings: FineTune | None = None
    thawed: "ThawedBackbone | None" = None
    tap: Tap | None = None
    table: FeatureTable | None = None
    levels: "Levels | None" = None


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The rows of a training run, as each phase reads them. tables: all tables extracted here.

    whole: whether the views of training and validation rows are extracted together. views_seed: of
    the views that several fine-tunings share; None for the seed of the settings.

    The splits get the target of a model that goes on learning, else one fitted on the training
    labels, so that losses can use their scale. Training rows of weight 0 are left out.
    """

    start: Start
    splits: Splits
    views: ViewSpec
    context: RunContext
    tables: list[FeatureTable] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=Stopwatch)
    target: Target | None = None
    whole: bool = False
    views_seed: int | None = None
    _views: dict[tuple[int, bool], tuple[FeatureTable, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counted = replace(self.splits, train=self.splits.train.counted())
        splits = counted.of(self.target) if self.target else counted.fitted()
        object.__setattr__(self, "splits", splits)

    def plain(self, data: Dataset) -> FeatureTable:
        """Return features of unaugmented rows, with activations at the cut if stored."""
        if self.start.table is not None:
            return self.start.table.of(data)
        return table_of(self.start.backbone, data, self.context, self.start.tap)

    def train(self, seed: int, *, cut: bool) -> tuple[FeatureTable, ...]:
        """Return the plain table of the training rows, then one per stored view of them."""
        if not self.whole:
            return self._extracted(self.splits.train, seed, cut)
        return tuple(t.of(self.splits.train) for t in self.train_val(seed, cut=cut))

    def train_val(self, seed: int, *, cut: bool) -> tuple[FeatureTable, ...]:
        """Return the same of the training and validation rows; it is extracted once."""
        if (seed, cut) not in self._views:
            self._views[seed, cut] = self._extracted(self.splits.train_val, seed, cut)
        return self._views[seed, cut]

    def extracted_before(self, seed: int, cut: bool) -> tuple[FeatureTable, ...]:
        """Return what `train_val` extracted; () if it was not called so."""
        return self._views.get((seed, cut), ())

    def _extracted(self, data: Dataset, seed: int, cut: bool) -> tuple[FeatureTable, ...]:
        if not self.views.active or not self.views.views:
            return (self.plain(data),)
        backbone, tap = self.start.backbone, self.start.tap
        views = Views(self.views, seed)
        with self.clock("views"):
            tables = extract_views(backbone, data, views, self.context, tap if cut else None)
        first = all_there(tables[0]) if data.contents else tables[0]
        self.tables.append(first)
        self.context.listener.stage("views", extracted(first, views.count, data.noun))
        return (self.plain(data), first, *tables[1:])

    def new_features(self, spec: FeatureExtraction) -> "Feed | None":
        """Return a feed of new views every epoch, if a head trained by epochs needs one."""
        views = Views(self.views, spec.seed)
        if not spec.head.by_epochs or views.count:
            return None
        return engine_feed(self.start.backbone, None, self.splits.train, views, self.context)

    def for_tuning(self, tables: "Tables | None" = None) -> "Feeds":
        """Return training and validation feeds for fine-tuning: activations or prepared examples.

        tables: needed if activations at the cut are stored.
        """
        from headstart.training.feeds import Fresh, Stored

        thawed, settings = self.start.thawed, self.start.settings
        assert thawed is not None
        assert settings is not None
        if self.start.tap is not None:
            assert tables is not None
            rows, val = tables
            train = Stored(rows, cut=True, seed=settings.seed, most=MOST_PARTS)
            self._tell_parts(train)
            return train, Stored((val,), cut=True)
        backbone, data = thawed.backbone, self.splits.train
        views = self._views_to_draw(settings.seed)
        if thawed.cut is None:
            threads, input = self.context.runtime.decode_threads, backbone.card.input
            arrays = _arrays if has_parts(input) else only_array
            fresh = Fresh(data, input, arrays, views, threads, MOST_PARTS)
        else:
            fresh = engine_feed(backbone, thawed.cut, data, views, self.context, MOST_PARTS)
        fresh = replace(fresh, seed=settings.seed)
        self._tell_parts(fresh)
        return fresh, replace(fresh, data=self.splits.val, views=PLAIN, most=0)

    def _views_to_draw(self, seed: int) -> Views:
        """Return the views that fine-tuning with this seed draws: of several fine-tunings the same,
        as if they were stored, unless each epoch has new ones."""
        views, shared = Views(self.views, seed), self.views_seed
        return views if shared is None or not views.count else replace(views, seed=shared)

    @property
    def drawn(self) -> tuple[str, ...]:
        """A part of the key of fine-tuning without stored activations, but with a number of views:
        earlier versions drew these alone, and never the examples themselves."""
        in_turn = self.start.tap is None and self.views.active and self.views.views > 0
        return ("examples and views",) if in_turn else ()

    def _tell_parts(self, train: "Feed") -> None:
        """Report how many examples have more parts than a step learns from."""
        if train.sizes is not None and (more := int((train.sizes.parts > MOST_PARTS).sum())):
            noun = self.start.backbone.card.input.noun
            message = more_parts(more, len(train.ids), noun, MOST_PARTS)
            self.context.listener.stage("finetune", message)

    def of_model(self, model: Model, data: Dataset) -> FeatureTable:
        """Return features of some rows by the backbone of a model trained here."""
        with self.clock("fine-tuning"):
            quiet = replace(self.context, listener=Listener())
            table = table_of(model.backbone, data, quiet)
        self.tables.append(table)
        return table

    def phase(self, name: str, backbone: Backbone | Frozen, *starts: object) -> RunContext:
        """Return the context of one phase; its checkpoint's key covers all that decides its result.

        starts: values that the phase starts from, such as arrays of features.
        """
        if self.context.checkpoints.path is None:
            return self.context
        rows = [part.decisive for part in (self.splits.train, self.splits.val)]
        begun = [array_name(s) if isinstance(s, np.ndarray) else s for s in starts]
        own = self.context.checkpoints.of(name, backbone.fingerprint(), rows, begun)
        return replace(self.context, checkpoints=own)


Tables = tuple[tuple[FeatureTable, ...], FeatureTable]  # one per view of training rows; validation
Feeds = tuple["Feed", "Feed"]  # of training rows and of validation rows


def array_name(array: NDArray[np.generic]) -> str:
    return digest(np.ascontiguousarray(array).data).hex()


def prepare(spec: TwoPhaseSpec, backbone: Backbone | Frozen) -> Start:
    """Apply the spec's input settings to a backbone, and thaw the layers to fine-tune."""
    own: Backbone | Frozen = spec.head.prepared(backbone)
    check_changes(own.card.input, spec.views.active)
    viewed_input(own.card.input, spec.tta, spec.views)  # raises for views that there are not
    spec.head.head.check_room(own.card.dim)
    if spec.finetune is None:
        return Start(own)
    network = reopened(own) if isinstance(own, Frozen) else own
    return tuning_start(spec.finetune, network, spec.head.head_lr)


def tuning_start(settings: FineTune, backbone: Backbone, head_lr: float) -> Start:
    """Return the `Start` of fine-tuning: a thawed copy of the backbone, and resolved settings."""
    from headstart.models.finetuning import thaw

    check_changes(backbone.card.input, settings.mixup, settings.adversarial)
    settings = settings.resolved(backbone, head_lr)
    thawed = thaw(backbone, settings.thaw, settings.thaw_from, whole=settings.adversarial > 0)
    return Start(backbone, settings, thawed if thawed.thawed else None)


def thawed_again(start: Start) -> Start:
    """Return the start with a new copy of its thawed layers, since training changes them in place.

    A request for activations is made again, too: it computes features by the thawed layers.
    """
    assert start.settings is not None
    assert isinstance(start.backbone, Backbone)  # a graph is not fine-tuned
    own = tuning_start(start.settings, start.backbone, start.settings.lr)
    tap = own.thawed.tap(0, start.tap.precision) if own.thawed and start.tap else None
    return replace(kept_at_cut(own, tap), table=start.table)


def with_tap(start: Start, splits: Splits, views: ViewSpec, context: RunContext) -> Start:
    """Return `start` with a request to store all rows' activations at the cut, if possible."""
    if start.thawed is None or start.settings is None:
        return start
    check_changes(start.backbone.card.input, views.active)
    parts = (splits.train, splits.val, splits.test)
    rows = sum(rows_at_cut(start.thawed, part, context) for part in parts)
    return kept_at_cut(start, tap_for(start.settings, start.thawed, rows, views, context))


def rows_at_cut(thawed: "ThawedBackbone", data: Dataset, context: RunContext) -> int:
    """Return how many rows the activations at the cut are: examples, or positions in sequences."""
    input = thawed.backbone.card.input
    if thawed.cut is None or not has_parts(input):
        return len(data)
    return int(sizes_of(input, data, context.runtime.decode_threads).total.sum())


def kept_at_cut(start: Start, tap: Tap | None) -> Start:
    """Return `start` with the request `tap` for activations, and its precision in the settings."""
    assert start.settings is not None  # there is a second phase
    settings = replace(start.settings, cut_precision=tap.precision) if tap else start.settings
    return replace(start, tap=tap, settings=settings)


def table_of(
    backbone: Backbone | Frozen, data: Dataset, context: RunContext, tap: Tap | None = None
) -> FeatureTable:
    """Return features of all rows; unchecked data may have unreadable rows, which are left out."""
    store, runtime, listener = context.store, context.runtime, context.listener
    engines = context.engines
    table = extract(
        backbone, data, store=store, runtime=runtime, listener=listener, tap=tap, engines=engines
    )
    return all_there(table) if data.contents else table


def stacked(tables: Sequence[FeatureTable]) -> Rows:
    """Return the rows of all views, one view after the other; features are mapped if large."""
    x, y = tables[0].x, tables[0].y
    if len(tables) > 1:
        x, y = _joined([t.x for t in tables]), np.concatenate([t.y for t in tables])
    groups, counting = tables[0].groups, tables[0].supervision.repeated(len(tables))
    if len(tables) > 1:  # the views of a row share a fold
        names = groups or tables[0].ids
        own = (name or id for name, id in zip(names, tables[0].ids, strict=True))
        groups = tuple(own) * len(tables)
    return Rows(x, y, tables[0].target, groups, supervision=counting)


def _joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return features of the same rows, one part below the other; mapped if they are large."""
    whole = empty_rows((len(parts), *parts[0].shape))
    for own, part in zip(whole, parts, strict=True):
        own[:] = part
    return whole.reshape(-1, *parts[0].shape[1:])


def check_changes(input: Input[Any], *asked: object) -> None:
    """Raise SpecError if changes of examples are asked for that examples in parts do not allow."""
    if has_parts(input) and any(asked):
        raise SpecError(
            f"Views (augment), mixup and adversarial training change examples of one array of one "
            f"size; {input.noun} have several parts or lengths. Leave these settings out."
        )


def viewed_input(input: Input[Any], tta: str, views: ViewSpec) -> Input[Any]:
    """Return the input with the test-time views that `tta` asks for (see `TwoPhaseSpec`).

    "auto" leaves an input without such views as it is; raises SpecError for a number of views that
    there are not.
    """
    if tta == "none":
        return input
    try:
        return input.averaging(views, 0 if tta == "auto" else int(tta))
    except SpecError:
        if tta == "auto":
            return input
        raise


def _arrays(batch: Batch) -> tuple[NDArray[np.generic], ...]:
    return tuple(batch.values())


def engine_feed(
    backbone: Backbone | Frozen,
    cut: "Cut | None",
    data: Dataset,
    views: Views,
    context: RunContext,
    most: int = 0,
) -> "Fresh":
    """Return a feed of activations at the cut, or of features without one, computed per batch.

    most: parts of an example in a batch; 0 for all.
    """
    from headstart.training.feeds import Fresh

    frozen_part, choice = _below(backbone, cut), choice_so_far(backbone, context)
    engine = open_engine(FrozenPart(frozen_part, context.runtime), choice)

    def frozen(batch: Batch) -> NDArray[np.generic]:
        size = engine.batch
        parts = (rows_of(batch, slice(i, i + size)) for i in range(0, length(batch), size))
        return np.concatenate([engine(part)[0] for part in parts])

    def crossing(batch: Batch) -> tuple[NDArray[np.generic], ...]:
        size = engine.batch
        parts = (rows_of(batch, slice(i, i + size)) for i in range(0, length(batch), size))
        arrays = [np.concatenate(made) for made in zip(*map(engine, parts), strict=True)]
        if cut is None or not cut.sequences:
            return tuple(arrays)
        mask = (arrays[1] > 0).astype(np.int64)
        return np.where(mask[..., None], arrays[0], 0), mask

    input = backbone.card.input
    made = crossing if has_parts(input) else frozen
    return Fresh(data, input, made, views, context.runtime.decode_threads, most)


def _below(backbone: Backbone | Frozen, cut: "Cut | None") -> Backbone | Frozen:
    """Return the frozen part of a backbone, all of it without a cut."""
    if cut is None:
        return backbone
    assert isinstance(backbone, Backbone)  # a graph can't be cut
    return replace(backbone, module=cut.trunk)


def tap_for(
    settings: FineTune, thawed: "ThawedBackbone", rows: int, views: ViewSpec, context: RunContext
) -> Tap | None:
    """Return a request to store the activations of `rows` rows and their views; reports its size.

    None if nothing can be stored: no cut, new views every epoch, or too little free disk. The
    frozen layers then run in every epoch, which is reported too.
    """
    say = context.listener.stage
    if thawed.cut is None:
        say("cut", _whole_message(settings))
    if thawed.cut is None or Views(views).count == 0:
        return None
    kept = rows * (1 + (views.views if views.active else 0))
    tap = thawed.tap(kept, settings.cut_precision)
    if disk_room(kept * tap.row_bytes, context.store):
        say(
            "cut",
            f"keeping {size_text(kept * tap.row_bytes)} at the cut {tap.name}, {tap.precision}",
        )
        return tap
    if settings.cut_precision == "auto":
        tap = replace(tap, precision="float16")
        if disk_room(kept * tap.row_bytes, context.store):
            size = size_text(kept * tap.row_bytes)
            say("cut", f"keeping {size} at the cut in half precision, for want of room")
            return tap
    say(
        "cut",
        f"{size_text(kept * tap.row_bytes)} at the cut do not fit the store's disk: the frozen "
        f"layers run again every epoch instead, which is slower and gives the same",
    )
    return None


def _whole_message(settings: FineTune) -> str:
    if not settings.adversarial:
        return "no frozen layers before the first thawed one: all of it runs"
    return (
        f"pixels change in every step, so nothing can be kept at a cut: all of it runs, there and "
        f"back {settings.adversarial_steps + 1} times a step, which takes that much longer"
    )


def disk_room(size: int, store: Store | None) -> bool:
    """Return whether the store's disk has room for `size` bytes; True without a store."""
    if store is None:
        return True
    folder = next(p for p in (store.folder, *store.folder.absolute().parents) if p.exists())
    return size <= SPARE * shutil.disk_usage(folder).free


def size_text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
