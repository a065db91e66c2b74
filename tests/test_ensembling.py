"""Several fine-tunings from one head as one model: the mean of their weights or their answers."""

import copy
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Calls, Lines, progress_of
from PIL import Image

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import thawed_by
from headstart.backbones.side_by_side import side_by_side
from headstart.backbones.views import NoChange
from headstart.base.context import RunContext
from headstart.base.deadline import Deadline
from headstart.base.runtime import Runtime
from headstart.base.values import from_plain, to_plain
from headstart.cli.main import main
from headstart.data.splits import Splits
from headstart.explaining.pixels.grad_model import grad_model_of
from headstart.features.engines import TorchEngine
from headstart.heads.mlp import MlpHead
from headstart.modalities.sources import load_backbone, reopened
from headstart.models import ensembling, tuning
from headstart.models.bundle import load_bundle, save
from headstart.models.ensembling import averaged
from headstart.models.fitting import two_phases
from headstart.models.results import Candidate, Candidates
from headstart.models.training_data import TrainingData
from headstart.runs.config import read_config
from headstart.runs.seeds import as_ensemble
from headstart.runs.settings import job_with
from headstart.specs import Augment, FeatureExtraction, FineTune, Job, LogisticSpec, TwoPhaseSpec
from headstart.targets.classes import ClassTarget

THAW = "1"
TUNED = FineTune(thaw=THAW, epochs=2, batch_size=8, lr=3e-3, keep="last")
CONTEXT = RunContext(None, Runtime(threads=1).resolved())
SPECS = (TwoPhaseSpec, FeatureExtraction, FineTune, LogisticSpec, Augment, NoChange)


def pictures(n: int = 160) -> list[tuple[np.ndarray, str]]:
    """Noise over faint stripes, which run down or across."""
    rng, rows = np.random.default_rng(0), []
    down, across = np.mgrid[:32, :32]
    for i in range(n):
        pixels = rng.normal(110, 45, (32, 32, 3))
        stripes = np.sin((across if i % 2 else down) * np.pi / 2 + rng.uniform(0, 6))
        rows.append(((pixels + 12 * stripes[..., None]).clip(0, 255).astype(np.uint8), "ab"[i % 2]))
    return rows


@pytest.fixture(scope="module")
def parts() -> Splits:
    return hs.split(pictures(), val=0.4, test=0.2, store=None)


def copies_of(name: str, thaw: str = THAW, count: int = 3) -> list[Backbone]:
    """Copies of a network that differ in the thawed layers."""
    first = load_backbone(name)
    thawed, made = set(thawed_by(first, thaw)), list[Backbone]()
    for seed in range(count):
        module, generator = copy.deepcopy(first.module), torch.Generator().manual_seed(seed)
        for own, parameter in module.named_parameters():
            if own in thawed:
                parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        made.append(replace(first, module=module.eval()))
    return made


def models_of(name: str, thaw: str = THAW, hidden: int = 0) -> list[hs.Model]:
    rng, models = np.random.default_rng(0), list[hs.Model]()
    for backbone in copies_of(name, thaw):
        widths = [backbone.card.dim, *([hidden] if hidden else []), 3]
        shapes = list(zip(widths, widths[1:], strict=False))
        weights = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
        biases = tuple(rng.normal(size=shape[1]).astype(np.float32) for shape in shapes)
        models.append(hs.Model(backbone, MlpHead(weights, biases), ClassTarget(("a", "b", "c"))))
    return models


def network_of(model: hs.Model) -> Backbone:
    assert isinstance(model.backbone, Backbone)
    return model.backbone


def weights_of(model: hs.Model) -> dict[str, Any]:
    return dict(network_of(model).weights())


def raw_of(model: hs.Model) -> np.ndarray:
    backbone = network_of(model)
    return model.head.raw(TorchEngine(backbone, "cpu")(backbone.card.input.golden())[0])


