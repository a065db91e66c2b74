"""LoRA (Hu et al. 2022), by the library peft: low-rank adapters on the projections of attention.

Only the adapters and the head are trained. Afterwards the adapters are added to the weights that
they adapt, so that the network has its own layers again.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from headstart.base.errors import MissingPackage, SpecError
from headstart.training.history import Count, ParameterCount
from headstart.training.network import Network

# Names of the layers that make queries, keys and values, in transformers, timm and our networks.
PROJECTIONS = (
    *("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin"),
    *("qkv", "Wqkv", "c_attn"),
)
ADAPTER = ".lora_"  # in the names of an adapter's weights, after the name of the layer


def add_adapters(network: Network, rank: int, alpha: float, seed: int) -> None:
    """Put adapters on the thawed projections of attention, and let only these and the head learn.

    alpha: the adapters' result is scaled by alpha / rank; 0 is twice the rank. Raises SpecError for
    a network without such projections, MissingPackage without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingPackage("peft", purpose="LoRA", extra="hf") from error
    layers = _projections(network)
    if not layers:
        raise SpecError(
            "LoRA adapts the projections of attention in thawed layers, and there are none here. "
            "Thaw layers of a transformer, or leave --lora out."
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha or 2 * rank,
        target_modules="|".join(map(re.escape, layers)),
        fan_in_fan_out=not all(isinstance(layer, nn.Linear) for layer in layers.values()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network.tail)
    named = network.tail.named_parameters()
    network.thawed = frozenset(name for name, _ in named if ADAPTER in name)
    for name, parameter in network.tail.named_parameters():
        parameter.requires_grad_(name in network.thawed)


def merge_adapters(network: Network) -> None:
    """Add the adapters to the weights of their layers, and put the layers in their places again."""
    from peft.tuners.lora import LoraLayer

    parts = dict(network.tail.named_modules())
    for name, layer in parts.items():
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(parts[parent], child, layer.get_base_layer())


def depth_with_adapters(network: Network, depth: Mapping[str, int]) -> dict[str, int]:
    """Return `depth`, by parameter of the tail, with the adapters at the depth of their layers."""
    layers = {name: name.partition(ADAPTER)[0] for name in network.thawed}
    return {**depth, **{name: depth.get(f"{of}.weight", 0) for name, of in layers.items()}}


def count_with_adapters(network: Network, whole: ParameterCount) -> Count:
    """Return the parameters that learn, and those of the `whole` backbone, which stay frozen."""
    learning = [p for p in network.parameters() if p.requires_grad]
    return Count(whole, ParameterCount(sum(p.numel() for p in learning), len(learning)))


def _projections(network: Network) -> dict[str, Any]:
    """Return the thawed layers, by name in the tail, that make queries, keys or values."""
    parts = dict(network.tail.named_modules())
    named = (name.removesuffix(".weight") for name in network.thawed if name.endswith(".weight"))
    return {name: parts[name] for name in named if name.rpartition(".")[2] in PROJECTIONS}
