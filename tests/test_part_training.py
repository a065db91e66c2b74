"""Training on examples of several parts and of any length, from the cut and as a whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sequences
import torch
from listening import Calls
from sequences import Sequences, labelled

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import Cut
from headstart.base.context import Checkpointing, RunContext
from headstart.base.errors import SpecError
from headstart.base.runtime import Runtime
from headstart.cli.main import main
from headstart.data.splits import Splits, split
from headstart.features.parts import PartBatch, Sizes
from headstart.modalities.images.augment import Augment
from headstart.models.finetuning import thaw
from headstart.models.fitting import fit
from headstart.models.results import FitResult
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.models.training_data import Start, TrainingData, tuning_start, with_tap
from headstart.models.tuning import tune_phase
from headstart.training.feeds import batches, judged_in
from headstart.training.network import Network
from headstart.training.parts import Parts

sequences.register()
FEW = FineTune(epochs=2, batch_size=8, lr=3e-3, thaw="2", keep="last", warmup=0.0)
CONTEXT = RunContext(store=None, runtime=Runtime(device="cpu").resolved())


@pytest.fixture(scope="module")
def splits() -> Splits:
    lengths = np.random.default_rng(0).integers(2, 40, 80).tolist()
    lengths[10] = lengths[50] = 150  # 13 windows
    return split(labelled(lengths))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return hs.load_backbone("sequences:0")


@pytest.fixture(scope="module")
def head(splits: Splits, backbone: Backbone) -> hs.Model:
    return fit(FeatureExtraction(), backbone, splits, store=None).model


def tuned(
    settings: FineTune,
    head: hs.Model,
    splits: Splits,
    changed: Callable[[Start], Start] = lambda start: start,
    context: RunContext = CONTEXT,
) -> FitResult:
    assert isinstance(head.backbone, Backbone)
    start = with_tap(tuning_start(settings, head.backbone, 1e-2), splits, NONE, context)
    return tune_phase(TrainingData(changed(start), splits, NONE, context), head)


NONE = TwoPhaseSpec().views


def fresh(start: Start) -> Start:
    """Run the frozen layers in every step."""
    return replace(start, tap=None)


def whole(start: Start) -> Start:
    """Run the whole network in every step, with the same layers thawed."""
    assert start.thawed is not None
    return replace(start, tap=None, thawed=replace(start.thawed, cut=None))


@pytest.mark.parametrize("changed", [fresh, whole])
def test_tuning_from_the_cut_equals_tuning_the_whole_network(
    splits: Splits, head: hs.Model, changed: Callable[[Start], Start]
) -> None:
    settings = replace(FEW, layer_decay=0.5)
    one, other = tuned(settings, head, splits), tuned(settings, head, splits, changed)
    assert isinstance(one.model.backbone, Backbone)
    assert isinstance(other.model.backbone, Backbone)
    before = head.backbone.weights if isinstance(head.backbone, Backbone) else dict
    theirs, start = other.model.backbone.weights(), before()
    learned = thaw(head.backbone, "2").thawed if isinstance(head.backbone, Backbone) else ()
    for name, weight in one.model.backbone.weights().items():
        assert np.allclose(weight, theirs[name], rtol=0, atol=1e-5), name
        assert np.array_equal(weight, start[name]) == (name not in learned), name
    one_loss, other_loss = (
        np.array([(e.train_loss, e.val_loss) for e in way.history[1:]], np.float64)
        for way in (one, other)
    )
    assert np.allclose(one_loss, other_loss, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [FEW, replace(FEW, thaw="all")], ids=["cut", "whole"])
def test_a_resumed_training_is_the_same_to_the_bit(
    splits: Splits, settings: FineTune, tmp_path: Path
) -> None:
    head = fit(
        FeatureExtraction(), hs.load_backbone("sequences:0-dropout"), splits, store=None
    ).model
    once = tuned(settings, head, splits)
    listener = Calls(progress=lambda phase, done, steps: stop() if done == 9 else None)

    def stop() -> None:
        raise KeyboardInterrupt

    saving = Checkpointing(tmp_path / "checkpoint", "job", every_s=1e9)
    context = replace(CONTEXT, checkpoints=saving, listener=listener)
    with pytest.raises(KeyboardInterrupt):
        tuned(settings, head, splits, context=context)
    again = tuned(settings, head, splits, context=replace(context, listener=Calls()))
    assert isinstance(once.model.backbone, Backbone)
    assert isinstance(again.model.backbone, Backbone)
    theirs = again.model.backbone.weights()
    for name, weight in once.model.backbone.weights().items():
        assert np.array_equal(weight, theirs[name]), name


@pytest.mark.parametrize("thaw", ["last", "layers.2", "3", "all"])
def test_weights_may_be_averaged_and_norms_trained(
    splits: Splits, backbone: Backbone, thaw: str
) -> None:
    settings = replace(FEW, thaw=thaw, wise=True, norms="trained")
    spec = TwoPhaseSpec(finetune=settings, keep="finetune")
    fitted = fit(spec, backbone, splits, store=None)
    assert 0 <= fitted.chosen["wise"] <= 1
    assert hs.evaluate(fitted.model, splits.test, store=None).accuracy.value > 0.8


def test_a_batch_of_parts_gives_each_example_its_own_mean(backbone: Backbone) -> None:
    rng = np.random.default_rng(0)
    cut = thaw(backbone, "2").cut
    assert isinstance(cut, Cut)
    network = Network(cut.tail, torch.nn.Linear(10, 2), ())
    hidden = rng.normal(size=(6, 9, 16)).astype(np.float32)
    mask = (np.arange(9) < np.array([9, 3, 9, 9, 1, 4])[:, None]).astype(np.int64)
    owner, weights = np.array([0, 1, 1, 1, 2, 3]), mask.sum(axis=1).astype(np.float64)
    x = Parts.of(PartBatch((hidden, mask), owner, weights, 4))
    together = network.eval()(x)
    with torch.no_grad():
        assert torch.allclose(network(x), together, atol=1e-6)
    for rows in ([0], [1], [0, 2], [1, 3]):
        assert torch.allclose(network(x[torch.tensor(rows)]), together[rows], atol=1e-6)
    parts = [network.tail(*(torch.from_numpy(a[[i]]) for a in (hidden, mask))) for i in (1, 2, 3)]
    mean = (3 * parts[0] + 9 * parts[1] + 9 * parts[2]) / 21
    assert torch.allclose(network.head(mean)[0], together[1], atol=1e-6)


def sizes(rows: int) -> Sizes:
    rng = np.random.default_rng(rows)
    longest, parts = rng.integers(1, 300, rows), rng.integers(1, 4, rows)
    return Sizes(parts, longest, parts * longest)


def test_batches_of_similar_length_hold_every_row_once_in_a_new_order() -> None:
    own = sizes(1000)
    first, again, second = (list(batches(1000, 8, e, 0, own)) for e in (0, 0, 1))
    assert sorted(np.concatenate(first)) == list(range(1000))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], second[0])
    spread = np.mean([np.ptp(own.longest[rows]) for rows in first])
    assert spread < 0.1 * np.mean([np.ptp(own.longest[rows]) for rows in batches(1000, 8, 0, 0)])
    means = [own.longest[rows].mean() for rows in first]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3  # not in order of length


def test_evaluation_takes_few_long_examples_at_once() -> None:
    own = Sizes(np.full(100, 40), np.full(100, 256), np.full(100, 40 * 256))
    assert [len(rows) for rows in judged_in(np.arange(100), 64, own)] == 100 * [1]
    every = list(judged_in(np.arange(1000), 64, sizes(1000)))
    assert sorted(np.concatenate(every)) == list(range(1000))
    assert max(map(len, every)) == 64


def test_a_step_learns_from_eight_parts_and_this_is_reported(
    splits: Splits, head: hs.Model
) -> None:
    messages: list[str] = []
    context = replace(CONTEXT, listener=Calls(stage=lambda _, text: messages.append(text)))
    start = with_tap(tuning_start(FEW, head.backbone, 1e-2), splits, NONE, context)  # type: ignore[arg-type]
    for way in (start, fresh(start), whole(start)):
        data = TrainingData(way, splits, NONE, context)
        tables = data.train(0, cut=True), data.plain(splits.val)
        train, val = data.for_tuning(tables if way.tap else None)
        rows = np.arange(len(splits.train))
        given = train.batch(rows, 0)
        assert isinstance(given, Parts)
        assert np.bincount(given.owner.numpy()).max() == 8
        assert sum(" more than 8 parts: a step learns from 8" in text for text in messages) == 1
        messages.clear()
        judged = val.batch(np.arange(len(splits.val)), 0)
        assert isinstance(judged, Parts)
        assert val.sizes is not None
        assert len(judged.owner) == val.sizes.parts.sum()


@pytest.mark.parametrize(
    ("settings", "views"),
    [({"mixup": 0.2}, {}), ({"adversarial": 0.02}, {}), ({}, {"flip": "both"})],
)
def test_changes_of_examples_are_refused_before_anything_runs(
    splits: Splits, backbone: Backbone, settings: dict[str, Any], views: dict[str, Any]
) -> None:
    spec = TwoPhaseSpec(finetune=replace(FEW, **settings), views=Augment(**views))
    with pytest.raises(SpecError, match="sequences have several parts or lengths"):
        fit(spec, backbone, splits, store=None)


@pytest.mark.long
def test_a_run_goes_all_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    rng = np.random.default_rng(0)
    rows = ["sequence,label"]
    for i, n in enumerate([*rng.integers(2, 60, 90), 200]):
        numbers = rng.integers(1, 35, n) + 15 * (i % 2)
        rows.append(f"{' '.join(map(str, numbers))},{'ab'[i % 2]}")
    Path("rows.csv").write_text("\n".join(rows))
    asked = ["--backbone", "sequences:0", "--strategy", "finetune", "--thaw", "2", "--epochs", "2"]
    for words in (
        ["check", "rows.csv"],
        ["train", "rows.csv", "--out", "run", *asked],
        ["train", "rows.csv", "--out", "again", *asked],
        ["evaluate", "run", "rows.csv"],
        ["report", "run"],
        ["predict", "run", "rows.csv", "--json"],
    ):
        capsys.readouterr()
        assert main(words) == 0, (words, capsys.readouterr().err)
    answers = json.loads(capsys.readouterr().out)
    truth = [row.rsplit(",", 1)[1] for row in rows[1:]]
    assert np.mean([a["predicted"] == t for a, t in zip(answers, truth, strict=True)]) > 0.8
    model, again = (hs.load(run) for run in ("run", "again"))
    data = hs.read("rows.csv", input=Sequences())
    assert np.array_equal(model.predict(data).scores, again.predict(data).scores)
