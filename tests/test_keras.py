"""The networks of keras.applications: what they compute here is what Keras computes."""

import sys
import urllib.error
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import headstart as hs
from headstart.backbones.backbone import Backbone, weights_fingerprint
from headstart.backbones.cutting import thawed_by
from headstart.backbones.entry import WholeNetwork
from headstart.backbones.graph import freeze
from headstart.backbones.saved import save_backbone
from headstart.base.errors import Mismatch, SourceError, SpecError, UnknownName
from headstart.features.engines import OnnxEngine, TorchEngine
from headstart.modalities.images import from_keras
from headstart.modalities.images.from_keras import APPLICATIONS, block_names, blocks_of, parsed
from headstart.modalities.images.inputs import of_pictures
from headstart.modalities.images.keras_graph import Converted, convert

FOUR = ("VGG16@32", "ResNet50@48", "MobileNetV2@64", "EfficientNetB0@33")
RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def on_cpu() -> Iterator[None]:
    """Where ours is; Keras would take an accelerator."""
    with from_keras.opened_keras().device("cpu"):
        yield


def keras_model(id: str) -> Any:
    """The application with random weights and statistics, none of them 0 or 1."""
    keras = from_keras.opened_keras()
    model = from_keras._model(keras, *parsed(id))
    rng = RNG(0)
    # so that signals neither die nor grow until float32 itself tells one from the other
    gain = 1.0 if "EfficientNetV2" in id else 1.5
    for variable in model.weights:
        variable.assign(_random(variable.name, tuple(variable.shape), gain, rng))
    return model


def _random(
    name: str, shape: tuple[int, ...], gain: float, rng: np.random.Generator
) -> NDArray[Any]:
    if "kernel" in name:
        read = shape[:2] if name.startswith("depthwise") or shape[-1] == 1 else shape[:-1]
        return rng.normal(0, np.sqrt(gain / np.prod(read)), shape)
    if name in ("bias", "beta", "mean", "moving_mean"):
        return rng.normal(0, 0.1, shape)
    return rng.uniform(0.5, 1.5, shape) if shape else np.ones(shape)


def saved(model: Any, *paths: Path) -> None:
    """As Keras writes it: its weights alone (.weights.h5), or the whole in its older way (.h5)."""
    with warnings.catch_warnings():
        # it reads its variables in a way that NumPy 2 deprecates
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        for path in paths:
            save = model.save_weights if path.name.endswith(".weights.h5") else model.save
            save(path)


