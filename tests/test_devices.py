"""Looking into a network on an accelerator: models and inputs go there, and results come back.

No accelerator is needed: see `fake_device`. What one computes is compared in test_cuda.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import FakeCuda, marked
from PIL import Image
from test_explain_texts import planted

import headstart as hs
from headstart.base.errors import SpecError
from headstart.cli.main import main
from headstart.explaining.pixels.attributing import attribute
from headstart.explaining.pixels.grad_model import grad_model_of
from headstart.explaining.pixels.ideal import ascend
from headstart.explaining.pixels.ideal_plan import IdealPlan
from headstart.explaining.pixels.method import METHODS
from headstart.explaining.pixels.probed_model import probed_model_of
from headstart.explaining.pixels.robust import trials
from headstart.explaining.tokens.attributing import attribute_tokens
from headstart.explaining.tokens.text_model import text_model_of
from headstart.models.model import Model
from headstart.specs import RobustnessPlan


@pytest.fixture
def cuda() -> Iterator[FakeCuda]:
    with FakeCuda() as device:
        yield device


@pytest.fixture
def detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch says that the accelerator is there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture(scope="module")
def pictures() -> list[tuple[Any, str]]:
    rng = np.random.default_rng(0)
    levels = {"dark": 110, "bright": 145}
    made = [
        (rng.normal(level, 30, (24, 30, 3)).clip(0, 255).astype(np.uint8), name)
        for name, level in levels.items()
        for _ in range(12)
    ]
    return [(Image.fromarray(pixels), name) for pixels, name in made]


@pytest.fixture(scope="module")
def model(pictures: Any) -> Model:
    return hs.fit(pictures, backbone="tiny:32", strategy="extract", store=None).model


@pytest.fixture(scope="module")
def text_model() -> Model:
    data = hs.read(planted(60), input="text")
    return hs.fit(data, backbone="tiny-text:32", strategy="extract", store=None).model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import write_shapes

    root = tmp_path_factory.mktemp("devices")
    data = write_shapes(root / "shapes")
    job = hs.specs.Job(backbone="tiny:32", strategy="extract", store=hs.Store(root / "store"))
    return hs.train(hs.read(data), root / "run", job).folder


def squares(count: int = 3) -> Any:
    rng = np.random.default_rng(1)
    return rng.integers(0, 255, (count, 32, 32, 3)).astype(np.uint8)


def test_the_control_a_tensor_on_the_wrong_side_is_found(cuda: FakeCuda) -> None:
    layer = torch.nn.Linear(2, 2).to("cuda")
    assert marked(layer.weight)
    with pytest.raises(RuntimeError, match="same device"):
        layer(torch.ones(1, 2))
    with pytest.raises(TypeError, match="numpy"):
        layer(torch.ones(1, 2).to("cuda")).detach().numpy()
    assert layer(torch.ones(1, 2).to("cuda")).cpu().detach().numpy().shape == (1, 2)


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_pictures_are_made_there(model: Model, cuda: FakeCuda, method: Any) -> None:
    numbers = np.array([0, 1, 1])

    def maps(device: str) -> list[Any]:
        probed = probed_model_of(grad_model_of(model, device=device))
        return [m.values for m in attribute(probed, squares(), numbers, method)]

    here, moved = maps("cpu"), cuda.moved
    there = maps("cuda")
    assert cuda.moved > moved
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4 * np.abs(one).max())


def test_the_model_of_the_caller_stays_where_it_was(model: Model, cuda: FakeCuda) -> None:
    moved = grad_model_of(model, device="cuda")
    assert all(marked(p) for p in moved.network.parameters())
    assert not any(marked(p) for p in model.backbone.module.parameters())  # type: ignore[union-attr]


def test_an_ideal_picture_is_drawn_there(model: Model, cuda: FakeCuda) -> None:
    def last(device: str) -> Any:
        *_, end = ascend(grad_model_of(model, device=device), 1, IdealPlan(steps=6, octaves=1))
        return end

    here, moved = last("cpu"), cuda.moved
    there = last("cuda")
    assert cuda.moved > moved + 6  # every step
    assert there.log_odds == pytest.approx(here.log_odds, abs=1e-3)


def test_robustness_is_measured_there(model: Model, cuda: FakeCuda) -> None:
    plan = RobustnessPlan(epsilons=(8 / 255,), steps=2, corruptions=("fog",))

    def results(device: str) -> Any:
        *_, end = trials(
            grad_model_of(model, device=device), squares(4), np.array([0, 1, 0, 1]), plan
        )
        return end

    here, moved = results("cpu"), cuda.moved
    assert results("cuda") == here
    assert cuda.moved > moved


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.usefixtures("detected")
def test_pictures_are_attacked_there(run: Path, cuda: FakeCuda, norm: Any) -> None:
    picture = sorted((run.parent / "shapes").rglob("*.png"))[0]
    how = {"norm": norm, "steps": 2, "restarts": 1, "epsilon": 4 / 255 if norm == "linf" else 1.0}
    (here,), moved = hs.attack(run, picture, device="cpu", **how), cuda.moved
    (there,) = hs.attack(run, picture, device="cuda", **how)
    assert cuda.moved > moved
    assert np.abs(there.changed.astype(int) - here.changed).max() <= 1


@pytest.mark.usefixtures("detected")
@pytest.mark.parametrize("command", ["explain", "attack"])
def test_the_flag_names_the_device(
    run: Path, tmp_path: Path, cuda: FakeCuda, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = sorted((run.parent / "shapes").rglob("*.png"))[0]
    words = [command, str(run), str(picture), "--out", str(tmp_path / "out"), "--device", "cuda"]
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    assert main(words) == 0
    assert cuda.moved
    moved = cuda.moved
    assert main([*words[:4], str(tmp_path / "here"), "--device", "cpu"]) == 0
    assert cuda.moved == moved


def test_a_device_that_is_not_there_is_refused(run: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SpecError, match="no cuda device"):
        hs.explain(run, device="cuda")
    with pytest.raises(SpecError, match="no cuda device"):
        hs.robustness(run, device="cuda")


def test_texts_are_explained_there(text_model: Model, cuda: FakeCuda) -> None:
    def found(device: str) -> Any:
        opened = text_model_of(text_model, device)
        places = opened.places("a rainy day")
        gone = np.stack([np.zeros_like(places.own), places.own])
        return attribute_tokens(opened, places, 1).values, opened.features_without(places, gone)

    here, moved = found("cpu"), cuda.moved
    there = found("cuda")
    assert cuda.moved > moved
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)
