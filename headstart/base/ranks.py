"""Training on several processes, which torchrun starts: their ranks, and their communication.

Rank 0 does all of a run; the other ranks join it for the steps of training alone. Between two
trainings they wait, however long rank 0 takes, until it begins the next one or ends the work.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headstart.base.errors import LostRank, SpecError
from headstart.base.runtime import cores

if TYPE_CHECKING:
    from torch import Tensor

ANSWER = timedelta(minutes=5)  # in which the other processes answer, at most: a step, a checkpoint
POLL_S = 0.2  # how often a waiting process looks
LATE_S = 3600.0  # for the others to read the data again, whose features are stored by then
ENDED = "end"  # rank 0's message to the others after the last training

LOST = (
    "Another process of this training ended, or gave no answer for 5 minutes; its own message, if "
    "it left one, says why. The same command goes on from the last checkpoint, with any number of "
    "processes."
)


def under_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_leader() -> bool:
    """Return whether this is the process that writes and prints: rank 0, or the only one."""
    return not under_torchrun() or os.environ.get("RANK", "0") == "0"


class Ranks:
    """The processes of a training: this one's number `rank`, from 0, and how many there are.

    This class is a training by one process; `Group` is that of several.

    >>> Ranks().part(5), Ranks(1, 2).part(5)
    (slice(0, 5, None), slice(2, 5, None))
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def several(self) -> bool:
        return self.size > 1

    @property
    def leads(self) -> bool:
        """Whether this process decides, writes and prints."""
        return self.rank == 0

    def part(self, rows: int) -> slice:
        """Return this process's contiguous part of so many rows, which may be empty."""
        return slice(self.rank * rows // self.size, (self.rank + 1) * rows // self.size)

    def add(self, *values: float) -> tuple[float, ...]:
        """Return the sums of numbers over all processes."""
        return values

    def add_gradients(self, parameters: "Mapping[str, Tensor]") -> None:
        """Replace the gradients by their sums over all processes."""

    def any(self, own: bool) -> bool:
        """Return whether this is so in any process."""
        return own

    def shared(self, value: Any) -> Any:
        """Return rank 0's value, which JSON can hold."""
        return value

    def shared_bytes(self, data: bytes) -> bytes:
        """Return rank 0's bytes."""
        return data

    def equal(self, tensors: "Mapping[str, Tensor]") -> None:
        """Copy rank 0's tensors into those of the others, in place."""

    @contextmanager
    def together(self, phase: str) -> Iterator[None]:
        """Begin a training with all processes; after it, those but rank 0 wait for the next."""
        yield

    def wait(self) -> None:
        """Wait until rank 0 begins a training; raises `Ended` if there is none any more."""

    def end(self) -> None:
        """Tell the other processes that there is no training any more."""

    def close(self) -> None:
        """Leave the group, at the end of a run that succeeded."""


ALONE = Ranks()
_STORES = list[Any]()  # the open store of the group, at hand when torchrun ends a process


class Ended(Exception):  # noqa: N818  (no error: the end of the work of a rank but 0)
    """Rank 0 needs the other processes no more."""


class Group(Ranks):
    """The processes that torchrun started."""

    def __init__(self, device: str, timeout: timedelta = ANSWER) -> None:
        """Join the group of the environment's RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

        device: where to compute; "cuda" takes the GPU of LOCAL_RANK. Raises SpecError without one.
        """
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        if device == "cuda":
            local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
            if local >= there:
                raise SpecError(
                    f"Each process of torchrun computes on a GPU of its own; this machine has "
                    f"{there}. Type --nproc-per-node {there}, or --device cpu."
                )
            torch.cuda.set_device(local)
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        super().__init__(rank, size)
        self.trainings = 0  # begun so far
        self.store = PrefixStore(f"headstart-{attempt}", store)
        _STORES.append(self.store)
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            store=PrefixStore(f"group-{attempt}", store),
            rank=rank,
            world_size=size,
            timeout=timeout,
        )

    def add(self, *values: float) -> tuple[float, ...]:
        import torch

        own = torch.tensor(values, dtype=torch.float64)
        self._reduce(own)
        return tuple(own.tolist())

    def add_gradients(self, parameters: "Mapping[str, Tensor]") -> None:
        import torch

        own = list(parameters.values())
        there = torch.tensor([float(p.grad is not None) for p in own], device=own[0].device)
        flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
        whole = torch.cat([there, *(g.reshape(-1) for g in flat)])
        self._reduce(whole)
        used, *parts = whole.split([len(own), *(g.numel() for g in flat)])
        for p, grad, part, count in zip(own, flat, parts, used.tolist(), strict=True):
            p.grad = grad.copy_(part.view_as(grad)) if count else None

    def any(self, own: bool) -> bool:
        return self.add(float(own))[0] > 0

    def shared(self, value: Any) -> Any:
        return json.loads(self.shared_bytes(json.dumps(value).encode()))

    def shared_bytes(self, data: bytes) -> bytes:
        import torch

        count = torch.tensor([len(data)])
        self._send(count)
        own = torch.empty(int(count), dtype=torch.uint8)
        if self.leads:
            own.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self._send(own)
        return bytes(own.numpy())

    def equal(self, tensors: "Mapping[str, Tensor]") -> None:
        for tensor in tensors.values():
            own = tensor.contiguous()
            self._send(own)
            tensor.copy_(own)

    @contextmanager
    def together(self, phase: str) -> Iterator[None]:
        self._begin(phase)
        yield
        if not self.leads:
            self.wait()

    def _begin(self, phase: str) -> None:
        """Let all processes arrive at a training."""
        self.trainings += 1
        name = f"phase-{self.trainings}"
        with _answered():
            self._arrive(name, phase)

    def _arrive(self, name: str, phase: str) -> None:
        if self.leads:
            self.store.set(name, phase)
            until = time.monotonic() + LATE_S
            while self.store.add(f"{name}-there", 0) < self.size - 1:
                if time.monotonic() > until:
                    raise LostRank(LOST)
                time.sleep(POLL_S)
        else:
            if (asked := self.store.get(name).decode()) != phase:
                raise LostRank(
                    f"All processes train the same phase; rank {self.rank} came to {phase}, and "
                    f"rank 0 to {asked}. Is the data, the store or the machine another one there?"
                )
            self.store.add(f"{name}-there", 1)

    def wait(self) -> None:
        name = f"phase-{self.trainings + 1}"
        with _answered():
            while not self.store.check([name]):  # not `wait`, which no signal interrupts
                time.sleep(POLL_S)
            if self.store.get(name).decode() == ENDED:
                raise Ended

    def end(self) -> None:
        if self.leads:
            self.store.set(f"phase-{self.trainings + 1}", ENDED)

    def close(self) -> None:
        import torch.distributed as dist

        _STORES.clear()
        with suppress(RuntimeError):
            dist.destroy_process_group()

    def _reduce(self, tensor: "Tensor") -> None:
        import torch.distributed as dist

        with _answered():
            dist.all_reduce(tensor)

    def _send(self, tensor: "Tensor") -> None:
        import torch.distributed as dist

        with _answered():
            dist.broadcast(tensor, src=0)


@contextmanager
def _answered() -> Iterator[None]:
    """Turn the loss of a process during an exchange into one sentence."""
    try:
        yield
    except RuntimeError as error:
        raise LostRank(LOST) from error


def first_to_tell() -> bool:
    """Return whether this process may print its error: under torchrun only the first one does.

    Before the processes have joined, all raise the same error, and the leader prints it.
    """
    if not several_asked():
        return True
    if not _STORES:
        return is_leader()
    try:
        return int(_STORES[-1].add("told", 1)) == 1
    except RuntimeError:  # the store went with torchrun: then each process tells
        return True


def threads_each() -> int:
    """Return the threads of each process of this machine, so that together they use its cores."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def several_asked() -> bool:
    """Return whether torchrun started more than one process."""
    return under_torchrun() and int(os.environ.get("WORLD_SIZE", "1")) > 1
