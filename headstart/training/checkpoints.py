"""Where training is, written so that it goes on to the bit; one safetensors file, whole or none.

The file carries a seal over all of its bytes, so that one which was damaged or altered is refused.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from headstart.backbones.backbone import under
from headstart.base.atomic import read_bytes, write_bytes
from headstart.base.errors import BundleError, Diverged
from headstart.base.seals import BLANK, SEAL, has_seal, header_of, seal_holds, sealed
from headstart.training.history import HISTORY, MEASURED, Epoch

FACTS = "facts"
KIND = "checkpoint"  # what the file is sealed as


@dataclass(frozen=True)
class Place:
    """Where the training of a phase is; the fields are described where the loop has them."""

    job: str
    history: tuple[Epoch, ...]
    epoch: int
    step: int
    loss: float
    right: int
    lr: float
    parts: int
    best: int
    seconds: float
    stopped: bool = False

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, facts: Mapping[str, Any], path: Path) -> "Place":
        """What `to_plain` gave; raises BundleError, naming `path`, for any other value."""
        names, facts = {f.name for f in fields(cls)}, {"stopped": False, **facts}
        if facts.keys() != names:
            odd = min(facts.keys() ^ names)
            raise altered(path, f"it has {'no' if odd in names else 'a'} {odd!r}")
        for name, fits in _FITS.items():
            if not fits(facts[name]):
                raise altered(path, f"its {name!r} is {str(facts[name])[:40]!r}")
        return cls(**{**facts, "history": tuple(Epoch(**line) for line in facts["history"])})


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _real(value: object) -> bool:
    """Finite, and small enough to be added up."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < 1e300


def _text(value: object) -> bool:
    return isinstance(value, str)


def _lines(value: object) -> bool:
    return isinstance(value, list) and all(map(_line, value))


def _line(value: object) -> bool:
    """Whether it is a line of history, as a dict."""
    return (
        isinstance(value, dict)
        and value.keys() == set(HISTORY)
        and _text(value["phase"])
        and _whole(value["epoch"])
        and _real(value["seconds"])
        and all(value[name] is None or _real(value[name]) for name in MEASURED)
    )


_FITS: dict[str, Callable[[object], bool]] = {
    "job": _text,
    "history": _lines,
    **dict.fromkeys(("epoch", "step", "right", "parts", "best"), _whole),
    **dict.fromkeys(("loss", "lr", "seconds"), _real),
    "stopped": lambda value: type(value) is bool,
}


def altered(path: Path, why: str) -> BundleError:
    """The error for a checkpoint that is not to be trusted."""
    return BundleError(
        f"{path} is no checkpoint of training as it was written: {why}. Remove it to begin that "
        f"phase again."
    )


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replace `path` durably. Raises Diverged rather than keep a number that is not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise Diverged(f"A checkpoint holds finite numbers only; {name} has others.")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    write_bytes(path, sealed(save(whole, {FACTS: text, SEAL: BLANK}), KIND))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_checkpoint` wrote; raises BundleError for anything else, a pipe among it."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise altered(path, error.strerror or str(error)) from error
    if not seal_holds(data, KIND):
        damaged = "a bit or more of it changed since"
        raise altered(path, damaged if has_seal(data) else "it has no seal, as of an old version")
    try:
        facts = json.loads(json.loads(header_of(data))["__metadata__"][FACTS])
        tensors = {name: tensor.clone() for name, tensor in load(data).items()}
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise altered(path, str(error)) from error
    if not isinstance(facts, dict):
        raise altered(path, "its facts are no object")
    return tensors, facts


def check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
) -> None:
    """Raises BundleError unless a checkpoint has just what this network and optimiser take.

    optimizer: None before the first step, when it remembers nothing.
    """
    wanted = {f"{of}.{name}": t for of in ("learned", "best") for name, t in learned.items()}
    wanted |= _memory_like(tensors, optimizer) if optimizer else {}
    if odd := tensors.keys() ^ wanted.keys():
        name = min(odd)
        raise altered(path, f"it has {'a' if name in tensors else 'no'} tensor {name!r}")
    for name, like in wanted.items():
        kind, shape = tensors[name].dtype, tensors[name].shape
        if (kind, shape) != (like.dtype, like.shape):
            raise altered(path, f"its tensor {name!r} is {kind} of shape {tuple(shape)}")


def _memory_like(
    tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Tensors of the shapes that the optimiser's memory has, by the names that it is saved by.

    Each parameter that has any has what the others have. All of ours remember something.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    named = [name.split(".", 1) for name in under("optimizer.", tensors) if "." in name]
    whats = {what for _, what in named} or {"step"}
    numbers = {number for number, _ in named} & set(map(str, range(len(parameters)))) or {"0"}
    count = torch.zeros((), dtype=torch.float32)
    return {
        f"optimizer.{number}.{what}": count if what == "step" else parameters[int(number)]
        for number in numbers
        for what in whats
    }


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's memory of each parameter, by number and name."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser made alike the memory that `pack_optimizer` took.

    In the memory layout of the parameters, too: sums in another order would differ in the last bit.
    """
    whole = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in under("optimizer.", tensors).items():
        number, name = key.split(".", 1)
        like = parameters[int(number)]
        laid = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[name] = laid
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
