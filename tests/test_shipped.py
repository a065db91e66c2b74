"""The graphs that Headstart ships are those that PyTorch exports today, with equal features."""

import zipfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import make_graphs
import numpy as np
import pytest

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.graph import freeze
from headstart.backbones.shipped import FOLDER, read_shipped, write_shipped
from headstart.base.errors import Mismatch, MissingPackage, SourceError
from headstart.base.runtime import ON_CPU
from headstart.features import loading
from headstart.features.loading import check_golden, load_for_features
from headstart.modalities.sources import load_shipped

GOLDEN = np.ones((1, 8), np.float32)
LITE0 = "packaged:efficientnet_lite0"


def network(id: str) -> tuple[Backbone, Frozen]:
    name = f"packaged:{id}"
    frozen = load_shipped(name)
    assert frozen is not None
    return hs.load_backbone(name), frozen


@pytest.mark.long
@pytest.mark.parametrize("id", make_graphs.IDS)
def test_a_shipped_graph_is_what_pytorch_exports(id: str) -> None:
    backbone, frozen = network(id)
    assert (frozen.card, frozen.fingerprint()) == (backbone.card, backbone.fingerprint())
    assert abs(frozen.parameters - backbone.parameters) <= 100
    theirs = make_graphs.golden(backbone)
    assert frozen.golden is not None
    np.testing.assert_allclose(frozen.golden, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
    check_golden(frozen)
    made_with = read_shipped(FOLDER / f"{id}.zip").made_with
    if all(version(name) == made for name, made in made_with.items()):
        exported = make_graphs.made(id)
        assert (exported.graph, exported.inputs) == (frozen.graph, frozen.inputs), "make graphs"


def test_the_source_head_of_a_shipped_graph_is_the_networks_own() -> None:
    backbone, frozen = network("efficientnet_lite0")
    for ours, theirs in zip(
        (frozen.source().weight, frozen.source().bias),
        (backbone.source().weight, backbone.source().bias),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_graphs_are_small() -> None:
    assert all(path.stat().st_size < 100_000 for path in FOLDER.iterdir())
    assert {path.stem for path in FOLDER.iterdir()} == set(make_graphs.IDS)


def test_the_same_graph_gives_the_same_archive(tmp_path: Path) -> None:
    frozen = freeze(hs.load_backbone("tiny:8"))
    for name in ("a.zip", "b.zip"):
        write_shipped(frozen, GOLDEN, tmp_path / name, {})
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert read_shipped(tmp_path / "a.zip").with_weights(frozen.weights).graph == frozen.graph


def test_a_damaged_archive_and_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes((FOLDER / "minilm.zip").read_bytes()[:1000])
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name in ("cut.zip", "empty.zip", "gone.zip"):
        with pytest.raises(SourceError, match="Install Headstart again"):
            read_shipped(tmp_path / name)
    write_shipped(freeze(hs.load_backbone("tiny:8")), GOLDEN, tmp_path / "tiny.zip", {})
    graph = read_shipped(tmp_path / "tiny.zip")
    with pytest.raises(SourceError, match="must be the 14 of its graph"):
        graph.with_weights({"a": np.zeros(2, np.float32)})
    dead = {name: np.full(2, np.nan, np.float32) for name in graph.names}
    with pytest.raises(SourceError, match="holds NaN"):
        graph.with_weights(dead)


def test_features_alone_come_from_the_shipped_graph_on_a_cpu() -> None:
    assert isinstance(load_for_features(LITE0), Frozen)
    assert isinstance(load_for_features(LITE0, size=224, runtime=ON_CPU), Frozen)
    assert isinstance(load_for_features(LITE0, size=192), Backbone)
    assert isinstance(load_for_features(LITE0, "random"), Backbone)
    assert isinstance(load_for_features("tiny:8"), Backbone)


def test_a_runtime_that_computes_something_else_is_refused() -> None:
    frozen = load_shipped(LITE0)
    assert frozen is not None
    assert frozen.golden is not None
    check_golden(frozen)
    with pytest.raises(Mismatch, match="ONNX Runtime must give PyTorch's features"):
        check_golden(replace(frozen, golden=frozen.golden * 1.01))


def test_an_accelerator_gets_the_network_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "may_have_accelerator", lambda: True)
    assert isinstance(load_for_features(LITE0), Backbone)
    assert isinstance(load_for_features(LITE0, runtime=ON_CPU), Frozen)


def test_a_shipped_graph_takes_other_cuts_but_no_other_size() -> None:
    frozen = load_shipped(LITE0)
    assert frozen is not None
    other = frozen.changed(fit="squash", draft=False, size=224)
    assert other.fingerprint() == frozen.fingerprint()
    assert other.card.input.fingerprint() != frozen.card.input.fingerprint()
    with pytest.raises(MissingPackage, match=r"another input than 224 px .*headstart\[train\]"):
        frozen.changed(size=192)
