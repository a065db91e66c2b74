"""On an accelerator: what a CPU gives, to the rounding of the number formats used there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headstart as hs
from headstart.base.runtime import ON_CPU, Runtime
from headstart.data.splits import split
from headstart.explaining.pixels.grad_model import grad_model_of
from headstart.explaining.pixels.robust import trials
from headstart.explaining.pixels.squares import input_squares
from headstart.features.extract import extract
from headstart.models.bundle import load_bundle, save
from headstart.models.fitting import fit
from headstart.specs import FeatureExtraction, FineTune, RobustnessPlan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")
CUDA = Runtime(device="cuda")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes that are hard to tell apart, so that no score is 0 or 1; 20 pictures each."""
    rng = np.random.default_rng(0)
    for name, level in {"dark": 120, "bright": 135}.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.normal(level + rng.normal(0, 20), 30, (20, 20, 3)).clip(0, 255)
            Image.fromarray(pixels.astype("uint8")).save(tmp_path / f"pictures/{name}/{i:02}.png")
    return tmp_path / "pictures"


def test_features_are_those_of_a_cpu(pictures: Path) -> None:
    backbone, data = hs.load_backbone("tiny:32"), hs.read(pictures)
    expected = extract(backbone, data, runtime=ON_CPU).x
    found = extract(backbone, data, runtime=CUDA).x
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())
    assert not np.array_equal(found, expected)


@pytest.mark.parametrize("adversarial", [0.0, 2 / 255])
@pytest.mark.parametrize("thaw", ["1", "all"])
def test_what_is_trained_there_says_the_same_as_its_bundle_on_a_cpu(
    pictures: Path, tmp_path: Path, adversarial: float, thaw: str
) -> None:
    data = hs.read(pictures)
    parts = split(data)
    recipe = FineTune(epochs=2, lr=1e-3, thaw=thaw, adversarial=adversarial)
    head = fit(FeatureExtraction(), "tiny:32", parts, store=None, runtime=CUDA).model
    model = fit(recipe, head, parts, store=None, runtime=CUDA).model
    there = model.predict(data, store=None, runtime=CUDA).scores
    folder = save(model, tmp_path / "bundle").folder
    here = load_bundle(folder).model.predict(data, store=None).scores
    assert np.abs(here - head.predict(data, store=None).scores).max() > 0.02  # it has learned
    np.testing.assert_allclose(here, there, atol=0.02)


def test_a_model_made_there_is_looked_into_on_a_cpu(pictures: Path) -> None:
    parts = split(hs.read(pictures))
    head = fit(FeatureExtraction(), "tiny:32", parts, store=None, runtime=CUDA).model
    model = fit(FineTune(epochs=1, thaw="all"), head, parts, store=None, runtime=CUDA).model
    grad_model = grad_model_of(model)
    tried = input_squares(grad_model.input, parts.test)
    said = model.predict(tried.data, store=None, runtime=CUDA).scores
    with torch.no_grad():
        logits = grad_model.logits(torch.from_numpy(tried.squares).float())
    np.testing.assert_allclose(torch.softmax(logits, dim=1), said, atol=0.02)
    plan = RobustnessPlan(epsilons=(8 / 255,), steps=2, corruptions=("fog",))
    *_, found = trials(grad_model, tried.squares, tried.data.y, plan)
    assert len(found.attacked) == 2
