"""Save and load a backbone as a folder: card.json and weights.safetensors, as in a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save

from headstart.backbones import sources
from headstart.backbones.backbone import (
    Backbone,
    Card,
    SourceHead,
    asset_tensors,
    card_from_plain,
    card_to_plain,
    under,
    with_assets,
)
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights, fill, read_tensors, room_of
from headstart.base.atomic import new_folder, read_bytes, write_bytes, write_json
from headstart.base.errors import HeadstartError, SourceError, SpecError, sentence_of
from headstart.base.paths import user_path
from headstart.base.strict_json import MOST_BYTES, read_strictly

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones.backbone import Block

CARD = "card.json"
WEIGHTS = "weights.safetensors"
BACKBONE = "backbone."  # prefix of the module's tensors in the file
SOURCE_HEAD = "source_head."
weight_files = (".safetensors",)


def load(id: str, weights: Weights) -> Backbone:
    """Load `file:FOLDER`, written by `save_backbone`, or the backbone of a bundle."""
    folder = user_path(id)
    card = read_card(folder / CARD)
    tensors = read_tensors(weights.file or folder / WEIGHTS)
    card = with_assets(card, tensors)
    with room_of(card.architecture, tensors):
        module, blocks = sources.build(card)
    if not weights.random:
        fill(module, under(BACKBONE, tensors), folder / WEIGHTS)
    head = {k: np.ascontiguousarray(v.numpy()) for k, v in under(SOURCE_HEAD, tensors).items()}
    source = SourceHead(head["weight"], head["bias"]) if head else None
    return Backbone(card, module, blocks, None if weights.random else source)


def save_backbone(backbone: Backbone, folder: Path) -> Path:
    """Write `backbone` for `file:FOLDER`; raises FileExistsError if `folder` exists."""
    tensors = {f"{BACKBONE}{k}": np.asarray(v, order="C") for k, v in backbone.weights().items()}
    if source := backbone.source_head:
        tensors |= {f"{SOURCE_HEAD}weight": source.weight, f"{SOURCE_HEAD}bias": source.bias}
    tensors |= asset_tensors(backbone.card.input)
    with new_folder(folder) as part:
        write_json(part / CARD, card_to_plain(backbone.card))
        write_bytes(part / WEIGHTS, save(tensors))
    return folder


def read_card(path: Path) -> Card:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise SpecError(f"it has {size:,} bytes, and at most {MOST_BYTES:,} are read")
        return card_from_plain(read_strictly(read_bytes(path)))
    except (OSError, ValueError, HeadstartError) as error:
        reason = sentence_of(error)
        raise SourceError(
            f"A backbone's folder holds {CARD} and {WEIGHTS}; {path} cannot be read: {reason}"
        ) from error


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """Raise SpecError: a folder has no architecture; its card names one of another source."""
    raise SpecError(f"A folder of weights can't be an architecture; got {card.architecture!r}.")


def listing() -> tuple[Listing, ...]:
    """Return nothing: folders are not searched for."""
    return ()
