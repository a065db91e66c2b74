"""Models seen whole: the scores that they give, and gradients back to the pixels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.graph import freeze
from headstart.base.errors import Mismatch, SpecError, UnknownName
from headstart.explaining.pixels.forward import Forward
from headstart.explaining.pixels.grad_model import (
    GradModel,
    Squares,
    grad_model_of,
    source_grad_model,
)
from headstart.features.engines import TorchEngine
from headstart.heads.head import Head
from headstart.heads.nearest import NearestHead
from headstart.heads.specs import LinearSpec
from headstart.models.bundle import save
from headstart.models.limits import Limits
from headstart.models.model import Model
from headstart.targets.classes import ClassTarget
from headstart.training.network import head_of, new_head

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny": lambda: hs.load_backbone("tiny:32"),
    "packaged": lambda: hs.load_backbone("packaged:efficientnet_lite0"),
    "timm convolutional": lambda: hs.load_backbone("timm:test_efficientnet", weights="random"),
    "timm transformer": lambda: hs.load_backbone("timm:test_vit", weights="random"),
    "keras": lambda: hs.load_backbone("keras:MobileNet@32", weights="random"),
    "from scratch": lambda: hs.load_backbone("scratch:cnn"),
}


def model_on(backbone: Backbone, head: Head | None = None) -> Model:
    head = head or head_of(new_head(LinearSpec(), backbone.card.dim, 3, seed=1))
    names = ("ant", "bee", "cat")[: head.classes]
    return Model(backbone, head, ClassTarget(names, "ant"), Limits(temperature=1.5))


def squares_for(grad_model: GradModel, n: int = 2) -> Squares:
    size = grad_model.input.size
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def scores_by(model: Model, squares: Squares) -> np.ndarray:
    assert isinstance(model.backbone, Backbone)
    (x,) = TorchEngine(model.backbone, "cpu")({"pixels": squares})
    return np.log(model.head.scores(x)) / model.limits.temperature


@pytest.mark.long
@pytest.mark.parametrize("name", BACKBONES)
def test_a_saved_model_is_seen_as_it_scores(name: str, tmp_path: Path) -> None:
    model = model_on(BACKBONES[name]())
    grad_model = grad_model_of(save(model, tmp_path / "bundle").model)
    squares = squares_for(grad_model)
    logits = scores_by(model, squares)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(grad_model.scores(squares), expected, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_fastest_engine_says_what_the_network_says(name: str) -> None:
    grad_model = grad_model_of(model_on(BACKBONES[name]()))
    squares = squares_for(grad_model, 9)  # more than an engine takes at once
    np.testing.assert_allclose(
        Forward(grad_model).scores(iter(squares)), grad_model.scores(squares), atol=1e-4
    )


def test_the_graph_of_a_bundle_is_not_exported_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grad_model = grad_model_of(
        save(model_on(hs.load_backbone("tiny:32")), tmp_path / "bundle").model
    )
    squares = squares_for(grad_model)
    monkeypatch.delattr("headstart.backbones.graph.freeze")
    np.testing.assert_allclose(
        Forward(grad_model).scores(squares), grad_model.scores(squares), atol=1e-4
    )


def test_a_graph_of_another_network_is_not_trusted() -> None:
    grad_model = grad_model_of(model_on(hs.load_backbone("scratch:cnn")))
    other = freeze(hs.load_backbone("scratch:cnn", weights="random"))
    other = replace(other, weights={k: 2 * v for k, v in other.weights.items()})
    with pytest.raises(Mismatch, match="must give PyTorch's features"):
        Forward(replace(grad_model, graph=other)).scores(squares_for(grad_model))


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_come_back_to_the_pixels_and_stop_before_the_weights(name: str) -> None:
    grad_model = grad_model_of(model_on(BACKBONES[name]()))
    pixels = torch.from_numpy(squares_for(grad_model)).float().requires_grad_()
    grad_model.logits(pixels)[:, 0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(p.grad is None for p in grad_model.network.parameters())


def test_one_logit_is_seen_as_two_classes() -> None:
    backbone = hs.load_backbone("tiny:8")
    head = head_of(new_head(LinearSpec(output="sigmoid"), 8, 2, seed=0))
    model = model_on(backbone, head)
    grad_model = grad_model_of(model)
    squares = squares_for(grad_model)
    logits = scores_by(model, squares)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(grad_model.scores(squares), expected, atol=1e-5)


def test_a_pretrained_network_is_seen_with_its_source_classes() -> None:
    backbone = hs.load_backbone("packaged:efficientnet_lite0")
    grad_model = source_grad_model(backbone)
    squares = squares_for(grad_model)
    assert backbone.source_head is not None
    expected = backbone.source_head.scores(TorchEngine(backbone, "cpu")({"pixels": squares})[0])
    np.testing.assert_allclose(grad_model.scores(squares), expected, atol=1e-5)


def test_a_class_goes_by_any_of_its_names() -> None:
    grad_model = source_grad_model(hs.load_backbone("packaged:efficientnet_lite0"))
    for name in ("tabby, tabby cat", "tabby", "Tabby cat"):
        assert grad_model.classes[grad_model.number(name)] == "tabby, tabby cat"
    with pytest.raises(UnknownName, match="Did you mean 'tabby'"):
        grad_model.number("tabbi")
    with pytest.raises(SpecError, match="'panda' is a name of '.*'; '.*': give the whole name"):
        grad_model.number("panda")
    with pytest.raises(UnknownName, match=r"Known: .{100,800} and [\d,]+ more"):
        grad_model.number("0123456789")


def test_a_network_without_source_classes_says_so() -> None:
    with pytest.raises(SpecError, match="no source classes"):
        source_grad_model(hs.load_backbone("tiny:8"))


def test_a_head_without_gradients_is_refused() -> None:
    head = NearestHead(np.eye(4, 8, dtype=np.float32), np.arange(4) % 2, np.ones(2, "f4"), 1)
    with pytest.raises(SpecError, match="head of linear layers"):
        grad_model_of(Model(hs.load_backbone("tiny:8"), head, ClassTarget(("a", "b"), "a")))