# ---------------------------------------------------------------- averages


def test_a_soup_of_the_same_model_is_that_model() -> None:
    model = models_of("tiny:32")[0]
    same = averaged("soup", [model, model, model], TUNED)
    assert same.backbone.fingerprint() == model.backbone.fingerprint()
    for name, tensor in model.head.tensors().items():
        np.testing.assert_array_equal(same.head.tensors()[name], tensor)


def test_a_soup_has_the_mean_weights_and_leaves_its_members_as_they_were() -> None:
    models = models_of("tiny:32")
    before = [model.backbone.fingerprint() for model in models]
    found = averaged("soup", models, TUNED)
    states = [weights_of(model) for model in models]
    for name, tensor in weights_of(found).items():
        mean = np.mean([state[name] for state in states], axis=0)
        np.testing.assert_allclose(tensor, mean, atol=1e-6)
    head = np.mean([model.head.tensors()["weight0"] for model in models], axis=0)
    np.testing.assert_allclose(found.head.tensors()["weight0"], head, atol=1e-6)
    assert [model.backbone.fingerprint() for model in models] == before


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize(
    ("name", "thaw"), [("tiny:32", "1"), ("tiny:32", "all"), ("tiny-text:8", "1")]
)
def test_an_ensemble_answers_with_the_mean_raw_outputs_in_pytorch_and_from_its_bundle(
    name: str, thaw: str, hidden: int, tmp_path: Path
) -> None:
    models = models_of(name, thaw, hidden)
    found = averaged("ensemble", models, replace(TUNED, thaw=thaw))
    expected = np.mean([raw_of(model) for model in models], axis=0)
    assert np.abs(raw_of(models[0]) - expected).max() > 0.01  # the control: they differ
    np.testing.assert_allclose(raw_of(found), expected, atol=1e-6)
    save(found, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle").model
    assert loaded.backbone.fingerprint() == found.backbone.fingerprint()
    again = replace(loaded, backbone=reopened(loaded.backbone))  # type: ignore[arg-type]
    np.testing.assert_allclose(raw_of(again), expected, atol=1e-6)
    example = np.full((40, 40, 3), 90, np.uint8) if "text" not in name else "some words of a text"
    told = np.mean([model.logits([example], store=None) for model in models], axis=0)
    np.testing.assert_allclose(loaded.logits([example], store=None), told, atol=2e-6)


def test_what_is_frozen_is_held_and_run_once() -> None:
    copies = copies_of("tiny:32")
    found = side_by_side(copies, THAW)
    thawed = sum(
        p.numel()
        for name, p in copies[0].module.named_parameters()
        if name in thawed_by(copies[0], THAW)
    )
    assert found.card.dim == 96
    assert found.parameters == copies[0].parameters + 2 * thawed
    assert [block.name for block in found.blocks] == ["stem", "body"]
    every = {name for block in found.blocks for name in block.parameters}
    assert every == {name for name, _ in found.module.named_parameters()}


def test_an_ensemble_has_gradients_for_explanations() -> None:
    found = averaged("ensemble", models_of("tiny:32"), TUNED)
    seen = grad_model_of(found)
    squares = torch.full((1, 32, 32, 3), 90.0, requires_grad=True)
    seen.logits(squares)[0, 0].backward()
    assert squares.grad is not None
    assert squares.grad.abs().max() > 0


def test_an_ensemble_is_not_loaded_by_name() -> None:
    with pytest.raises(hs.HeadstartError, match="is made by training, with --seeds N --ensemble"):
        load_backbone("ensemble:tiny:32")


# ---------------------------------------------------------------- the choice


def fitted(parts: Splits, thaw: str = THAW, lr: float = 0.03, **more: Any) -> Candidates:
    tuned = replace(TUNED, thaw=thaw, lr=lr, epochs=more.pop("epochs", 3))
    context = replace(CONTEXT, deadline=more.pop("deadline", Deadline()))
    spec = TwoPhaseSpec(FeatureExtraction(), tuned, members=3, **more)
    return two_phases(spec, load_backbone("tiny:32"), parts, context)


def test_each_fine_tuning_starts_from_the_same_head_with_another_seed(parts: Splits) -> None:
    found = fitted(parts, epochs=1, refit=False)
    phases = [line.phase for line in found.history]
    assert phases == ["head", *["finetune"] * 2, *["finetune-2"] * 2, *["finetune-3"] * 2]
    losses = [line.train_loss for line in found.history[1:]]
    assert len({*losses[::2]}) == 1
    assert len({*losses[1::2]}) == 3
    alone = two_phases(
        TwoPhaseSpec(FeatureExtraction(), replace(TUNED, lr=0.03, epochs=1), refit=False),
        *(load_backbone("tiny:32"), parts, CONTEXT),
    )
    one, first = (c.made["finetune"].fitted.model for c in (alone, found))
    assert one.backbone.fingerprint() == first.backbone.fingerprint()


def by_hand(members: list[Candidate], parts: Splits) -> tuple[str, tuple[int, ...]]:
    """The average to be chosen, and its members, in the order in which a soup takes them."""
    val = hs.extract(parts.val, backbone="tiny:32", store=None)
    order = sorted(range(3), key=lambda i: members[i].merit, reverse=True)

    def merit(chosen: list[int]) -> tuple[float, ...]:
        model = averaged("soup", [members[i].fitted.model for i in chosen], TUNED)
        table = hs.extract(parts.val, backbone=network_of(model), store=None)
        return Candidate(replace(members[0].fitted, model=model), table).merit

    kept = order[:1]
    for i in order[1:]:
        kept = [*kept, i] if merit([*kept, i]) >= merit(kept) else kept
    target = members[0].fitted.model.target
    raw = np.mean([m.fitted.model.head.raw(m.table.x) for m in members], axis=0)
    if len(kept) == 1 or target.merit(target.activate(raw), val.y) > merit(kept):
        return "ensemble", (0, 1, 2)
    return "soup", tuple(kept)


@pytest.mark.parametrize(("thaw", "lr"), [("1", 0.03), ("all", 0.03), ("1", 0.1)])
def test_the_average_that_is_better_on_validation_is_a_candidate(
    parts: Splits, thaw: str, lr: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, own = list[Candidate](), ensembling._member

    def spy(*args: Any) -> Candidate:
        made.append(own(*args))
        return made[-1]

    monkeypatch.setattr(ensembling, "_member", spy)
    found = fitted(parts, thaw, lr, refit=False)
    name, chosen = by_hand(made, parts)
    assert list(found.made) == ["head", "finetune", name]
    assert found.made["finetune"].merit == made[0].merit
    assert tuple(found.made[name].fitted.chosen["seeds"]) == chosen
    assert found.kept == max(found.made, key=lambda n: found.made[n].merit)


def test_no_more_fine_tunings_are_begun_after_the_deadline(parts: Splits) -> None:
    lines = Lines()
    late = Deadline(3600.0)
    calls = Calls(epoch=lambda phase, number, figures: late.end() and None, stage=lines.stage)
    context = replace(CONTEXT, listener=calls, deadline=late)
    spec = TwoPhaseSpec(FeatureExtraction(), replace(TUNED, epochs=1), members=3, refit=False)
    found = two_phases(spec, load_backbone("tiny:32"), parts, context)
    assert list(found.made) == ["head", "finetune"]
    assert lines.of("ensemble") == ["left out: its time is over"]


def test_a_strategy_that_fine_tunes_keeps_the_best_of_what_was_fine_tuned(parts: Splits) -> None:
    found = fitted(parts, refit=False, keep="finetune", lr=1e-3)
    tuned = {name: c.merit for name, c in found.made.items() if name != "head"}
    assert found.kept == max(tuned, key=lambda name: tuned[name])


def test_without_validation_rows_the_soup_is_of_all(parts: Splits) -> None:
    found = fitted(replace(parts, val=parts.val.take([])), keep="finetune")
    assert found.kept == "soup"
    assert found.made["soup"].fitted.chosen == {"seeds": [0, 1, 2], "by": "the mean of all"}


@pytest.mark.parametrize("name", ["soup", "ensemble"])
def test_a_refit_averages_again_in_the_way_that_was_chosen(
    parts: Splits, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(data: TrainingData, members: list[Candidate]) -> tuple[str, Candidate]:
        return name, ensembling._candidate(name, data, members[1:])

    monkeypatch.setattr(ensembling, "_average", chosen)
    monkeypatch.setattr("headstart.models.fitting._kept", lambda spec, made: name)
    again = list[tuple[str, hs.Model]]()
    own = tuning.tune_again

    def spy(*args: Any) -> hs.Model | None:
        if (model := own(*args)) is not None:
            again.append((args[-1], model))
        return model

    monkeypatch.setattr(tuning, "tune_again", spy)
    found = fitted(parts, epochs=1, deadline=Deadline(3600.0))  # its time is estimated first
    assert [phase for phase, _ in again] == ["refit-2", "refit-3"]
    assert len({model.backbone.fingerprint() for _, model in again}) == 2
    expected = averaged(name, [model for _, model in again], replace(TUNED, thaw=THAW))
    assert found.refit is not None
    refitted = found.refit.model
    assert refitted.backbone.fingerprint() == expected.backbone.fingerprint()
    assert refitted.backbone.fingerprint() != found.made[name].fitted.model.backbone.fingerprint()


# ---------------------------------------------------------------- runs


@pytest.fixture
def job(tmp_path: Path) -> Job:
    tuned = replace(TUNED, epochs=2, lr=0.03)
    store = hs.Store(tmp_path / "store")
    return Job(
        backbone="tiny:32",
        store=store,
        finetune=tuned,
        members=2,
        strategy="finetune",
        insights="none",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of `pictures`, one per class."""
    for i, (pixels, label) in enumerate(pictures(48)):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i:02}.png")
    return tmp_path / "data"


@pytest.mark.parametrize(("name", "language"), [("soup", "en"), ("ensemble", "en"), ("soup", "ru")])
def test_a_run_tells_its_average_and_its_bundle_predicts_as_it_does(
    folder: Path, tmp_path: Path, job: Job, name: str, language: Any, monkeypatch: Any
) -> None:
    def chosen(data: TrainingData, members: list[Candidate]) -> tuple[str, Candidate]:
        return name, ensembling._candidate(name, data, members)

    monkeypatch.setattr(ensembling, "_average", chosen)
    monkeypatch.setattr("headstart.models.fitting._kept", lambda spec, made: name)
    lines = Lines()
    job = replace(job, language=language)
    run = hs.train(hs.read(folder), tmp_path / "run", job, lines)
    assert run.kept == name
    assert lines.of("ensemble")[0].startswith(f"{name} of 2 of 2 fine-tunings")
    recipe = json.loads((run.folder / "recipe.json").read_text())
    assert (recipe["members"], recipe["chosen"][name]["seeds"]) == (2, [0, 1])
    assert read_config(run.folder).members == 2
    page = (run.folder / "report.html").read_text()
    told = {
        "en": {"soup": "is as fast as one", "ensemble": "at most 2 times as long"},
        "ru": {"soup": "так же быстра, как одна", "ensemble": "больше времени, чем у одной сети"},
    }
    assert told[language][name] in page
    loaded = hs.load(run.folder)
    np.testing.assert_allclose(
        loaded.logits(folder, store=None), run.model.logits(folder, store=None), atol=1e-6
    )
    assert np.isfinite(run.model.limits.far)
    shown = hs.explain(run, next(folder.glob("a/*.png")))
    assert shown is not None


@pytest.mark.long
@pytest.mark.parametrize(("phase", "at"), [("finetune-2", 3), ("refit", 4)])
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(
    folder: Path, tmp_path: Path, job: Job, phase: str, at: int
) -> None:
    data = hs.read(folder)
    whole = hs.train(data, tmp_path / "whole", job).folder

    def press(done: int, total: int) -> None:
        if done == at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        hs.train(data, tmp_path / "broken", job, progress_of(phase, press))
    assert (tmp_path / "broken" / f"checkpoint-{phase}.safetensors").is_file()
    broken = hs.train(data, tmp_path / "broken", replace(job, resume=True)).folder
    for name in ("model/weights.safetensors", "predictions.csv", "recipe.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


@pytest.mark.long
def test_folds_judge_an_ensemble(folder: Path, tmp_path: Path, job: Job) -> None:
    run = hs.train(hs.read(folder), tmp_path / "run", replace(job, folds=2))
    assert {fold.kept for fold in run.folds} <= {"finetune", "soup", "ensemble"}
    assert run.evaluation.n == 48


def test_the_flag_makes_one_run_of_several_seeds(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--backbone", "tiny:32", "--epochs", "1", "--store", str(tmp_path / "store")]
    flags = ["--seeds", "2", "--ensemble", "--insights", "none", *more]
    assert main(["train", str(folder), "--out", str(tmp_path / "dry"), *flags, "--dry-run"]) == 0
    assert "2 fine-tunings" in capsys.readouterr().out
    assert main(["train", str(folder), "--out", str(tmp_path / "run"), *flags]) == 0
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["members"] == 2
    assert not (tmp_path / "run" / "seeds.json").exists()


def test_fitting_in_memory_averages_too(parts: Splits) -> None:
    found = hs.fit(parts, backbone="tiny:32", store=None, epochs=1, members=2, refit=False)
    assert any(line.phase == "finetune-2" for line in found.history)
    with pytest.raises(hs.HeadstartError, match="leave model or members out"):
        hs.fit(parts, model=found, members=2, store=None)


def test_a_recipe_without_members_is_of_one_and_is_written_without(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    assert read_config(tmp_path / "recipe.json").members == 1
    assert "members" not in to_plain(TwoPhaseSpec())
    spec = TwoPhaseSpec(members=3)
    assert from_plain(to_plain(spec), *SPECS) == spec


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "extract"}, "of fine-tunings with several seeds, and this trains no layers"),
        ({"strategy": "scratch"}, "of fine-tunings with several seeds, and this trains no layers"),
        ({"head": "nearest", "strategy": "auto"}, "this trains no layers"),
        ({"adversarial": 0.01}, "which is not what adversarial training is for"),
        ({"members": 0}, "of 2 to 100 fine-tunings, and members=1 is none; got 0"),
        ({"members": 101}, "of 2 to 100 fine-tunings"),
        ({"shots": 5, "strategy": "auto"}, "ensemble does not go with it"),
    ],
)
def test_what_cannot_be_averaged_is_refused(job: Job, settings: Any, message: str) -> None:
    with pytest.raises(hs.HeadstartError, match=message):
        job_with(job, settings)


def test_an_ensemble_of_one_seed_is_refused() -> None:
    with pytest.raises(hs.HeadstartError, match="say how many, as in --seeds 3"):
        as_ensemble(Job(), 1)
    assert as_ensemble(Job(members=4), 1).members == 4
    assert as_ensemble(Job(members=4), 3).members == 3


def test_a_head_without_layers_to_average_is_refused(parts: Splits) -> None:
    head = torch.nn.Sequential(torch.nn.LayerNorm(32), torch.nn.Linear(32, 2))
    with pytest.raises(hs.HeadstartError, match="averages what heads of linear layers answer"):
        hs.fit(parts, backbone="tiny:32", head=head, members=2, store=None, head_epochs=1)
