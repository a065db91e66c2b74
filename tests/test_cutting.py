"""Where frozen meets thawed: it is said in people's words, and cutting there changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch import fx, nn

import headstart as hs
from headstart.backbones.backbone import Backbone, Block
from headstart.backbones.cutting import cut_before, layers_of, thawed_by
from headstart.base.errors import SpecError, UnknownName
from headstart.modalities.images.inputs import of_pictures

NETWORKS = ["tiny:8", "timm:resnet18", "timm:test_vit", "timm:test_efficientnet"]


def untrained(name: str) -> Backbone:
    return hs.load_backbone(name, weights="random")


def pictures(backbone: Backbone) -> torch.Tensor:
    size = of_pictures(backbone.card.input).size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_trunk_and_tail_together_are_the_network(name: str) -> None:
    backbone = untrained(name)
    cut = cut_before(backbone, thawed_by(backbone, "1"))
    assert cut is not None
    with torch.inference_mode():
        x = pictures(backbone)
        activations = cut.trunk(x)
        assert activations.shape[1:] == cut.shape
        assert torch.equal(cut.tail(activations), backbone.module(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_two_outputs_gives_both(name: str) -> None:
    backbone = untrained(name)
    cut = cut_before(backbone, thawed_by(backbone, "1"))
    assert cut is not None
    with torch.inference_mode():
        x = pictures(backbone)
        features, activations = cut.both(x)
        assert torch.equal(features, backbone.module(x))
        assert torch.equal(activations, cut.trunk(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_that_is_thawed_lies_before_the_cut(name: str) -> None:
    backbone = untrained(name)
    thawed = thawed_by(backbone, "1")
    cut = cut_before(backbone, thawed)
    assert cut is not None
    assert not set(thawed) & {n for n, _ in cut.trunk.named_parameters()}
    assert set(thawed) <= {n for n, _ in cut.tail.named_parameters()}


def test_the_tail_is_made_of_the_networks_own_modules() -> None:
    backbone = untrained("timm:resnet18")
    cut = cut_before(backbone, thawed_by(backbone, "1"))
    assert cut is not None
    own = dict(backbone.module.named_parameters())
    assert all(own[name] is p for name, p in cut.tail.named_parameters())


def test_inside_a_residual_block_the_cut_lies_before_it() -> None:
    """Beside the thawed second convolution runs the shortcut: two tensors cross there."""
    backbone = untrained("timm:resnet18")
    inside = cut_before(backbone, thawed_by(backbone, "layer4.1.conv2"))
    before = cut_before(backbone, thawed_by(backbone, "layer4.1"))
    assert inside is not None
    assert before is not None
    assert inside.name == before.name


def test_none_and_all() -> None:
    backbone = untrained("timm:resnet18")
    names = tuple(n for n, _ in backbone.module.named_parameters())
    assert thawed_by(backbone, "none") == ()
    assert thawed_by(backbone, "0") == ()  # [-0:] would be all of them
    assert thawed_by(backbone, "all") == names
    assert cut_before(backbone, names) is None


def test_a_number_counts_blocks_from_the_top() -> None:
    backbone = untrained("timm:resnet18")
    assert set(thawed_by(backbone, "1")) == set(backbone.blocks[-1].parameters)
    everything = thawed_by(backbone, str(len(backbone.blocks)))
    assert everything == thawed_by(backbone, "all")


@pytest.mark.parametrize("words", ["layer4.*", "layer4*", "layer4"])
def test_a_name_or_glob_is_what_it_says(words: str) -> None:
    thawed = thawed_by(untrained("timm:resnet18"), words)
    assert thawed
    assert all(name.startswith("layer4.") for name in thawed)


def test_layers_are_counted_from_either_end() -> None:
    backbone = untrained("tiny:8")
    layers = layers_of(backbone.module)
    assert layers[0] == "stem.0"
    assert thawed_by(backbone, "", 0) == thawed_by(backbone, "all")
    body = [n for n in thawed_by(backbone, "all") if n.startswith("body.")]
    first = layers.index("body.0")
    assert list(thawed_by(backbone, "", first)) == body
    assert list(thawed_by(backbone, "", first - len(layers))) == body


def test_what_is_not_there_is_refused_in_a_sentence() -> None:
    backbone = untrained("timm:resnet18")
    with pytest.raises(SpecError, match="has 9 blocks to thaw, but 10 were asked for"):
        thawed_by(backbone, "10")
    with pytest.raises(UnknownName, match=r"no block or layer of timm:resnet18 named 'layer5'"):
        thawed_by(backbone, "layer5")
    with pytest.raises(SpecError, match=r"counts the \d+ layers"):
        thawed_by(backbone, "", 10_000)


class Wayward(nn.Module):
    """A network whose path depends on its data: it cannot be traced, so it cannot be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x.mean((2, 3)))
        result: torch.Tensor = self.two(x) if x.sum() > 0 else x
        return result


def test_a_network_that_cannot_be_traced_has_no_cut() -> None:
    card = replace(untrained("tiny:8").card, dim=4)
    blocks = tuple(Block(n, (f"{n}.weight", f"{n}.bias")) for n in ("one", "two"))
    backbone = Backbone(card, Wayward(), blocks)
    thawed = thawed_by(backbone, "1")
    assert thawed == ("two.weight", "two.bias")
    assert cut_before(backbone, thawed) is None


def test_a_graph_is_taken_as_it_is() -> None:
    backbone = untrained("tiny:8")
    graph = replace(backbone, module=fx.symbolic_trace(backbone.module))
    thawed = thawed_by(graph, "body.*")
    cut = cut_before(graph, thawed)
    assert cut is not None
    with torch.inference_mode():
        x = pictures(backbone)
        assert torch.equal(cut.tail(cut.trunk(x)), backbone.module(x))
