"""hs.wrap: a backbone of any network in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headstart as hs
from headstart.base.errors import Mismatch, SpecError, UnknownName
from headstart.data.splits import split
from headstart.explaining.pixels.grad_model import grad_model_of
from headstart.features.engines import TorchEngine
from headstart.modalities.images.from_keras import opened_keras
from headstart.modalities.images.inputs import of_pictures
from headstart.modalities.images.keras_graph import copied
from headstart.models.bundle import load_bundle, save
from headstart.models.finetuning import thaw
from headstart.models.fitting import fit
from headstart.specs import FeatureExtraction, FineTune

torchvision = pytest.importorskip("torchvision.models")
HALF: dict[str, Any] = {"mean": 0.5, "std": 0.5}


class SmallNet(nn.Module):
    """A user's own network: convolutions, a dropout, a classifier of another task."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.body = nn.Conv2d(8, 16, 3, 2, 1)
        self.drop = nn.Dropout(0.5)
        self.top = nn.Conv2d(16, 24, 3, padding=1)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.top(self.drop(F.relu(self.body(self.stem(x))))))
        return self.fc(x.mean(dim=(2, 3)))


def seeded(make: Any) -> Any:
    torch.manual_seed(0)
    return make()


def resnet() -> nn.Module:
    block = torchvision.resnet.BasicBlock
    return torchvision.ResNet(block, [1, 1, 1, 1], num_classes=7)


def keras_model() -> Any:
    keras = opened_keras()
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.RandomFlip("horizontal"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Flatten(),
            layers.Dense(20, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )


def headless(module: nn.Module) -> nn.Module:
    module.fc = nn.Identity()
    return module.eval()


def keras_features(model: Any, pixels: Any) -> Any:
    keras = opened_keras()

    body = keras.Model(model.inputs[0], model.layers[-3].output)
    with torch.no_grad():
        return copied(body(pixels.astype(np.float32), training=False))


def torch_features(module: nn.Module, pixels: Any) -> Any:
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return headless(module)((x - 0.5) / 0.5).numpy()


KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "resnet": (resnet, torch_features, {"size": 64, **HALF}),
    "own": (SmallNet, torch_features, {"size": 32, **HALF}),
    "keras": (keras_model, keras_features, {}),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_any_network_is_fitted_tuned_saved_loaded_and_explained(
    kind: str, shapes: Path, tmp_path: Path
) -> None:
    make, features, settings = KINDS[kind]
    module = seeded(make)
    backbone, parts = hs.wrap(module, **settings), split(hs.read(shapes))
    size = of_pictures(backbone.card.input).size
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    ours = TorchEngine(backbone, "cpu")({"pixels": pixels})[0]
    theirs = features(module, pixels)
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1, np.abs(theirs).max())

    head = fit(FeatureExtraction(), backbone, parts, store=None).model
    tuning = FineTune(epochs=1, thaw="1", batch_size=8)
    assert thaw(backbone, "1").cut is not None
    tuned = fit(tuning, head, parts, store=None).model
    saved = save(tuned, tmp_path / "bundle")
    there = saved.model.predict(parts.test, store=None)
    assert np.abs(there.scores - tuned.predict(parts.test, store=None).scores).max() < 1e-4
    with pytest.raises(SpecError, match=r"hs\.load\(path, module=…\)"):
        grad_model_of(saved.model)

    again = load_bundle(tmp_path / "bundle", module=make()).model
    grad_model = grad_model_of(again)
    assert np.abs(grad_model.scores(pixels) - grad_model_of(tuned).scores(pixels)).max() < 1e-5
    assert isinstance(fit(tuning, again, parts, store=None).model, hs.Model)


