"""Fine-tuning end to end: what is frozen, the cut against the whole network, views, averaging."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Calls

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.views import PLAIN, Views
from headstart.base.context import Precision, RunContext
from headstart.base.errors import Mismatch, SpecError
from headstart.base.runtime import Runtime
from headstart.base.store import Reader
from headstart.data.splits import split
from headstart.evaluation.evaluation import evaluate
from headstart.features.extract import Tap, _kept_as, extract, extract_views
from headstart.heads.families import spec_named
from headstart.heads.specs import (
    HeadSpec,
    LinearSpec,
    LogisticSpec,
    MlpSpec,
    NearestSpec,
    RidgeSpec,
)
from headstart.modalities.images.augment import Augment
from headstart.models.ensembling import of_member
from headstart.models.finetuning import ThawedBackbone, Tuned, thaw, tune
from headstart.models.fitting import fit, fit_tables
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.models.training_data import (
    Start,
    TrainingData,
    engine_feed,
    kept_at_cut,
    tap_for,
    tuning_start,
)
from headstart.models.tuning import tuning_tables
from headstart.specs import Job
from headstart.targets.classes import ClassTarget
from headstart.training.feeds import Feed, Stored
from headstart.training.network import Network, head_module, new_head
from headstart.training.optimizing import make_optimizer

RECIPE = FineTune(epochs=3, batch_size=8, lr=1e-3, thaw="1", keep="last", warmup=0.0)
CONTEXT = RunContext(store=None, runtime=Runtime(device="cpu").resolved())
FLIPPED = Augment(flip="both", rotation=0.1, views=3)
NAME = "timm:test_resnet"


def random_backbone(name: str = NAME) -> Backbone:
    return hs.load_backbone(name, weights="random")


def tuned_on(
    rows: Feed, val: Feed, opened: ThawedBackbone, head: hs.Model, recipe: FineTune = RECIPE
) -> Tuned:
    return tune(recipe, opened, head.head, (rows, val))


@pytest.fixture
def parts(shapes: Path) -> hs.Splits:
    return split(hs.read(shapes))


def start_of(parts: hs.Splits, backbone: Backbone) -> hs.Model:
    return fit(FeatureExtraction(), backbone, parts, store=None).model


@pytest.mark.parametrize("name", [NAME, "tiny:16"])
def test_fine_tuning_changes_what_is_thawed_and_nothing_else(parts: hs.Splits, name: str) -> None:
    backbone = random_backbone(name)
    before, thawed = backbone.weights(), thaw(backbone, "1").thawed
    model = fit(RECIPE, start_of(parts, backbone), parts, store=None).model
    assert isinstance(model.backbone, Backbone)
    after = model.backbone.weights()
    for tensor in before:
        assert np.array_equal(before[tensor], after[tensor]) == (tensor not in thawed), tensor
    assert all(np.array_equal(before[n], w) for n, w in backbone.weights().items())


def test_the_control_training_mode_on_the_whole_network_moves_frozen_norms(
    parts: hs.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "train", torch.nn.Module.train)
    # folded norms could not drift
    monkeypatch.setattr("headstart.models.finetuning.folded", lambda tail: tail)
    backbone = random_backbone()
    model = fit(RECIPE, start_of(parts, backbone), parts, store=None).model
    assert isinstance(model.backbone, Backbone)
    before, after = backbone.weights(), model.backbone.weights()
    moved = [n for n in before if "running" in n and not np.array_equal(before[n], after[n])]
    assert moved


@pytest.mark.parametrize("count", [1, 4])  # the pictures, or these and three views of each
def test_losses_from_the_cut_are_those_of_the_whole_network(
    parts: hs.Splits, tmp_path: Path, count: int
) -> None:
    """Same views, same seed: stored activations against running every frozen layer each epoch."""
    backbone, augment = random_backbone(), FLIPPED if count > 1 else Augment()
    head, seen = start_of(parts, backbone), list[Tuned]()
    for cached in (True, False):
        opened = thaw(backbone, "1")
        assert opened.cut is not None
        context = replace(CONTEXT, store=hs.Store(tmp_path / "store"))
        if cached:
            tap = opened.tap(1, "float32")
            plain = extract(backbone, parts.val, store=context.store, tap=tap)
            data = TrainingData(Start(backbone, tap=tap), parts, augment, context)
            views = data.train(0, cut=True)
            assert len(views) == count
            rows: Feed = Stored(views, cut=True)
            val: Feed = Stored((plain,), cut=True)
        else:
            cut = opened.cut
            rows = engine_feed(backbone, cut, parts.train, Views(augment, 0), context)
            val = engine_feed(backbone, cut, parts.val, PLAIN, context)
        seen.append(tuned_on(rows, val, opened, head, replace(RECIPE, epochs=4)))
    histories = [tuned.trained.history[1:] for tuned in seen]
    for stored, fresh in zip(*histories, strict=True):
        assert stored.train_loss == pytest.approx(fresh.train_loss, rel=1e-5)
        assert stored.val_loss == pytest.approx(fresh.val_loss, rel=1e-5)


def test_a_full_disk_changes_no_batch_of_several_fine_tunings(
    parts: hs.Splits, tmp_path: Path
) -> None:
    start, rows = tuning_start(RECIPE, random_backbone(), 1e-2), np.arange(len(parts.train))
    assert start.thawed is not None
    context, feeds = replace(CONTEXT, store=hs.Store(tmp_path / "store")), list[Feed]()
    for own in (kept_at_cut(start, start.thawed.tap(1, "float32")), start):
        data = TrainingData(own, parts, FLIPPED, context)
        tables = tuning_tables(data)
        feeds.append(of_member(data, seed=7).for_tuning(tables)[0])
    for epoch in range(1, 5):
        stored, fresh = (feed.batch(rows, epoch) for feed in feeds)
        assert isinstance(stored, torch.Tensor)
        assert isinstance(fresh, torch.Tensor)
        assert torch.allclose(stored, fresh, atol=1e-5)


def test_a_checkpoint_of_a_version_that_drew_views_alone_is_refused(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(phase: str, number: int, figures: object) -> None:
        if (phase, number) == ("finetune", 1):
            raise ZeroDivisionError

    tuned, store = replace(RECIPE, thaw="all"), hs.Store(tmp_path / "store")
    job = Job(backbone="tiny:16", strategy="finetune", finetune=tuned, augment=FLIPPED, store=store)
    data = hs.read(shapes)
    with monkeypatch.context() as earlier:
        earlier.setattr(TrainingData, "drawn", ())
        with pytest.raises(ZeroDivisionError):
            hs.train(data, tmp_path / "run", job, Calls(epoch=fail))
    with pytest.raises(SpecError, match="was begun with other settings"):
        hs.train(data, tmp_path / "run", job)


def test_half_precision_at_the_cut_changes_next_to_nothing(parts: hs.Splits) -> None:
    backbone = random_backbone()
    losses = []
    precisions: tuple[Precision, ...] = ("float32", "float16")
    for precision in precisions:
        opened, head = thaw(backbone, "1"), start_of(parts, backbone)
        tap = opened.tap(1, precision)
        train, val = (extract(backbone, part, tap=tap) for part in (parts.train, parts.val))
        assert isinstance(train.cut, np.ndarray)
        assert train.cut[[0]].dtype == np.dtype(precision)
        rows, judged = Stored((train,), cut=True), Stored((val,), cut=True)
        losses.append(tuned_on(rows, judged, opened, head).trained.history[-1].train_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_views_are_stored_and_computed_once(parts: hs.Splits, tmp_path: Path) -> None:
    backbone, context = random_backbone(), replace(CONTEXT, store=hs.Store(tmp_path / "store"))
    tap = thaw(backbone, "1").tap(1, "float32")
    once = extract_views(backbone, parts.train, Views(FLIPPED), context, tap)
    again = extract_views(backbone, parts.train, Views(FLIPPED), context, tap)
    assert once[0].forwards > 0
    assert again[0].forwards == 0
    for one, two in zip(once, again, strict=True):
        assert isinstance(one.cut, Reader)
        assert isinstance(two.cut, Reader)
        rows = range(len(one))
        assert np.array_equal(one.x, two.x)
        assert np.array_equal(one.cut[list(rows)], two.cut[list(rows)])
    assert not np.array_equal(once[0].x, once[1].x)


def test_only_training_rows_are_augmented(
    parts: hs.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model judged after augmented training has seen plain pictures only."""
    called: list[int] = []
    real = Augment.__call__

    def counted(self: Augment, square: object, seed: int) -> object:
        called.append(seed)
        return real(self, square, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(Augment, "__call__", counted)
    model = fit(FeatureExtraction(), random_backbone(), parts, views=FLIPPED, store=None).model
    assert len(called) == 3 * len(parts.train_val)  # folds hold each of them out in turn
    called.clear()
    model.predict(parts.val, store=None)
    evaluate(model.predict(parts.test, store=None))
    assert not called


def test_without_room_on_the_disk_the_frozen_layers_run_again_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    context = RunContext(
        hs.Store(tmp_path / "new" / "store"),
        listener=Calls(stage=lambda _, text: said.append(text)),
    )
    opened = thaw(random_backbone(), "1")
    assert tap_for(RECIPE, opened, 1000, FLIPPED, context) is not None
    assert "MB at the cut" in said[-1]
    need = 4000 * opened.tap(1, "float32").row_bytes
    for free, precision in ((need * 0.8, "float16"), (need * 0.1, None)):
        usage = shutil.disk_usage(tmp_path)._replace(free=int(free))
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        tap = tap_for(RECIPE, opened, 1000, FLIPPED, context)
        assert (tap and tap.precision) == precision
    assert "do not fit" in said[-1]
    half = float(said[-1].split()[0])
    assert tap_for(replace(RECIPE, cut_precision="float32"), opened, 1000, FLIPPED, context) is None
    assert float(said[-1].split()[0]) == pytest.approx(2 * half, rel=0.1)  # what was asked for


def test_averaging_ends_on_the_line_where_validation_is_best(parts: hs.Splits) -> None:
    backbone = random_backbone()
    head = start_of(parts, backbone)
    model = fit(replace(RECIPE, wise=True, lr=0.5, epochs=1), head, parts, store=None).model
    plain = fit(replace(RECIPE, lr=0.5, epochs=1), head, parts, store=None).model
    on_val = [m.predict(parts.val, store=None).correct.mean() for m in (model, plain, head)]
    assert on_val[0] >= max(on_val[1:])


def test_a_head_of_neighbours_cannot_be_tuned(parts: hs.Splits) -> None:
    recipe = FeatureExtraction(NearestSpec())
    model = fit(recipe, random_backbone(), parts, store=None).model
    with pytest.raises(SpecError, match="Fit the head with --head logistic"):
        fit(RECIPE, model, parts, store=None)


def test_fine_tuning_never_starts_from_a_backbone(parts: hs.Splits) -> None:
    with pytest.raises(SpecError, match="from a model with a fitted head"):
        fit(RECIPE, random_backbone(), parts, store=None)
    model = start_of(parts, random_backbone())
    with pytest.raises(SpecError, match="starts from a backbone"):
        fit(FeatureExtraction(), model, parts, store=None)


def test_a_model_goes_on_with_its_own_classes(parts: hs.Splits) -> None:
    model = start_of(parts, random_backbone())
    others = replace(parts, train=replace(parts.train, target=ClassTarget(("dark", "bright"))))
    with pytest.raises(Mismatch, match="goes on learning the classes bright, dark"):
        fit(RECIPE, model, others, store=None)


def test_without_validation_the_last_epoch_is_kept_and_nothing_averaged(parts: hs.Splits) -> None:
    none = replace(parts, val=parts.val.take([]))
    model = fit(FeatureExtraction(), random_backbone(), none, store=None).model
    recipe = replace(RECIPE, wise=True, keep="best", patience=1, epochs=3)
    tuned = fit(recipe, model, none, store=None).model
    plain = fit(replace(recipe, wise=False, patience=0), model, none, store=None).model
    assert isinstance(tuned.backbone, Backbone)
    assert isinstance(plain.backbone, Backbone)
    assert tuned.backbone.fingerprint() == plain.backbone.fingerprint()


def test_what_is_too_large_for_half_precision_is_refused() -> None:
    tap = Tap("cut", (2,), torch.nn.Identity(), "float16")
    with pytest.raises(Mismatch, match="Half precision holds numbers up to 65,504"):
        _kept_as(np.full((1, 2), 1e5, np.float32), tap)


def test_a_trained_head_gets_new_views_every_epoch(
    parts: hs.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: set[int] = set()
    real = Augment.__call__

    def noted(self: Augment, square: object, seed: int) -> object:
        seeds.add(seed)
        return real(self, square, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(Augment, "__call__", noted)
    recipe = FeatureExtraction(LinearSpec(epochs=3, keep="last"))
    fit(recipe, random_backbone(), parts, views=replace(FLIPPED, views=0), store=None)
    assert len(seeds) == 3 * len(parts.train)


@pytest.mark.long
@pytest.mark.parametrize(
    ("spec", "tuning", "augment"),
    [
        (LinearSpec(epochs=2, lr=1e-2), {"thaw": "auto"}, Augment()),
        (MlpSpec(epochs=2, hidden=(8,), lr=3e-3), {"thaw": "all"}, Augment()),
        (LogisticSpec(), {"thaw": "1", "wise": True}, Augment()),
        (RidgeSpec(), {"thaw": "1", "dropout": 0.2}, Augment(flip="both", views=2)),
        (LinearSpec(epochs=2), {"thaw": "1", "seed": 3}, Augment(flip="both", views=2)),
        (LinearSpec(epochs=2), {"thaw": "1", "mixup": 0.2}, Augment(flip="both", views=0)),
    ],
    ids=str,
)
def test_fit_and_train_end_with_the_same_weights(
    shapes: Path, tmp_path: Path, spec: HeadSpec, tuning: dict[str, Any], augment: Augment
) -> None:
    recipe = FeatureExtraction(spec)
    finetune = FineTune(**{"epochs": 2, "batch_size": 8} | tuning)
    job = Job(
        backbone=NAME,
        weights="random",
        strategy="finetune",
        recipe=recipe,
        finetune=finetune,
        augment=augment,
        refit=False,
        runtime=Runtime(device="cpu", threads=1),
        store=hs.Store(tmp_path / "one"),
    )
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    both: dict[str, Any] = {
        "views": augment,
        "store": hs.Store(tmp_path / "two"),
        "runtime": job.runtime,
    }
    head = fit(recipe, random_backbone(), run.splits, **both).model
    model = fit(finetune, head, run.splits, **both).model
    assert finetune.resolved(random_backbone(), head.head_lr).lr == recipe.head_lr / 10
    assert model.epochs == run.fitted.history[-1].epoch
    for name, value in run.fitted.model.head.tensors().items():
        assert np.array_equal(model.head.tensors()[name], value), name
    assert model.backbone.fingerprint() == run.fitted.model.backbone.fingerprint()


@pytest.mark.parametrize("head", [LinearSpec(epochs=1), LogisticSpec()])
def test_fit_computes_with_the_threads_it_is_given(
    parts: hs.Splits, monkeypatch: pytest.MonkeyPatch, head: Any
) -> None:
    seen, before = set[int](), torch.get_num_threads()

    def noted(*args: Any, **more: Any) -> object:
        seen.add(torch.get_num_threads())
        return make_optimizer(*args, **more)

    monkeypatch.setattr("headstart.training.loop.make_optimizer", noted)
    runtime = Runtime(device="cpu", threads=3)
    recipe = FeatureExtraction(head)
    model = fit(recipe, random_backbone(), parts, store=None, runtime=runtime).model
    fit(replace(RECIPE, epochs=1), model, parts, store=None, runtime=runtime)
    assert (seen, torch.get_num_threads()) == ({3}, before)


def test_fit_refuses_to_fine_tune_nothing(parts: hs.Splits) -> None:
    model = start_of(parts, random_backbone())
    with pytest.raises(SpecError, match="thaw=none leaves none to learn"):
        fit(FineTune(thaw="none"), model, parts, store=None)


def test_what_is_thawed_is_named_once() -> None:
    with pytest.raises(SpecError, match="exclude each other"):
        FineTune(thaw="2", thaw_from=100)


def test_all_of_a_network_can_be_thawed(parts: hs.Splits) -> None:
    backbone = random_backbone("tiny:16")
    model = fit(replace(RECIPE, thaw="all"), start_of(parts, backbone), parts, store=None).model
    assert isinstance(model.backbone, Backbone)
    before, after = backbone.weights(), model.backbone.weights()
    parameters = {n for n, _ in backbone.module.named_parameters()}
    for name, tensor in before.items():
        assert np.array_equal(tensor, after[name]) == (name not in parameters), name


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_trained_head_goes_on_where_it_was(parts: hs.Splits, head: str, output: str) -> None:
    """As a module it says what it said as arrays, and its loss is epoch 0 of the next phase."""
    spec = FeatureExtraction(spec_named(head, None, output=output, epochs=2))
    backbone = random_backbone()
    train, val = (extract(backbone, part) for part in (parts.train, parts.val))
    fitted = fit_tables(spec, backbone, (train,), val)
    module = head_module(fitted.model.head).eval()
    with torch.inference_mode():
        logits = module(torch.from_numpy(val.x))
        both = torch.cat([torch.zeros_like(logits), logits], 1) if output == "sigmoid" else logits
    scores = fitted.model.head.scores(val.x)
    np.testing.assert_allclose(both.softmax(1).numpy(), scores, atol=1e-5)
    line = next(line for line in fitted.history if line.epoch == fitted.chosen["epoch"])
    assert line.val_accuracy == (scores.argmax(1) == val.y).mean()


def test_one_logit_is_for_two_classes() -> None:
    with pytest.raises(SpecError, match="tells two classes apart; there are 3"):
        new_head(LinearSpec(output="sigmoid"), 4, 3, seed=0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("tuning", "augment"),
    [
        ({"thaw": "auto"}, Augment()),
        ({"thaw": "1", "seed": 3}, Augment(flip="both", views=2)),
        ({"thaw": "all"}, Augment(flip="both", views=0)),
    ],
    ids=["from the cut", "views of two seeds", "new views, from pixels"],
)
def test_two_phases_in_memory_are_those_of_a_run(
    shapes: Path, tmp_path: Path, tuning: dict[str, Any], augment: Augment
) -> None:
    finetune = FineTune(**{"epochs": 2, "batch_size": 8} | tuning)
    spec = TwoPhaseSpec(FeatureExtraction(LinearSpec(epochs=2)), finetune, augment)
    runtime, store = Runtime(device="cpu", threads=1), hs.Store(tmp_path / "one")
    job = Job(backbone=NAME, weights="random", runtime=runtime, store=store)
    job = replace(job, recipe=spec.head, finetune=finetune, augment=augment)
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    fitted = fit(spec, random_backbone(), run.splits, store=None, runtime=runtime)
    assert fitted.chosen == run.fitted.chosen
    assert fitted.model.backbone.fingerprint() == run.fitted.model.backbone.fingerprint()
    assert [(e.phase, e.epoch) for e in fitted.history] == [
        *(("head", n) for n in range(3)),
        *(("finetune", n) for n in (2, 3, 4)),
    ]
    for name, value in run.fitted.model.head.tensors().items():
        assert np.array_equal(fitted.model.head.tensors()[name], value), name
    assert len(fitted.predict(run.splits.test, store=None)) == len(run.splits.test)


def test_the_phase_that_is_asked_for_is_kept(parts: hs.Splits) -> None:
    tuned = replace(RECIPE, lr=1.0, epochs=1, keep="last", class_weights={"bright": 1e6})
    best = TwoPhaseSpec(FeatureExtraction(), tuned)
    for spec, phase in ((best, "head"), (replace(best, keep="finetune"), "finetune")):
        fitted = fit(spec, random_backbone(), parts, store=None)
        assert ("head" in fitted.chosen) == (phase == "head")
        assert {line.phase for line in fitted.history} == {"head", "finetune"}
