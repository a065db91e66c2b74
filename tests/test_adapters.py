"""LoRA: adapters on the projections of attention learn with the head and are merged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformer_folders import SIZE, WIDTH, films, pictures, write_model

import headstart as hs
from headstart.base.errors import SpecError
from headstart.models.finetuning import thaw
from headstart.models.specs import FineTune
from headstart.training.adapters import add_adapters, depth_with_adapters, merge_adapters


def wrapped_vit() -> hs.Backbone:
    torch.manual_seed(0)
    sizes = {"img_size": SIZE, "patch_size": 8, "embed_dim": WIDTH, "depth": 3, "num_heads": 2}
    net = VisionTransformer(**sizes, num_classes=0)
    return hs.wrap(net, size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def made(kind: str) -> hs.Backbone:
        if kind == "timm":
            return wrapped_vit()
        return hs.load_backbone(f"hf:{write_model(tmp_path / kind, kind)}")

    return made


def given(backbone: hs.Backbone, cut: Any) -> tuple[torch.Tensor, ...]:
    """Activations at the cut of three examples."""
    generator = torch.Generator().manual_seed(0)
    if not cut.sequences:
        return (torch.randn(3, *cut.shape, generator=generator),)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    return torch.randn(3, 4, *cut.shape, generator=generator), mask


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "gpt2", "vit", "timm"])
def test_a_merged_network_computes_what_the_adapted_one_did(make: Any, kind: str) -> None:
    backbone = make(kind)
    opened = thaw(backbone, "2")
    assert opened.cut is not None
    network, arrays = opened.network(nn.Linear(WIDTH, 2), "frozen"), given(backbone, opened.cut)
    with torch.inference_mode():
        before = network.tail(*arrays)
    add_adapters(network, rank=2, alpha=0.0, seed=0)
    with torch.no_grad():
        assert torch.equal(network.tail(*arrays), before)  # an adapter begins with zeros
        for name, parameter in network.tail.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.1)
        adapted = network.tail(*arrays)
        merge_adapters(network)
        assert (adapted - before).abs().max() > 1e-3
        assert (network.tail(*arrays) - adapted).abs().max() < 1e-5
    own = opened.backbone.module.state_dict()
    assert own.keys() == backbone.module.state_dict().keys()
    with torch.inference_mode():
        assert torch.equal(opened.cut.tail(*arrays), network.tail(*arrays))


def test_adapters_begin_alike_and_are_as_deep_as_their_layers(make: Any) -> None:
    backbone, starts = make("bert"), []
    for _ in range(2):
        opened = thaw(backbone, "2")
        network = opened.network(nn.Linear(WIDTH, 2), "frozen")
        depth = opened.depth()
        add_adapters(network, rank=3, alpha=1.0, seed=5)
        starts.append({n: t.clone() for n, t in network.learned().items()})
    first, second = ({n: t for n, t in s.items() if n.startswith("tail.")} for s in starts)
    assert all(torch.equal(first[name], second[name]) for name in first)
    tuned = {n.removeprefix("tail.") for n in first}
    assert len(tuned) == 2 * 3 * 2  # layers, projections, halves of an adapter
    deep = depth_with_adapters(network, depth)
    assert sorted(deep[name] for name in tuned) == [1] * 6 + [2] * 6


@pytest.mark.parametrize(("kind", "layers"), [("bert", "1"), ("vit", "all"), ("timm", "1")])
def test_only_projections_and_head_change_and_the_bundle_equals_the_model(
    make: Any, kind: str, layers: str, tmp_path: Path
) -> None:
    data = hs.read(films(40), input="text") if kind == "bert" else hs.read(pictures(40))
    backbone, store = make(kind), hs.Store(tmp_path / "store")
    how: dict[str, Any] = {"strategy": "finetune", "lr": 1e-2, "keep": "last", "epochs": 1}
    fitted = hs.fit(data, backbone=backbone, store=store, thaw=layers, lora=2, **how)
    after: Any = fitted.model.backbone
    old, new = backbone.weights(), after.weights()
    learned = {name for name in old if not np.array_equal(old[name], new[name])}
    ends = tuple(f".{n}.weight" for n in ("query", "key", "value", "q_proj", "k_proj", "v_proj"))
    thawed = [n for block in backbone.blocks[-1:] for n in block.parameters]
    among = old if layers == "all" else thawed
    assert learned == {n for n in among if n.endswith((*ends, ".qkv.weight"))}
    assert old.keys() == new.keys()
    hs.save(fitted, tmp_path / "bundle")
    assert fitted.splits is not None
    models = (fitted.model, hs.load(tmp_path / "bundle"))
    expected, loaded = (m.predict(fitted.splits.test, store=None).scores for m in models)
    assert np.allclose(loaded, expected, atol=1e-5)


def test_what_has_no_attention_or_no_rank_is_refused(make: Any) -> None:
    opened = thaw(hs.load_backbone("tiny:32"), "1")
    with pytest.raises(SpecError, match="there are none here"):
        add_adapters(opened.network(nn.Linear(32, 2), "frozen"), rank=2, alpha=0.0, seed=0)
    with pytest.raises(SpecError, match="lora and lora_alpha are 0 or more"):
        FineTune(lora=-1)
    with pytest.raises(SpecError, match="give their rank too"):
        FineTune(lora_alpha=8.0)
