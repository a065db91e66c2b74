"""Fine-tuning on boxes: from the cut, with the strides below it from the store."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_boxes_training import made, same_models
from torch import nn

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import thawed_by
from headstart.backbones.strides import levels_cut, levels_of
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.models.level_tuning import with_thawed
from headstart.models.training_data import Start
from headstart.specs import FineTune

NETWORK = "timm:test_resnet"
SETTINGS: dict[str, Any] = {
    "backbone": NETWORK,
    "weights": "random",
    "size": 96,
    "head": "pyramid",
    "head_epochs": 6,
    "flip": "horizontal",
    "views": 2,
    "strategy": "auto",
    "thaw": "2",
    "epochs": 3,
    "lr": 1e-3,
    "batch_size": 8,
    "compute_precision": "float32",
}


class Small(nn.Module):
    """Five stages, each of stride 2, and a last convolution."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 12, 16, 20, 24)
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False), start=1):
            layers = nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()
            setattr(self, f"stage{i}", nn.Sequential(*layers))
        self.last = nn.Conv2d(24, 128, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(1, 6):
            x = getattr(self, f"stage{i}")(x)
        pooled: torch.Tensor = self.last(x).mean((2, 3))
        return pooled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("boxes") / "data", n=30)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(data: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return hs.train(data, tmp_path_factory.mktemp("runs") / "run", store=store, **SETTINGS)


@pytest.fixture(scope="module")
def small() -> Backbone:
    torch.manual_seed(0)
    own = hs.wrap(Small().eval(), size=96, mean=0.5, std=0.25)
    input = own.card.input.finding(np.array([[96, 72]]), 96)
    return replace(own, card=replace(own.card, input=input))


# ---------------------------------------------------------------- the cut
@pytest.mark.parametrize(("thaw", "extra"), [("stage5", 0), ("stage4", 0), ("stage3", 12)])
def test_levels_above_the_cut_are_computed_anew(small: Backbone, thaw: str, extra: int) -> None:
    levels = levels_of(small)
    cut = levels_cut(small, thawed_by(small, thaw))
    assert cut is not None
    x = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        row = cut.trunk(x)
        assert torch.equal(row[:, : levels.size], levels.trunk(x))
        assert cut.shape == (row.shape[1],) == (levels.size + extra * 16 * 24,)
        assert torch.allclose(cut.tail(row), levels.trunk(x), atol=1e-6)
        stored = row.clone()
        above = {"stage5": 2, "stage4": 1, "stage3": 0}[thaw]
        sizes = [c * h * w for c, h, w in levels.shapes]
        stored[:, sum(sizes[:above]) : levels.size] = torch.nan  # what the tail must not read
        assert torch.allclose(cut.tail(stored), levels.trunk(x), atol=1e-6)


def test_without_frozen_layers_there_is_no_cut(small: Backbone) -> None:
    assert levels_cut(small, thawed_by(small, "all")) is None


def test_blocks_count_from_the_deepest_level(small: Backbone) -> None:
    start = Start(small, levels=levels_of(small))
    own = with_thawed(start, FineTune(thaw="1"), 1e-3)
    assert own.thawed is not None
    assert {name.partition(".")[0] for name in own.thawed.thawed} == {"stage5"}
    assert own.settings is not None
    assert own.settings.lr == 1e-4
    half = with_thawed(start, FineTune(), 1e-3).settings
    assert half is not None
    assert half.thaw == "2"  # of five
    for thaw, why in {"all": "frozen", "last": "above"}.items():
        with pytest.raises(SpecError, match=why):
            with_thawed(start, FineTune(thaw=thaw), 1e-3)


# ---------------------------------------------------------------- the whole way
@pytest.mark.long
def test_both_phases_are_judged_by_average_precision(run: Any) -> None:
    assert list(run.candidates) == ["head", "finetune"]
    merits = {name: found.metrics["AP"].value for name, found in run.candidates.items()}
    assert run.kept == max(merits, key=lambda name: merits[name])
    history = run.history
    assert [line.epoch for line in history if line.phase == "finetune"] == [6, 7, 8, 9]
    assert run.counts["finetune"].trainable.parameters > run.counts["head"].trainable.parameters


@pytest.mark.long
def test_fine_tuning_begins_with_the_head(run: Any) -> None:
    phases = {name: [x for x in run.history if x.phase == name] for name in ("head", "finetune")}
    last, first = phases["head"][-1], phases["finetune"][0]
    assert first.val_loss == pytest.approx(last.val_loss, rel=0.02)  # activations are float16
    assert min(x.val_loss for x in phases["finetune"]) < last.val_loss


@pytest.mark.long
def test_a_run_of_both_phases_is_repeated_by_its_recipe(
    run: Any, data: Path, store: Path, tmp_path: Path
) -> None:
    again = hs.train(
        data,
        tmp_path / "again",
        store=store,
        config=run.folder / "recipe.json",
        compute_precision="float32",
    )
    assert (again.folder / "recipe.json").read_bytes() == (run.folder / "recipe.json").read_bytes()
    assert same_models(run.folder, again.folder)
    assert again.timings.backbone_forwards == 0


class Stopped(Exception):
    pass


SLOW = pytest.mark.slow


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "step"),
    [
        pytest.param("head", 5, marks=SLOW),
        pytest.param("finetune", 1, marks=SLOW),
        ("finetune", 5),
    ],
)
def test_a_stopped_run_of_both_phases_goes_on_to_the_same_bytes(
    run: Any, data: Path, store: Path, tmp_path: Path, stage: str, step: int
) -> None:
    class StopAt(Listener):
        def progress(self, name: str, done: int, total: int) -> None:
            if name == stage and done == step:
                raise Stopped

    with pytest.raises(Stopped):
        hs.train(data, tmp_path / "run", store=store, listener=StopAt(), **SETTINGS)
    again = hs.train(data, tmp_path / "run", store=store, **SETTINGS)
    assert same_models(run.folder, again.folder)


def test_a_network_of_the_users_is_fitted_in_memory(data: Path) -> None:
    own = hs.wrap(Small().eval(), size=96, mean=0.5, std=0.25)
    named = {k: v for k, v in SETTINGS.items() if k not in ("backbone", "weights")}
    settings = {**named, "head_epochs": 2, "epochs": 1, "lr": 1e-6, "strategy": "finetune"}
    fitted = hs.fit(data, backbone=own, store=None, **settings)
    assert [line.phase for line in fitted.history] == ["head"] * 3 + ["finetune"] * 2
    assert fitted.chosen["epoch"] >= 2  # of fine-tuning, which the strategy asked for
    said = fitted.predict([data / "images" / "p00.png"], store=None)
    assert said.outputs["boxes"].shape[0] == 1
