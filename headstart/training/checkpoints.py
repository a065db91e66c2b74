"""Training progress in one safetensors file, written atomically, for bit-exact resumption.

A checksum covers all bytes, so that a damaged or altered file is refused.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from headstart.backbones.backbone import under
from headstart.base.atomic import read_bytes, write_bytes
from headstart.base.context import Checkpointing
from headstart.base.errors import BundleError, Diverged, SpecError
from headstart.base.seals import BLANK, SEAL, has_seal, header_of, seal_holds, sealed
from headstart.training.arithmetic import ARITHMETICS, Arithmetic
from headstart.training.history import Epoch

FACTS = "facts"
EARLIER: dict[str, Any] = {"stopped": False, "arithmetic": ""}  # what earlier releases lacked
KIND = "checkpoint"  # kind of file, part of its checksum


@dataclass(frozen=True)
class Progress:
    """The progress of a training phase: the contents of its checkpoint except tensors.

    epoch: number of finished epochs. step: finished steps of the current epoch. loss, right: sums
    over the current epoch's rows. lr: of the last step. parts: number of parts a batch is split
    into to fit the accelerator. best: index into history of the best validation result. seconds:
    time spent on the current epoch before the last resumption. stopped: whether the listener asked
    to stop. arithmetic: the number format of all steps; "" for the device's usual one, as of
    versions that had no other.
    """

    history: tuple[Epoch, ...] = ()
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: int = 0
    lr: float = 0.0
    parts: int = 1
    best: int = 0
    seconds: float = 0.0
    stopped: bool = False
    arithmetic: Arithmetic | Literal[""] = ""

    def after(self, line: Epoch, better: bool) -> "Progress":
        """Return the progress at the start of the next epoch. better: `line` is the best so far."""
        return Progress(
            history=(*self.history, line),
            epoch=self.epoch + 1,
            lr=self.lr,
            parts=self.parts,
            best=len(self.history) if better else self.best,
            arithmetic=self.arithmetic,
        )


def read_progress(own: Checkpointing, data: bytes) -> tuple[Progress, dict[str, Tensor]]:
    """Return progress and tensors of this job's checkpoint. data: the bytes of its file.

    Raises BundleError, naming the file, if it is malformed, SpecError if it is of another job.
    """
    path = own.path
    assert path is not None
    tensors, facts = parsed(path, data)
    hints, facts = {"job": str, **get_type_hints(Progress)}, {**EARLIER, **facts}
    if odd := facts.keys() ^ hints.keys():
        raise altered(path, f"it has {'no' if min(odd) in hints else 'a'} {min(odd)!r}")
    for name in _wrong(facts, hints):
        raise altered(path, f"its {name!r} is {str(facts[name])[:40]!r}")
    if facts.pop("job") != own.job:
        raise SpecError(
            f"The run in {path.parent} was begun with other settings, other data or another "
            f"backbone, and its training would be lost: repeat the command as it was, name "
            f"another --out, or delete {path}."
        )
    history = tuple(Epoch(**line) for line in facts.pop("history"))
    return Progress(history, **facts), tensors


def check_progress(
    path: Path, progress: Progress, most: Mapping[str, int], lines: list[tuple[str, int]]
) -> None:
    """Raise BundleError for progress that the phase can't have made.

    most: upper limits by field name. lines: expected phase and epoch of each history line.
    """
    fits = {name: getattr(progress, name) <= limit for name, limit in most.items()}
    fits["parts"] = progress.parts >= 1
    fits["history"] = lines == [(line.phase, line.epoch) for line in progress.history]
    if wrong := [name for name, fit in fits.items() if not fit]:
        raise altered(path, f"its {wrong[0]!r} is not of this phase")


def save_progress(
    own: Checkpointing,
    progress: Progress,
    learned: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    averages: Sequence[Mapping[str, Tensor]] = (),
) -> None:
    """Write a checkpoint if enabled.

    learned, best: weights now and of the best epoch. averages: sets of weights that are averaged.
    """
    if own.path is None:
        return
    tensors = {f"learned.{name}": t for name, t in learned.items()}
    tensors |= {f"best.{name}": t for name, t in best.items()}
    for i, kept in enumerate(averages):
        tensors |= {f"average.{i}.{name}": t for name, t in kept.items()}
    tensors |= pack_optimizer(optimizer)
    write_checkpoint(own.path, tensors, {"job": own.job, **asdict(progress)})


_FITS: dict[Any, Callable[[Any], bool]] = {  # by the type of a field
    str: lambda value: isinstance(value, str),
    bool: lambda value: type(value) is bool,
    int: lambda value: type(value) is int and 0 <= value < 2**53,
    float: lambda value: type(value) in (int, float) and abs(value) < 1e300,  # sums stay finite
    Arithmetic | Literal[""]: lambda value: value in ("", *ARITHMETICS),
    float | None: lambda value: value is None or _FITS[float](value),
    tuple[Epoch, ...]: lambda value: isinstance(value, list) and all(map(_is_line, value)),
}


def _is_line(value: Any) -> bool:
    """Return whether a value is a line of history as JSON."""
    hints = get_type_hints(Epoch)
    return isinstance(value, dict) and value.keys() == hints.keys() and not _wrong(value, hints)


def _wrong(facts: Mapping[str, Any], hints: Mapping[str, Any]) -> list[str]:
    """Return the names of the facts that are not of the types in `hints`."""
    return [name for name, hint in hints.items() if not _FITS[hint](facts[name])]


def altered(path: Path, why: str) -> BundleError:
    """Return the error for a damaged or altered checkpoint."""
    return BundleError(
        f"{path} is no checkpoint of training as it was written: {why}. Remove it to begin that "
        f"phase again."
    )


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replace `path` durably; raises Diverged instead of writing a non-finite number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise Diverged(f"A checkpoint holds finite numbers only; {name} has others.")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    write_bytes(path, sealed(save(whole, {FACTS: text, SEAL: BLANK}), KIND))


def checkpoint_bytes(path: Path) -> bytes:
    """Return the bytes of a checkpoint; raises BundleError for a file that cannot be read."""
    try:
        return read_bytes(path)
    except OSError as error:
        raise altered(path, error.strerror or str(error)) from error


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `write_checkpoint`; raises BundleError for any other file, even a pipe."""
    return parsed(path, checkpoint_bytes(path))


def parsed(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts of the bytes of a checkpoint; see `read_checkpoint`."""
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
    averages: int = 0,
) -> None:
    """Raise BundleError unless a checkpoint's tensors match network and optimiser.

    optimizer: None before the first step, when there is no optimiser state. averages: the number of
    sets of weights that are averaged.
    """
    sets = ("learned", "best", *(f"average.{i}" for i in range(averages)))
    wanted = {f"{of}.{name}": t for of in sets for name, t in learned.items()}
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
    """Return tensors shaped like the optimiser's state, under their names in the checkpoint.

    Every parameter with state has the same entries; all our optimisers have state.
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
    """Return the optimiser's state tensors by parameter number and name."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state from `pack_optimizer` into an identically built optimiser.

    Each tensor gets its parameter's memory layout: the order of sums affects the last bit.
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
