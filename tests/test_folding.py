"""Convolutions with their norms in them: the same function, and the same gradients.

In float64: in float32 the rounding of a processor may put a relu on its other side, whose gradient
is another.
"""

import pytest
import torch
from torch import Tensor, fx, nn

import headstart as hs
from headstart.backbones.cutting import cut_before, thawed_by
from headstart.backbones.tracing import NORMS
from headstart.training.folding import conv_norm, folded

NETWORKS = ["tiny:8", "timm:test_resnet", "timm:test_efficientnet", "keras:MobileNetV2@96"]


def tail_of(name: str) -> tuple[fx.GraphModule, Tensor]:
    """The upper half of a network, its norms with statistics of their own, and an input for it."""
    backbone = hs.load_backbone(name, weights="random")
    generator = torch.Generator().manual_seed(0)
    for module in backbone.module.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.normal_(module.weight, 1.0, 0.2, generator=generator)
    cut = cut_before(backbone, thawed_by(backbone, str(max(1, len(backbone.blocks) // 2))))
    assert cut is not None
    assert isinstance(cut.tail, fx.GraphModule)
    cut.tail.eval().requires_grad_(True).double()
    return cut.tail, torch.randn(2, *cut.shape, generator=generator, dtype=torch.float64)


def joined(module: fx.GraphModule) -> int:
    return sum(node.target is conv_norm for node in module.graph.nodes)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_gradients_are_the_same(name: str) -> None:
    tail, x = tail_of(name)
    together = folded(tail)
    assert isinstance(together, fx.GraphModule)
    assert joined(together) > 0
    found = []
    for module in (tail, together):
        features = module(x)
        slopes = torch.autograd.grad(features.square().sum(), list(tail.parameters()))
        found.append((features.detach(), *slopes))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9 * float(a.abs().max() + 1e-6))


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_keep_their_names_and_are_the_very_ones(name: str) -> None:
    tail, _ = tail_of(name)
    own, same = dict(tail.named_parameters()), dict(folded(tail).named_parameters())
    assert own.keys() == same.keys()
    assert all(own[n] is same[n] for n in own)


def test_every_norm_behind_a_plain_convolution_is_folded() -> None:
    tail, _ = tail_of("keras:MobileNetV2@96")
    together = folded(tail)
    assert not [m for m in together.modules() if isinstance(m, NORMS)]


def test_what_is_no_graph_is_left_as_it_is() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert folded(plain) is plain
