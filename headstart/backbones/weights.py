"""The choice of a network's weights: pretrained, random, or from a local file."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from headstart.backbones.backbone import Origin
from headstart.base.errors import Mismatch, SourceError, SpecError, sentence_of
from headstart.base.paths import user_path
from headstart.base.tensor_files import check_tensor_file

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Weights:
    """choice: "pretrained", "random", or a file path. files: allowed suffixes of the file.

    Pickles (.pth, .pt, .bin, .ckpt) are refused, because reading one can run arbitrary code.
    """

    choice: str = "pretrained"
    files: tuple[str, ...] = (".safetensors",)

    def __post_init__(self) -> None:
        if self.file is None:
            return
        if self.file.suffix == ".h5" and ".h5" not in self.files:
            raise SpecError(
                f"Weights in a .h5 file are Keras' and go into a backbone of keras: alone; got "
                f"{self.choice!r}. Give a {' or '.join(self.files)} file."
            )
        if self.file.suffix not in self.files:
            raise SpecError(
                f"weights is 'pretrained', 'random' or a {' or '.join(self.files)} file; got "
                f"{self.choice!r}. Other formats can run code when they are read: convert the "
                f"file first."
            )
        if not self.file.is_file():
            raise SourceError(f"There is no weights file {self.choice}. Check the path.")
        if self.file.suffix == ".safetensors":
            check_file(self.file)

    @property
    def file(self) -> Path | None:
        return None if self.choice in ("pretrained", "random") else user_path(self.choice)

    @property
    def random(self) -> bool:
        return self.choice == "random"

    @property
    def origin(self) -> Origin:
        """The origin of a network with these weights, for its card."""
        if self.file:
            return "given"
        return "random" if self.random else "pretrained"

    @property
    def of_keras(self) -> bool:
        """Whether Keras wrote the file (HDF5, without pickles)."""
        return self.file is not None and self.file.suffix == ".h5"

    def into(self, module: "nn.Module") -> None:
        """Load the local file, if one is chosen, into `module`; raises Mismatch as `fill` does."""
        if self.file is not None:
            fill(module, read_tensors(self.file), self.file)


def check_file(path: Path) -> None:
    """Raise SourceError unless a file begins as a safetensors file: a pickle under its name does
    not, nor one whose header is damaged or far too large."""
    try:
        check_tensor_file(path)
    except (OSError, SpecError) as error:
        raise SourceError(
            f"{path} cannot be read as a safetensors file: {sentence_of(error)}. Get it again."
        ) from error


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Return every tensor of a safetensors file; raises SourceError if it isn't one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_file(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path} cannot be read as a safetensors file: {error}.") from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return every tensor of a safetensors file as an array; raises SourceError if it isn't one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_file(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path} cannot be read as a safetensors file: {error}.") from error


def room_of(architecture: str, weights: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Return a block in which a network may be built that is as large as its weights say.

    architecture: the name of the network, from a card that a stranger may have written. The block
    raises Mismatch for a far larger network.
    """
    from headstart.backbones.room import room_for

    return room_for(architecture, sum(each.nbytes for each in weights.values()), len(weights))


def fill(module: "nn.Module", state: "Mapping[str, Tensor]", origin: object) -> None:
    """Load `state` into `module`; raises Mismatch for wrong names or shapes, NaN or infinity."""
    own = module.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # older files lack it
    missing = sorted(own.keys() - state.keys() - counters)
    extra = sorted(state.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    for what, names in (("lacks", missing), ("has no use for", extra), ("differs in", shapes)):
        if names:
            raise Mismatch(
                f"The weights of {origin} must fit the network; it {what} {names[0]!r}"
                + (f" and {len(names) - 1} more." if len(names) > 1 else ".")
                + " Are they those of another architecture?"
            )
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise Mismatch(
                f"The weights of {origin} must be finite numbers; {name!r} holds NaN or infinity. "
                f"Get them again, or name others."
            )
    module.load_state_dict(dict(state), strict=False)
