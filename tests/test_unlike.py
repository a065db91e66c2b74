"""How far data lies from what a backbone learned on: near, far, very far, or not to be told."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.backbones.backbone import Backbone, SourceHead
from headstart.base.errors import DataError
from headstart.cli.main import main
from headstart.evaluation.norm_statistics import (
    ExampleStats,
    SourceStats,
    measuring,
    source_stats,
)
from headstart.evaluation.source_distance import (
    SourceDistance,
    distance_estimate,
    sample,
    source_distance,
)
from headstart.modalities.images import packaged
from headstart.modalities.reading import find


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return hs.load_backbone("packaged:efficientnet_lite0")


@pytest.fixture
def trained() -> Backbone:
    """A tiny network whose norms hold what training might have left there."""
    backbone = hs.load_backbone("tiny:8")
    draw = torch.Generator().manual_seed(0)
    module: Any = backbone.module
    for norm in (module.stem[1], module.body[1]):
        norm.running_mean.normal_(generator=draw)
        norm.running_var.uniform_(0.5, 2, generator=draw)
    return backbone


def saved(folder: Path, pictures: Iterable[NDArray[np.uint8]]) -> hs.Dataset:
    folder.mkdir()
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return find([folder])[0]


def crops(*names: str, each: int) -> Iterable[NDArray[np.uint8]]:
    """Random ones, of 160 to 240 pixels, of pictures that scikit-image ships."""
    rng = np.random.default_rng(0)
    for name in names:
        pixels = getattr(skimage.data, name)()
        for _ in range(each):
            side = int(rng.integers(160, 240))
            top, left = (rng.integers(n - side + 1) for n in pixels.shape[:2])
            yield pixels[top : top + side, left : left + side]


def noise(count: int, size: int = 32) -> Iterable[NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    return (rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count))


def test_photographs_are_near(lite0: Backbone, tmp_path: Path) -> None:
    photographs = crops("astronaut", "chelsea", "coffee", "rocket", each=3)
    far = source_distance(lite0, saved(tmp_path / "photographs", photographs))
    assert far.word == "near"
    assert "frozen features" in far.advice


def test_close_looks_at_the_moon_are_far(lite0: Backbone, tmp_path: Path) -> None:
    assert source_distance(lite0, saved(tmp_path / "moon", crops("moon", each=8))).word == "far"


def test_noise_is_very_far_and_the_end_of_the_scale(lite0: Backbone, tmp_path: Path) -> None:
    far = source_distance(lite0, saved(tmp_path / "noise", noise(5, 224)))
    assert far.word == "very far"
    assert far.distance is not None
    assert far.distance.value == pytest.approx(1, abs=0.1)


def about(value: float) -> hs.Estimate:
    return hs.Estimate(value, value - 0.05, value + 0.05, 20)


@pytest.mark.parametrize(
    ("distance", "sure", "word"),
    [
        (0.1, 0.5, "near"),
        (0.1, 0.18, "near"),  # not proven to be unsure
        (0.1, 0.1, "far"),
        (0.4, 0.9, "far"),  # heads are often sure of what they have never seen
        (0.9, 0.9, "very far"),
    ],
)
def test_the_norms_have_the_first_word_and_an_unsure_head_the_second(
    distance: float, sure: float, word: str
) -> None:
    assert SourceDistance("a backbone", 20, about(distance), about(sure)).word == word


def test_what_norms_read_is_noted_as_they_are_given_it(trained: Backbone) -> None:
    source, module, squares = source_stats(trained.module), cast(Any, trained.module), noise(3)
    assert source is not None
    pixels = torch.tensor(np.stack(list(squares)))
    with measuring(trained, source, "cpu") as noted:
        seen = noted({"pixels": pixels.numpy()})
    x = ((pixels / 255 - 0.5) / 0.25).permute(0, 3, 1, 2)
    x = module.body[0](module.stem(x)).detach()
    np.testing.assert_allclose(seen.mean, x.mean(dim=(2, 3)), atol=1e-5)
    np.testing.assert_allclose(seen.second, x.square().mean(dim=(2, 3)), rtol=1e-4)


def test_rows_that_a_network_makes_of_a_picture_are_noted_as_that_picture(
    trained: Backbone,
) -> None:
    """Tokens, where they are normed as if each were a picture."""

    class Folded(torch.nn.Module):
        def __init__(self, norm: Any) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(norm.num_features)
            self.norm.load_state_dict(norm.state_dict())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.norm(x.flatten(2).transpose(1, 2).flatten(0, 1))
            return tokens.unflatten(0, (len(x), -1)).mT.unflatten(2, x.shape[2:])

    module, pixels, told = (
        cast(Any, trained.module),
        np.stack(list(noise(3))),
        list[ExampleStats](),
    )
    for norm in (module.body[1], Folded(module.body[1]).eval()):
        module.body[1] = norm
        with measuring(trained, source_stats(trained.module), "cpu") as noted:
            told.append(noted({"pixels": pixels}))
    whole, seen = told
    for name in ("mean", "second", "features"):
        np.testing.assert_allclose(getattr(seen, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_a_network_that_answers_with_no_numbers_is_not_near(
    trained: Backbone, tmp_path: Path
) -> None:
    cast(Any, trained.module).stem[1].running_var[:] = -1
    far = source_distance(trained, saved(tmp_path / "noise", noise(6)))
    assert far.word == ""
    assert "not finite" in far.advice
    json.dumps(far.to_plain(), allow_nan=False)


def test_nothing_is_left_on_the_network(trained: Backbone) -> None:
    before = trained.fingerprint()
    with pytest.raises(KeyError), measuring(trained, source_stats(trained.module), "cpu"):
        raise KeyError
    assert not any(part._forward_pre_hooks for part in trained.module.modules())
    assert trained.fingerprint() == before


def test_only_the_deeper_half_of_the_norms_that_were_trained_is_asked(trained: Backbone) -> None:
    source = source_stats(trained.module)
    assert source is not None
    assert source.names == ("body.1",)
    cast(Any, trained.module).body[1].reset_running_stats()
    source = source_stats(trained.module)
    assert source is not None
    assert source.names == ("stem.1",)


NO_FEATURES = np.zeros((1, 1), np.float32)


def wide(channels: int) -> SourceStats:
    """All of them had a mean of 0 and a variance of 1."""
    flat = np.zeros(channels)
    return SourceStats(("bn",), flat, flat + 1, flat, flat + 1 / channels)


def one_channel(mean: float, var: float) -> SourceStats:
    return SourceStats(("bn",), np.array([mean]), np.array([var]), np.zeros(1), np.ones(1))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 1.0), (0.0, 3.0), (-2.0, 0.4)])
def test_the_overlap_is_that_of_two_normal_curves(mean: float, std: float) -> None:
    t = np.linspace(-30, 30, 600_001)
    log_curves = -(t**2) / 2, -(((t - mean) / std) ** 2) / 2
    shared = np.exp(sum(log_curves) / 2).sum() * 1e-4 / np.sqrt(2 * np.pi * std)
    found = one_channel(0, 1).distance(np.array([mean]), np.array([std**2 + mean**2]))
    assert found == pytest.approx(1 - shared, abs=1e-7)


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_few_pictures_do_not_look_farther_than_many(shift: float) -> None:
    """Pictures of 40 channels, half of whose variance lies between the pictures."""
    rng, channels = np.random.default_rng(0), 40
    source = wide(channels)
    ends = ExampleStats(np.full((1, channels), 9.0), np.full((1, channels), 82.0), NO_FEATURES)

    def far(n: int) -> float:
        means = rng.normal(shift, np.sqrt(0.5), (n, channels))
        return distance_estimate(
            source, ExampleStats(means, means**2 + 0.5, np.zeros((n, 1), "f4")), ends
        ).value

    assert np.mean([far(5) for _ in range(100)]) == pytest.approx(far(2000), abs=0.01)


def test_the_interval_of_the_distance_holds_the_true_one() -> None:
    rng, source, held = np.random.default_rng(0), wide(40), 0
    ends = ExampleStats(np.full((1, 40), 9.0), np.full((1, 40), 82.0), NO_FEATURES)
    unit = source.distance(ends.mean[0], ends.second[0])
    true = source.distance(np.ones(40), np.full(40, 2.0)) / unit
    for _ in range(200):
        means = 1 + rng.normal(0, np.sqrt(0.5), (12, 1)) * np.ones(40)  # pictures differ as one
        found = distance_estimate(
            source, ExampleStats(means, means**2 + 0.5, np.zeros((12, 1), "f4")), ends
        )
        held += found.low <= true <= found.high
    assert 0.88 < held / 200 <= 1


def test_a_sample_has_its_share_of_every_class() -> None:
    labels = tuple([0] * 600 + [1] * 300 + [2] * 100)
    names = tuple(map(str, range(1000)))
    data = hs.Dataset(names, tuple(map(Path, names)), labels, ("a", "b", "c"))
    few = sample(data, 50, seed=0)
    assert list(few.counts.values()) == pytest.approx([30, 15, 5], abs=1)
    assert few == sample(data, 50, seed=0)
    assert few.ids != sample(data, 50, seed=1).ids
    assert sample(data, 1000, seed=0) is data


@pytest.mark.parametrize("name", ["timm:test_efficientnet", "timm:test_vit", "scratch:cnn"])
def test_of_a_network_that_learned_nothing_it_can_not_be_told(name: str, tmp_path: Path) -> None:
    far = source_distance(hs.load_backbone(name, weights="random"), saved(tmp_path / "x", noise(6)))
    assert (far.word, far.examples, far.to_plain()["word"]) == ("", 0, None)
    assert "no statistics of a source task" in far.advice
    assert "can't be told" in far.sentence


@pytest.mark.parametrize(("scale", "word"), [(0.0, "far"), (1e3, "near")])
def test_without_norms_the_head_alone_is_asked(scale: float, word: str, tmp_path: Path) -> None:
    backbone = hs.load_backbone("timm:test_vit", weights="random")
    drawn = np.random.default_rng(0).normal(size=(backbone.card.dim, 10)) * scale
    learned = replace(
        backbone,
        card=replace(backbone.card, origin="given"),
        source_head=SourceHead(drawn.astype(np.float32), np.zeros(10, np.float32)),
    )
    far = source_distance(learned, saved(tmp_path / "noise", noise(6, 160)))
    assert (far.word, far.distance) == (word, None)


def test_unreadable_pictures_are_passed_over_and_few_tell_nothing(
    trained: Backbone, tmp_path: Path
) -> None:
    data = saved(tmp_path / "x", noise(6))
    data.sources[0].write_bytes(b"")
    assert source_distance(trained, data).examples == 5
    data.sources[1].write_bytes(b"no picture")
    far = source_distance(trained, data)
    assert (far.word, far.examples) == ("", 4)
    assert "5 pictures or more" in far.advice
    with pytest.raises(DataError, match="none can be read"):
        source_distance(trained, data.take([0, 1]))


@pytest.mark.long
def test_check_tells_how_far_the_data_is(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(shapes)]) == 0
    out = capsys.readouterr().out
    assert "source task: " in out
    assert "what packaged:efficientnet_lite0 learned on" in out
    assert "its own head" in out
    assert main(["check", str(shapes), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["unlike"]
    assert said["word"] in ("far", "very far")
    assert 0 <= said["distance"]["low"] <= said["distance"]["value"] <= said["distance"]["high"]
    assert said["distance"]["n"] == said["pictures"] == 24


def test_check_without_a_backbone_tells_nothing_of_it(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(shapes), "--backbone", "none"]) == 0
    assert "source task" not in capsys.readouterr().out
    assert main(["check", str(shapes), "--backbone", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unlike"] is None


def test_check_goes_on_without_the_default_backbone_but_not_without_the_one_that_was_named(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = replace(packaged.PACKAGED["efficientnet_lite0"], package="no-such-package")
    monkeypatch.setitem(packaged.PACKAGED, "efficientnet_lite0", gone)
    assert main(["check", str(shapes)]) == 0
    out, err = capsys.readouterr()
    assert "images" in out
    assert "left out: packaged:efficientnet_lite0 needs the package 'no-such-package'" in err
    assert main(["check", str(shapes), "--backbone", "packaged:efficientnet_lite0"]) == 2
    assert main(["check", str(shapes), "--backbone", "packaged:efficientnet_light0"]) == 2
    assert "Did you mean 'efficientnet_lite0'" in capsys.readouterr().err
