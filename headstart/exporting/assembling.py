"""Make one ONNX graph of a model, from pixels or tokens to calibrated answers."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import card_to_plain
from headstart.backbones.frozen import Frozen
from headstart.backbones.weights_inside import with_weights_inside
from headstart.base.errors import SpecError
from headstart.base.onnx_nodes import Nodes
from headstart.models.model import Model
from headstart.targets.registry import target_to_plain
from headstart.targets.target import Target

NETWORK = "network/"  # prefix of the names of all that is the backbone's
DISTANCE = "distance"  # the output that is the distance from the training rows
AXES: Mapping[str, tuple[int | str, ...]] = {  # of outputs, besides the first
    "scores": ("k",),
    "labels": ("k",),
    "classes": ("k",),
    "boxes": ("k", 4),
}
TYPES: Mapping[str, Any] = {"labels": np.bool_, "classes": np.int64}  # others are float32


def assembled(model: Model, facts: Mapping[str, Any], *, prepares: bool = True) -> bytes:
    """Return the graph of a model with a frozen backbone, as the bytes of an ONNX file.

    facts: written into it as metadata. prepares: whether the graph prepares examples itself, or
    takes prepared ones alone. Raises SpecError for a head or target that can't be exported.
    """
    frozen, nodes = model.backbone, Nodes()
    assert isinstance(frozen, Frozen)
    given = frozen.card.input.in_graph(nodes, prepares=prepares)
    graph = with_weights_inside(frozen.graph, {n: frozen.weights[n] for n in frozen.inputs})
    x = given.pooled(nodes.merged(graph, given.arrays, NETWORK))
    raw = head_in_graph(model, nodes, x)
    answers = dict(model.target.in_graph(nodes, raw, model.limits.temperature))
    if model.limits.seen is not None:
        answers[DISTANCE] = model.limits.seen.in_graph(nodes, x)
    for name, value in answers.items():
        nodes.output(name, value, TYPES.get(name, np.float32), ["n", *AXES.get(name, ())])
    metadata = {f"headstart_{key}": json.dumps(value) for key, value in facts.items()}
    serialized: bytes = nodes.model(metadata).SerializeToString()
    return serialized


def head_in_graph(model: Model, nodes: Nodes, x: str) -> str:
    """Add a model's head; one of a user's family if it is a PyTorch module."""
    head: Any = model.head
    if hasattr(head, "in_graph"):
        return str(head.in_graph(nodes, x))
    if not hasattr(head, "as_module"):
        raise SpecError(
            f"A head is exported if it writes itself into a graph (`in_graph`) or is a module "
            f"(`as_module`); {head.kind} does neither. Name another --head for that."
        )
    from headstart.heads.module import ModuleHead

    return ModuleHead.of(head.as_module(), head.features).in_graph(nodes, x)


def facts_of(model: Model, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return what a model is, as JSON values: for the metadata of a graph and the card."""
    card = model.backbone.card
    limits = {k: v for k, v in model.limits.settings().items() if k != "alpha"}
    return {
        **target_to_plain(model.target),
        "answers": model.target.export_facts(),
        "limits": limits,
        "licence": card.licence,
        "card": card_to_plain(card),
        "versions": dict(versions),
    }


def answers_of(target: Target, outputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Return numbers made of a graph's outputs, by which its answers are compared."""
    own = {name: array for name, array in outputs.items() if name != DISTANCE}
    return target.comparable(target.of_graph(own))