def test_blocks_are_found_among_the_children_in_the_order_in_which_they_run() -> None:
    names = [b.name for b in hs.wrap(seeded(resnet), size=64, **HALF).blocks]
    assert names == ["conv1", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    vit = torchvision.VisionTransformer(32, 16, 3, 2, 24, 48)
    names = [b.name for b in hs.wrap(vit, size=32, **HALF).blocks]
    assert names[:2] == ["stem", "conv_proj"]
    assert names[-1].endswith("encoder_layer_2")


def test_blocks_are_named_by_the_user_and_share_out_all_parameters() -> None:
    backbone = hs.wrap(SmallNet(), size=32, blocks=["body", "to*"], **HALF)
    assert [b.name for b in backbone.blocks] == ["stem", "body", "top"]
    shared = sorted(p for b in backbone.blocks for p in b.parameters)
    assert shared == sorted(n for n, _ in backbone.module.named_parameters())


@pytest.mark.parametrize(
    ("blocks", "error", "words"),
    [
        (["bodi"], UnknownName, "block of SmallNet.*'bodi'.*Did you mean 'body'"),
        (["layer*"], UnknownName, "stem.0.*top"),
        (["drop"], SpecError, "'drop' of SmallNet has none"),
    ],
)
def test_wrong_block_names_are_refused_with_the_right_ones(
    blocks: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        hs.wrap(SmallNet(), size=32, blocks=blocks, **HALF)


class Odd(nn.Module):
    """A network with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.conv, self.fault = nn.Conv2d(3, 4, 3), fault
        self.norm = nn.BatchNorm2d(4, track_running_stats=fault != "batch")
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Any:
        if self.fault == "input":
            x *= 2
        if self.fault == "buffer":
            self.get_buffer("seen").add_(1)
        if self.fault == "exporter":
            return torch.linalg.svdvals(self.conv(x)).mean(dim=2)
        y = self.norm(self.conv(x))
        if self.fault == "dropout":
            y = F.dropout(y)
        answers = {"tuple": (y, y), "rows": y.mean(dim=(0, 2, 3)), "tokens": y.flatten(2)}
        return answers.get(self.fault, y)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("input", r"changes it: compute a new tensor, as in x = x \* 2"),
        ("buffer", "Odd changes its seen when it runs"),
        ("dropout", "others for the same pictures"),
        ("batch", "may not depend on the others of its batch"),
        ("tuple", "gives a tuple"),
        ("rows", r"gives \(4,\) for N = 3"),
        ("tokens", r"gives \(3, 4, 900\)"),
        ("exporter", "PyTorch can't export Odd"),
    ],
)
def test_a_network_that_can_not_be_a_backbone_is_refused_in_one_sentence(
    fault: str, words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        hs.wrap(Odd(fault), size=32, **HALF)


@pytest.mark.parametrize(
    ("module", "settings", "words"),
    [
        ("a path", {}, "takes a torch.nn.Module or a keras.Model; got str"),
        (Odd(""), {}, "needs the size, mean and std"),
        (Odd(""), {"size": 0, **HALF}, "side of the network's input"),
        (Odd(""), {"size": 32, "mean": (0.5, 0.5), "std": 0.5}, "three numbers"),
        (nn.Conv2d(1, 4, 3), {"size": 32, **HALF}, "can't be given pixels of the shape"),
        (nn.LazyConv2d(4, 3), {"size": 32, **HALF}, "Call the module once"),
    ],
)
def test_what_hs_wrap_needs_is_said(module: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        hs.wrap(module, **settings)


@pytest.mark.parametrize("change", ["train", "half", "compiled", "parallel"])
def test_a_network_in_another_state_is_wrapped_as_it_predicts(change: str) -> None:
    module = seeded(SmallNet)
    plain = hs.wrap(module, size=32, **HALF)
    given = {
        "train": lambda: module.train(),
        "half": lambda: module.half(),
        "compiled": lambda: torch.compile(module),
        "parallel": lambda: nn.DataParallel(module),
    }[change]()
    wrapped = hs.wrap(given, size=32, name="SmallNet", **HALF)
    x = torch.rand(2, 3, 32, 32)
    near = 1e-2 if change == "half" else 1e-6
    assert torch.allclose(wrapped.module(x), plain.module(x), atol=near)
    assert module.fc.out_features == 5
    assert module.stem[2].inplace
    assert next(module.parameters()).requires_grad


def test_what_a_network_computes_is_part_of_its_fingerprint() -> None:
    class Other(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).abs()

    one, same = (hs.wrap(seeded(SmallNet), size=32, **HALF) for _ in range(2))
    other = hs.wrap(seeded(Other), size=32, name="SmallNet", **HALF)
    assert one.fingerprint() == same.fingerprint()
    assert other.fingerprint() != one.fingerprint()


def test_only_a_linear_layer_at_the_very_end_is_left_out() -> None:
    class Inner(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    assert hs.wrap(SmallNet(), size=32, **HALF).card.dim == 24
    assert hs.wrap(Inner(), size=32, **HALF).card.dim == 5


def test_another_module_is_not_taken_for_that_of_a_bundle(shapes: Path, tmp_path: Path) -> None:
    class Other(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(-x)

    parts = split(hs.read(shapes))
    backbone = hs.wrap(SmallNet(), size=32, **HALF)
    model = fit(FeatureExtraction(), backbone, parts, store=None).model
    save(model, tmp_path / "bundle")
    with pytest.raises(Mismatch, match="gives a known picture other features"):
        load_bundle(tmp_path / "bundle", module=Other())
    with pytest.raises(Mismatch, match="weights of SmallNet must fit"):
        load_bundle(tmp_path / "bundle", module=resnet())


def test_an_application_of_keras_is_prepared_as_keras_prepares_it() -> None:
    keras = opened_keras()
    model = keras.applications.MobileNet(input_shape=(32, 32, 3), weights=None, include_top=False)
    eats = of_pictures(hs.wrap(model).card.input)
    assert (eats.size, eats.mean, eats.std) == (32, (0.5,) * 3, (0.5,) * 3)
    assert of_pictures(hs.wrap(model, std=1).card.input).std == (1.0,) * 3


def test_a_keras_model_that_can_not_be_a_backbone_is_refused() -> None:
    keras = opened_keras()
    layers = keras.layers
    flat = keras.Sequential([keras.Input((8,)), layers.Dense(2)])
    with pytest.raises(SpecError, match="square RGB pictures of one size"):
        hs.wrap(flat)
    any_size = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)])
    with pytest.raises(SpecError, match="Give size="):
        hs.wrap(any_size)
    assert hs.wrap(any_size, size=16).card.dim == 4
    with pytest.raises(SpecError, match="is built for 32 pixels; got size=64"):
        hs.wrap(keras_model(), size=64)
    odd = keras.Sequential([keras.Input((8, 8, 3)), layers.UnitNormalization()])
    with pytest.raises(Mismatch, match="UnitNormalization"):
        hs.wrap(odd)
    with pytest.raises(SpecError, match="is built"):
        hs.wrap(keras.Sequential([layers.Conv2D(4, 3)]))
