"""A network as one file in a store, so that any process that sees the store can open it."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from headstart.backbones.backbone import (
    asset_tensors,
    card_from_plain,
    card_to_plain,
    under,
    with_assets,
)
from headstart.backbones.frozen import Frozen
from headstart.base.atomic import write_bytes
from headstart.base.errors import StoreError
from headstart.base.store import GRAPHS, Store

WEIGHTS, GRAPH = "backbone.", "graph"


def keep_graph(frozen: Frozen, store: Store) -> Path:
    """Write a network to the store, under its fingerprint; return the file.

    Raises OSError if the store can't be written.
    """
    tensors = {f"{WEIGHTS}{k}": np.asarray(v, order="C") for k, v in frozen.weights.items()}
    tensors |= asset_tensors(frozen.card.input)
    tensors[GRAPH] = np.frombuffer(frozen.graph, np.uint8)
    facts = {"card": json.dumps(card_to_plain(frozen.card)), "inputs": json.dumps(frozen.inputs)}
    path = store.folder / GRAPHS / f"{frozen.fingerprint()}.safetensors"
    write_bytes(path, save(tensors, facts))
    return path


def kept_graph(path: Path) -> Frozen:
    """Read what `keep_graph` wrote; raises StoreError for a file that is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = file.metadata()
        card = with_assets(card_from_plain(json.loads(facts["card"])), tensors)
        graph, inputs = tensors[GRAPH].tobytes(), tuple(json.loads(facts["inputs"]))
        frozen = Frozen(card, graph, under(WEIGHTS, tensors), inputs)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} must be a network of the store: {error}") from error
    if frozen.fingerprint() != path.stem:
        raise StoreError(f"{path} was altered: its network is another one. Remove it.")
    return frozen
