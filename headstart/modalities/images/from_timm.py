"""Image backbones of timm: `timm:resnet50`, `timm:vit_small_patch16_224`, …"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from timm.models import group_parameters
from torch import nn

from headstart.backbones.backbone import Backbone, Block, Card, Origin, SourceHead
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights, check_file
from headstart.base.errors import Mismatch, SourceError, SpecError, UnknownName
from headstart.modalities.images.inputs import Fit, ImageInput, Interpolation

weight_files = (".safetensors",)
FITS: dict[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}


def load(id: str, weights: Weights) -> Backbone:
    """Load `timm:NAME` or `timm:NAME.TAG`, weights from the Hugging Face Hub or a local copy."""
    architecture = known(id)
    file = weights.file if weights.file or weights.random else hub_file(id)
    model = create(id, file)
    return assemble(f"timm:{id}", model, f"timm:{architecture}", weights.origin)


def build(card: Card) -> tuple[nn.Module, tuple[Block, ...]]:
    """Return the network without its classifier, with random weights, and its blocks."""
    module = timm.create_model(known(card.id), pretrained=False, num_classes=0)
    return module.eval().requires_grad_(False), blocks_of(module)


def listing() -> Iterator[Listing]:
    """Yield a listing entry for each network that has pretrained weights in timm."""
    for id in timm.list_pretrained():
        config = timm.get_pretrained_cfg(id)
        where, licence = "Hugging Face Hub, or --weights FILE", config.license or "unknown"
        size = str(config.input_size[-1])
        yield Listing(f"timm:{id}", size, licence=licence, where=where)


def known(id: str) -> str:
    """Return the architecture of a timm name; raises UnknownName with the nearest names."""
    architecture, _, tag = id.partition(".")
    if not timm.is_model(architecture):
        raise UnknownName("timm backbone", id, timm.list_models())
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and id not in tagged:
        raise UnknownName("timm backbone", id, tagged)
    return architecture


def create(id: str, file: Path | None) -> nn.Module:
    """Build the network with the weights of a timm safetensors file, or random ones (seed 0)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if file is None:
            return timm.create_model(id, pretrained=False)
        check_file(file)
        overlay = {"file": str(file), "custom_load": False}
        try:
            model = timm.create_model(id, pretrained=True, pretrained_cfg_overlay=overlay)
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise Mismatch(f"The weights in {file} do not fit timm's {id}: {reason}") from error
        return model


def hub_id(id: str) -> str:
    config = timm.get_pretrained_cfg(id)
    if config is None or not config.hf_hub_id:
        raise SourceError(
            f"timm names no pretrained weights for {id!r}. Give a local copy with --weights FILE, "
            f"or --weights random for an untrained network."
        )
    name: str = config.hf_hub_id
    return f"{name}{config.architecture}.{config.tag}" if name.endswith("/") else name


def hub_file(id: str, filename: str = "model.safetensors") -> Path:
    """Return the weights file of a timm model, from the hub's local cache or downloaded.

    Raises SourceError, with the file's name and the flag for a local copy, if that fails.
    """
    import huggingface_hub as hub

    repo = hub_id(id)
    try:
        return Path(hub.hf_hub_download(repo, filename, local_files_only=True))
    except OSError:
        pass  # not in the cache
    try:
        if not hub.constants.HF_HUB_OFFLINE:  # one try; the download makes six
            hub.get_hf_file_metadata(hub.hf_hub_url(repo, filename), timeout=10)
        return Path(hub.hf_hub_download(repo, filename))
    except Exception as error:  # each library has its own network errors
        raise SourceError(
            f"The weights of timm:{id} are the file {filename} of {repo} on the Hugging Face Hub, "
            f"which could not be fetched ({type(error).__name__}). Get it on a machine that "
            f"reaches the hub and pass it with --weights FILE."
        ) from error


def preprocess(model: nn.Module) -> ImageInput:
    """Return the input in timm's configuration of the model.

    As in timm.data.transforms_factory.transforms_imagenet_eval, the shorter side becomes
    floor(size / crop_pct) before the centre crop.
    """
    config = resolve_data_config({}, model=model)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise SpecError(f"Backbones here eat square RGB pictures; this one {config['input_size']}.")
    fit = FITS.get(config.get("crop_mode", "center"), "crop")
    return ImageInput(
        size=height,
        resize=max(height, math.floor(height / config["crop_pct"])),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=cast(Interpolation, config["interpolation"]),
        fit=fit,
    )


def assemble(name: str, model: nn.Module, architecture: str, origin: Origin) -> Backbone:
    """Make a backbone of a timm classifier, whose last layer becomes the source head."""
    input = preprocess(model)
    network = cast(Any, model)  # for timm's methods
    config = network.pretrained_cfg
    source = _source_head(network)
    subset = infer_imagenet_subset(network) if source is not None else None
    network.reset_classifier(0)
    model.eval().requires_grad_(False)
    card = Card(
        name=name,
        architecture=architecture,
        dim=_features(model, input.size),
        input=input,
        origin=origin,
        licence=config.get("license") or "unknown",
        source_task=subset or "",
        source_classes=class_names(subset) if subset else (),
    )
    if source is not None and len(source.weight) != card.dim:
        source = None  # the layer does not read the pooled features directly
    return Backbone(card, model, blocks_of(network), source)


def class_names(subset: str) -> tuple[str, ...]:
    """Return the class names in output order; equal names get their synset."""
    info = ImageNetInfo(subset)
    names = [info.index_to_description(i) for i in range(info.num_classes())]
    often = Counter(names)
    return tuple(
        f"{name} ({info.index_to_label_name(i)})" if often[name] > 1 else name
        for i, name in enumerate(names)
    )


def blocks_of(network: Any) -> tuple[Block, ...]:
    """Return timm's finest grouping of parameters by depth."""
    groups = sorted(group_parameters(network, network.group_matcher(coarse=False)).items())
    return tuple(
        Block(_block_name(parameters) if depth else "stem", tuple(parameters))
        for depth, (_, parameters) in enumerate(groups)
    )


def _block_name(parameters: list[str]) -> str:
    """Return the common prefix of the parameters, or the numbered block of the first.

    >>> _block_name(["layer1.0.conv1.weight", "layer1.0.bn1.weight"])
    'layer1.0'
    >>> _block_name(["blocks.6.0.conv_pw.weight", "conv_head.weight"])
    'blocks.6.0'
    """
    common = os.path.commonprefix([f"{p.rpartition('.')[0]}." for p in parameters])
    numbered = re.match(r"(.*\.\d+)\.", parameters[0])
    return common.rpartition(".")[0] or (numbered.group(1) if numbered else parameters[0])


def _source_head(network: Any) -> SourceHead | None:
    layer = network.get_classifier()
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        return None
    with torch.no_grad():
        return SourceHead(
            np.ascontiguousarray(layer.weight.T.numpy(force=True)), layer.bias.numpy(force=True)
        )


@torch.inference_mode()
def _features(model: nn.Module, size: int) -> int:
    shape = model(torch.zeros(1, 3, size, size)).shape
    if len(shape) != 2:
        raise SpecError(f"A backbone gives one vector a picture; this one gives {tuple(shape)}.")
    return int(shape[1])