def assert_same_features(model: Any, module: nn.Module) -> None:
    """Keras' forward, averaged over the map, against the module's: to 1e-5 of the largest."""
    size = model.input_shape[1]
    x = RNG(1).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    if any("normalization" == layer.name.rstrip("_0123456789") for layer in model.layers):
        x = 127.5 * (x + 1)  # normalised by the network itself
    with torch.inference_mode():
        theirs = np.asarray(model(x, training=False).cpu()).mean((1, 2))
        ours = module(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("id", FOUR)
def test_the_converted_network_computes_what_keras_computes(id: str) -> None:
    model = keras_model(id)
    assert_same_features(model, convert(model))


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_computes_what_keras_computes(name: str) -> None:
    size = 3 * APPLICATIONS[name].least // 2 + 1  # odd, so that paddings differ between edges
    model = keras_model(f"{name}@{size}")
    module = convert(model)
    assert_same_features(model, module)
    assert len(module.layers) == len(model.layers)
    blocks = blocks_of(module)
    named = [p for block in blocks for p in block.parameters]
    assert sorted(named) == sorted(p for p, _ in module.named_parameters())
    assert len({block.name for block in blocks}) == len(blocks)


def layers(backbone: Backbone) -> tuple[str, ...]:
    assert isinstance(backbone.module, Converted)
    return backbone.module.layers


def numbers(module: nn.Module) -> int:
    state = module.state_dict()
    return sum(t.numel() for name, t in state.items() if "num_batches" not in name)


def test_networks_have_kerass_layers_and_numbers() -> None:
    mobile = hs.load_backbone("keras:MobileNetV2@160", weights="random")
    assert len(layers(mobile)) == 154
    assert numbers(mobile.module) == 2_257_984
    thawed = [mobile.module.get_parameter(name) for name in thawed_by(mobile, "", 100)]
    assert (len(thawed), sum(p.numel() for p in thawed)) == (54, 1_861_440)
    vgg = hs.load_backbone("keras:VGG16@32", weights="random")
    assert numbers(vgg.module) == 14_714_688
    assert (vgg.card.dim, len(layers(vgg))) == (512, 19)


def test_each_layer_of_keras_is_a_node_that_runs_in_its_order() -> None:
    module = convert(from_keras._model(from_keras.opened_keras(), "MobileNetV2", 64))
    names = [node.name for node in module.graph.nodes]
    assert tuple(n for n in names if n in module.layers) == module.layers
    called = {str(node.target) for node in module.graph.nodes if node.op == "call_module"}
    assert called - set(module.layers) == {"global_pool"}
    assert {"block_11_expand", "Conv1_relu", "block_16_project_BN"} <= set(module.layers)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_network_receives_what_preprocess_input_gives(name: str) -> None:
    keras = from_keras.opened_keras()
    theirs = sys.modules[getattr(keras.applications, name).__module__].preprocess_input
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    pixels = np.concatenate([pixels, pixels[..., ::-1] // 2])  # channels that differ
    eats = WholeNetwork(nn.Identity(), APPLICATIONS[name].input_at(16))
    ours = eats(torch.from_numpy(pixels)).permute(0, 2, 3, 1).numpy()
    expected = theirs(pixels.astype(np.float32))
    np.testing.assert_allclose(ours, expected, rtol=3e-7, atol=1e-5 if ours.max() > 3 else 3e-7)


def test_only_a_network_of_bgr_has_that_in_its_fingerprint() -> None:
    card = hs.load_backbone("tiny:8").card
    turned = replace(card, input=card.input.changed(bgr=True))
    assert weights_fingerprint(card, ()) == "cb2beac80e347549"  # as it was before there was bgr
    assert weights_fingerprint(turned, ()) != weights_fingerprint(card, ())


def squares(backbone: Backbone, n: int = 2) -> NDArray[np.uint8]:
    size = of_pictures(backbone.card.input).size
    return RNG(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("id", ["MobileNetV2@96", "VGG16@32"])
def test_the_graph_agrees_and_its_convolutions_pad_themselves(id: str) -> None:
    backbone = hs.load_backbone(f"keras:{id}", weights="random")
    frozen = freeze(backbone)
    (ours,) = OnnxEngine(frozen, threads=1)({"pixels": squares(backbone)})
    (theirs,) = TorchEngine(backbone, "cpu")({"pixels": squares(backbone)})
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    kinds = [node.op_type for node in onnx.load_from_string(frozen.graph).graph.node]
    assert "Pad" not in kinds
    assert kinds.count("Transpose") == 1  # of the pixels


def test_a_saved_backbone_is_built_again_from_its_card(tmp_path: Path) -> None:
    backbone = hs.load_backbone("keras:MobileNet@32", weights="random")
    assert backbone.card.architecture == "keras:MobileNet@32"
    again = hs.load_backbone(f"file:{save_backbone(backbone, tmp_path / 'saved')}")
    assert again.fingerprint() == backbone.fingerprint()
    assert again.card == backbone.card
    assert again.blocks == backbone.blocks


@pytest.mark.long
def test_layers_are_called_the_same_whatever_was_made_before() -> None:
    one, two = (hs.load_backbone("keras:InceptionV3@75", weights="random") for _ in range(2))
    assert one.fingerprint() == two.fingerprint()
    assert layers(one)[:3] == ("input_layer", "conv2d", "batch_normalization")
    assert [b.name for b in one.blocks] == ["stem", *(f"mixed{n}" for n in range(11))]


def test_a_copy_keeps_its_list_of_layers() -> None:
    backbone = hs.load_backbone("keras:MobileNet@32", weights="random")
    assert layers(replace(backbone, module=deepcopy(backbone.module))) == layers(backbone)


def test_blocks_never_go_back() -> None:
    names = ("conv1", "block_1_a", "re_lu", "block_2_a", "block_1_b", "bn")
    assert block_names(names) == ["stem", "block_1", "block_1", "block_2", "block_1", "top"]
    module = nn.Module()
    for name in names:
        module.add_module(name, nn.BatchNorm2d(1))
    module.layers = names  # type: ignore[assignment]
    blocks = {block.name: block.parameters[::2] for block in blocks_of(module)}
    assert blocks["block_2"] == ("block_2_a.weight", "block_1_b.weight")


@pytest.mark.parametrize("file", ["own.h5", "own.weights.h5"])
def test_files_that_keras_writes_are_loaded(file: str, tmp_path: Path) -> None:
    model = keras_model("MobileNetV2@64")
    saved(model, tmp_path / file)
    backbone = hs.load_backbone("keras:MobileNetV2@64", weights=tmp_path / file)
    assert_same_features(model, backbone.module)
    assert backbone.card.origin == "given"


def test_a_safetensors_file_of_our_own_names_is_loaded(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    backbone = hs.load_backbone("keras:MobileNet@32", weights="random")
    state = {name: t + 1 for name, t in backbone.module.state_dict().items()}
    save_file(state, tmp_path / "own.safetensors")
    loaded = hs.load_backbone("keras:MobileNet@32", weights=tmp_path / "own.safetensors")
    assert all(torch.equal(t, state[name]) for name, t in loaded.module.state_dict().items())


@pytest.mark.parametrize("other", ["MobileNet", "VGG19"])
@pytest.mark.parametrize("file", ["other.h5", "other.weights.h5"])
def test_a_file_of_another_network_is_refused(file: str, other: str, tmp_path: Path) -> None:
    model = from_keras._model(from_keras.opened_keras(), other, 32)
    saved(model, tmp_path / file)
    with pytest.raises(Mismatch, match="must be those of keras:VGG16 without its top"):
        hs.load_backbone("keras:VGG16@32", weights=tmp_path / file)


def test_a_file_that_only_looks_like_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF")
    with pytest.raises(SourceError, match="cannot be read as an HDF5 file"):
        hs.load_backbone("keras:MobileNet@32", weights=tmp_path / "cut.h5")
    with pytest.raises(SpecError, match="keras: alone"):
        hs.load_backbone("tiny:8", weights=tmp_path / "cut.h5")


def by_external_storage(file: Any, name: str, folder: Path) -> None:
    shape, kind = file[name].shape, file[name].dtype
    (folder / "secret").write_bytes(file[name][:].tobytes())
    del file[name]
    file.create_dataset(name, shape, kind, external=str(folder / "secret"))


def by_external_link(file: Any, name: str, folder: Path) -> None:
    with h5py.File(folder / "secret", "w") as other:
        file.copy(name, other, "x")
    del file[name]
    file[name] = h5py.ExternalLink(str(folder / "secret"), "x")


def by_virtual_dataset(file: Any, name: str, folder: Path) -> None:
    by_external_link(file, name, folder)
    shape, kind = file[name].shape, file[name].dtype
    layout = h5py.VirtualLayout(shape, kind)
    layout[...] = h5py.VirtualSource(str(folder / "secret"), "x", shape, kind)
    del file[name]
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("forge", [by_external_storage, by_external_link, by_virtual_dataset])
def test_weights_that_lie_in_another_file_are_refused(
    forge: Callable[[Any, str, Path], None], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "forged.h5", "w") as forged:
        forged["conv/kernel"] = np.ones((3, 3, 3, 8), np.float32)
        forged["conv/again"] = h5py.SoftLink("/conv/kernel")  # a link within the file is no harm
        from_keras._check_one_file(forged.filename)
        forge(forged, "conv/kernel", tmp_path)
    with pytest.raises(SourceError, match=r"forged\.h5 takes conv/kernel from another file"):
        hs.load_backbone("keras:MobileNet@32", weights=tmp_path / "forged.h5")


def test_pretrained_weights_in_kerass_cache_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keras_model("MobileNetV2@96")
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / APPLICATIONS["MobileNetV2"].weights_file(96)
    saved(model, file)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    backbone = hs.load_backbone("keras:MobileNetV2@96")
    assert_same_features(model, backbone.module)
    assert backbone.card.origin == "pretrained"


def test_weights_that_cannot_be_fetched_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_keras.opened_keras()

    def unreachable(*_: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    wanted = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_160_no_top.h5"
    with pytest.raises(SourceError, match=rf"the file {wanted} of Keras.*--weights FILE"):
        hs.load_backbone("keras:MobileNetV2@160")


def asked_of_keras(id: str, answer: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keras' application with its ImageNet weights, `answer` in place of a download."""
    keras = from_keras.opened_keras()
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda file, *_, **__: answer(file))
    return from_keras._model(keras, *parsed(id), "imagenet")


@pytest.mark.long
def test_efficientnet_is_the_one_that_keras_makes_with_imagenet_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.weights.h5"
    saved(keras_model("EfficientNetB0@32"), file)
    theirs = asked_of_keras("EfficientNetB0@32", lambda _: str(file), monkeypatch)
    ours = hs.load_backbone("keras:EfficientNetB0@32", weights=file)
    assert_same_features(theirs, ours.module)
    assert convert(theirs).layers == layers(ours)


class Asked(Exception):
    """Raised with the name of the file that Keras would fetch."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`input_shape` is undefined or non-square")
@pytest.mark.parametrize("name", APPLICATIONS)
def test_weights_files_are_called_as_keras_calls_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(file: str) -> str:
        raise Asked(file)

    size = max(APPLICATIONS[name].least, 96)
    with pytest.raises(Asked) as asked:
        asked_of_keras(f"{name}@{size}", answer, monkeypatch)
    assert str(asked.value) == APPLICATIONS[name].weights_file(size)


def test_every_application_of_keras_has_its_entry() -> None:
    applications = from_keras.opened_keras().applications
    theirs = {n for n in dir(applications) if n[0].isupper()}
    assert theirs == set(APPLICATIONS)


def test_names_and_sizes_that_do_not_exist_are_explained() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'MobileNetV2'"):
        hs.load_backbone("keras:MobilNetV2@96")
    with pytest.raises(SpecError, match="75 pixels or more; got '74'"):
        hs.load_backbone("keras:InceptionV3@74")
    with pytest.raises(SpecError, match="32 pixels or more; got ''"):
        hs.load_backbone("keras:VGG16@")


def test_the_list_has_all_applications_and_says_what_to_fetch() -> None:
    listed = {b.name: b for b in hs.list_backbones("keras:*")}
    assert len(listed) == len(APPLICATIONS) == 40
    assert listed["keras:NASNetLarge"].size == "331"
    assert "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" in listed["keras:VGG16"].where
    assert [b.name for b in hs.list_backbones("keras:*V3S*")] == ["keras:MobileNetV3Small"]
