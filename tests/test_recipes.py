"""The tutorials' recipes: their counts, and that each runs through the real code."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformer_folders import films, write_model

import headstart as hs
from headstart.base.errors import UnknownName
from headstart.cli.main import main
from headstart.heads.specs import LinearSpec, MlpSpec, TrainedSpec
from headstart.modalities.images.augment import Augment
from headstart.models.finetuning import ThawedBackbone, thaw
from headstart.models.specs import FeatureExtraction
from headstart.runs import recipes
from headstart.runs.recipes import RECIPES
from headstart.training.history import Count, ParameterCount
from headstart.training.network import count, new_head

SLOW = {"resnet50-last5"}  # of which resnet50-frozen runs the same network
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in RECIPES
    if name != "default"
]


def opened(name: str) -> ThawedBackbone:
    job = recipes.get_recipe(name).job
    backbone = hs.load_backbone(job.backbone, weights="random")
    settings = job.finetune.resolved(backbone, 1e-3)
    return thaw(backbone, settings.thaw, settings.thaw_from)


def counted(name: str, classes: int, *, thawed: bool) -> Count:
    """What a phase of a recipe trains and what it leaves alone."""
    job, network = recipes.get_recipe(name).job, opened(name)
    layers = job.recipe.head if isinstance(job.recipe.head, TrainedSpec) else LinearSpec()
    head = new_head(layers, network.backbone.card.dim, classes, seed=0)
    if not thawed:
        network = replace(network, thawed=())
    if job.strategy == "scratch":
        network = thaw(network.backbone, "all")
    return count(network.backbone.module, network.network(head, "frozen"))


def test_mobilenetv2_counts() -> None:
    first = counted("mobilenetv2-two-phase", 2, thawed=False)
    assert first == Count(ParameterCount(2_257_984, 260), ParameterCount(1_281, 2))
    second = counted("mobilenetv2-two-phase", 2, thawed=True)
    assert second.trainable == ParameterCount(1_862_721, 56)
    layers = opened("mobilenetv2-two-phase").backbone.module.layers
    assert isinstance(layers, tuple)
    assert len(layers) == 154
    assert layers[100] == "block_11_expand_relu"


def test_vgg16_counts() -> None:
    both = counted("vgg16-frozen", 10, thawed=False)
    assert (both.frozen.parameters, both.trainable.parameters) == (14_714_688, 535_562)


@pytest.mark.long
def test_resnet50_counts() -> None:
    assert counted("resnet50-frozen", 10, thawed=False).trainable.parameters == 20_490
    last5 = opened("resnet50-last5")
    assert {name.split(".")[0] for name in last5.thawed} == {
        "conv5_block3_3_conv",
        "conv5_block3_3_bn",
    }


def test_resnet18_counts() -> None:
    assert counted("resnet18-head", 10, thawed=False).trainable.parameters == 5_130


def test_small_cnn_counts() -> None:
    both = counted("cnn-from-scratch", 10, thawed=True)
    assert (both.frozen.parameters, both.trainable.parameters) == (0, 315_722)


@pytest.mark.long
def test_bert_counts() -> None:
    both = counted("bert-reviews", 2, thawed=True)
    assert (both.frozen.parameters, both.trainable.parameters) == (0, 109_482_240 + 1_538)


def test_the_cut_of_mobilenetv2_is_the_last_point_that_one_tensor_crosses() -> None:
    """Layer 100 lies inside a residual block: the cut is before the block, and what is frozen
    beyond it stays frozen."""
    network = opened("mobilenetv2-two-phase")
    assert network.cut is not None
    assert network.cut.shape == (96, 10, 10)
    tail = {name for name, _ in network.cut.tail.named_parameters()}
    frozen_beyond = tail - set(network.thawed)
    assert {name.split(".")[0] for name in frozen_beyond} == {
        "block_11_expand",
        "block_11_expand_BN",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, 8 pictures each."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, level in {"dark": 60, "bright": 190}.items():
        (root / name).mkdir()
        for i in range(8):
            pixels = rng.normal(level, 30, size=(40, 50, 3)).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def source_of(name: str, pictures: Path, folder: Path) -> list[str]:
    """The data for a recipe; for those of texts, a tiny BERT as well."""
    if not name.startswith("bert-"):
        return [str(pictures)]
    lines = [f"{text},{label}" for text, label in films(30)]
    (folder / "films.csv").write_text("\n".join(["text,label", *lines]))
    network = write_model(folder / "bert", "bert")
    return [str(folder / "films.csv"), "--backbone", f"hf:{network}@pooler"]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", *source_of(name, folder, tmp_path), "--out", str(out), "--recipe", name]
    command += ["--weights", "random"]
    job = recipes.get_recipe(name).job  # a flag that a recipe has no use for is refused
    trained = job.recipe.head.by_epochs and job.strategy != "scratch"
    short = ["--head-epochs", "2"] if trained else []
    short += ["--epochs", "1"] if job.strategy != "extract" else []
    short += ["--views", "1"] if job.augment.active else []
    assert main([*command, *short, "--store", str(tmp_path / "store")]) == 0
    recipe = json.loads((out / "recipe.json").read_text())
    printed = capsys.readouterr()
    for phase in recipe["phases"].values():
        assert f"{phase['trainable']['parameters']:,} trainable parameters" in printed.err
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert {row["phase"] for row in rows} == set(recipe["phases"])
    assert (out / "model" / "manifest.json").exists()


def test_recipes_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in RECIPES)
    assert main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["mobilenetv2-two-phase"]["finetune"]["thaw_from"] == 100


def test_a_flag_changes_a_recipe(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "run"
    command = ["train", str(folder), "--out", str(out), "--recipe", "cnn-from-scratch"]
    assert main([*command, "--epochs", "1", "--lr", "0.01"]) == 0
    settings = json.loads((out / "recipe.json").read_text())["finetune"]
    assert (settings["epochs"], settings["lr"], settings["batch_size"]) == (1, 0.01, 64)


def test_what_is_thawed_can_be_changed_by_either_flag(tmp_path: Path, folder: Path) -> None:
    command = ["train", str(folder), "--recipe", "mobilenetv2-two-phase", "--weights", "random"]
    command += ["--head-epochs", "1", "--epochs", "1", "--views", "1", "--backbone", "tiny:8"]
    for n, (flags, blocks, layer) in enumerate(
        [(["--thaw", "1"], "1", None), (["--thaw-from", "-3"], "auto", -3)]
    ):
        out = tmp_path / str(n)
        assert main([*command, "--out", str(out), *flags]) == 0
        settings = json.loads((out / "recipe.json").read_text())["finetune"]
        assert (settings["thaw"], settings["thaw_from"]) == (blocks, layer)


def test_an_unknown_recipe_is_refused_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UnknownName, match="vgg16-frozen"):
        recipes.get_recipe("vgg16-frosen")
    assert main(["train", "x", "--out", "y", "--recipe", "resnet18"]) == 2
    assert "resnet18-head" in capsys.readouterr().err


def test_recipes_keep_to_the_tutorials_letter() -> None:
    two = recipes.get_recipe("mobilenetv2-two-phase").job
    assert two.recipe.head == LinearSpec(lr=1e-4, dropout=0.2, output="sigmoid", keep="last")
    assert (two.finetune.optimizer, two.finetune.lr) == ("rmsprop", 1e-5)
    assert isinstance(two.augment, Augment)
    assert (two.augment.flip, two.augment.rotation) == ("horizontal", 0.2)
    assert two.split.test / (two.split.val + two.split.test) == pytest.approx(0.2)
    bert = recipes.get_recipe("bert-reviews").job
    assert (bert.finetune.optimizer, bert.finetune.lr) == ("adamw", 2e-5)
    assert (bert.finetune.epochs, bert.finetune.batch_size, bert.finetune.warmup) == (3, 32, 0.1)
    vgg = recipes.get_recipe("vgg16-frozen").job
    assert isinstance(vgg.recipe, FeatureExtraction)
    assert vgg.recipe.head == MlpSpec(hidden=(1024,), batch_size=64, keep="last")
