"""The device, threads and memory of a run."""

import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from headstart.base.errors import SpecError
from headstart.base.signals import answered_with

if TYPE_CHECKING:
    from torch import Generator

Device = Literal["auto", "cpu", "cuda", "mps"]
ComputePrecision = Literal["auto", "float32", "bfloat16"]
EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]
MOST_THREADS = 1024  # each costs about 100 kB, even when idle


@dataclass(frozen=True)
class Runtime:
    """Settings of speed, which change a result by rounding only."""

    device: Annotated[
        Device,
        "where to compute; auto takes an accelerator if there is one",
    ] = "auto"
    threads: Annotated[
        int,
        "threads of the network, 0 for one per core; another number rounds sums in another way, "
        "which training can enlarge",
    ] = 0
    decode_threads: Annotated[int, "threads that read and decode, 0 for one per core"] = 0
    engine: Annotated[
        EngineName,
        "what runs the frozen layers; auto times the installed ones on a few of your examples and "
        "takes the fastest",
    ] = "auto"
    compile: Annotated[
        bool,
        "compile what is trained (torch.compile): a minute or more before the first step, which "
        "pays in long training on an accelerator, and seldom on a CPU",
    ] = False
    compute_precision: Annotated[
        ComputePrecision,
        "precision in which the network computes on a CPU; auto measures and takes bfloat16 where "
        "it is clearly faster and its results agree with those of float32",
    ] = "auto"

    def __post_init__(self) -> None:
        words = {"device": Device, "engine": EngineName, "compute_precision": ComputePrecision}
        for name, known in words.items():
            if (word := getattr(self, name)) not in get_args(known):
                raise SpecError(f"{name} is one of {', '.join(get_args(known))}; got {word!r}.")
        if (self.engine, self.compute_precision) == ("onnxruntime", "bfloat16"):
            raise SpecError(
                "ONNX Runtime computes float32 on a CPU, and compute_precision is bfloat16. Name "
                "the engine openvino or torch, or leave one of the two out."
            )
        for name in ("threads", "decode_threads"):
            if not 0 <= getattr(self, name) <= MOST_THREADS:
                raise SpecError(
                    f"{name} is a count up to {MOST_THREADS:,}, or 0 for one a core; got "
                    f"{getattr(self, name)}."
                )

    def resolved(self) -> "Runtime":
        """Return a copy with "auto" and 0 replaced by this machine's device and cores."""
        return replace(
            self,
            device=_accelerator() if self.device == "auto" else self.device,
            threads=self.threads or cores(),
            decode_threads=self.decode_threads or cores(),
        )


ON_CPU = Runtime(device="cpu")


@dataclass
class Stopwatch:
    """Seconds by stage, in the order of the stages; a repeated stage adds up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            took = self.seconds.get(stage, 0.0) + time.perf_counter() - began
            self.seconds[stage] = round(took, 3)


@contextmanager
def held_interrupts(early: Callable[[], bool] = lambda: False) -> Iterator[Callable[[], bool]]:
    """Delay Ctrl-C, SIGTERM and SIGHUP; yield a function that returns whether a signal came.

    early: asked on Ctrl-C first; where it returns True, the signal has been answered.
    KeyboardInterrupt is raised at the end of the block, or at once for a second signal. Ignored
    signals stay ignored; outside the main thread, which alone gets signals, nothing changes.
    """
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        if number == signal.SIGINT and early():
            return
        noted.append(number)
        if len(noted) > 1:
            raise KeyboardInterrupt

    with answered_with(note):
        yield lambda: bool(noted)
    if noted:
        raise KeyboardInterrupt


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of PyTorch's threads in the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_memory() -> None:
    """Make glibc keep freed large blocks instead of returning them to the kernel.

    A training step on a CPU allocates and frees the same tensors over and over; with this setting
    eager PyTorch is much faster (measured). It applies to the whole process, which then never
    shrinks. Without glibc the function does nothing.
    """
    import ctypes

    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 * 2**20)):
            libc.mallopt(option, value)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD of malloc.h


def cores() -> int:
    """Return the cores this process may use, respecting its CPU affinity (taskset, cpusets)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def bfloat16_processor() -> bool:
    """Return whether the processor multiplies bfloat16 itself (AMX, or AVX-512 with BF16).

    Without such instructions bfloat16 on a CPU is slower than float32. False where /proc/cpuinfo
    does not exist.
    """
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        flags = next((line for line in lines if line.startswith("flags")), "").split()
        return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags)
    return False


def memory_bytes() -> int:
    """Return the memory that this process may have, in bytes; 0 if unknown.

    That of the machine, of its container, or what its limit of data (`ulimit -d`) leaves beside
    what it has mapped already, the least of them: PyTorch maps 790 MB when it is imported.
    """
    found = list[int]()
    with suppress(OSError, ValueError, AttributeError):  # AttributeError: Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # "max" is no number
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    with suppress(ImportError):  # Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        mapped = _status_bytes("VmData")
        found += [] if limit == resource.RLIM_INFINITY else [max(1, limit - mapped)]
    return min((n for n in found if n > 0), default=0)


def _status_bytes(name: str) -> int:
    """Return a size that Linux tells of this process, such as VmData; 0 if unknown."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
    return 0


def machine() -> str:
    """Return a description of this machine, to be saved with timings."""
    return f"{platform.system()} {platform.machine()}, {cores()} cores"


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process in bytes; 0 if unknown."""
    if peak := _status_bytes("VmHWM"):  # Linux; getrusage counts its parent there
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def seeded(number: int) -> "Generator":
    """Return a generator seeded with any integer, modulo PyTorch's 2**63."""
    import torch

    return torch.Generator().manual_seed(number % 2**63)


# Device files of NVIDIA's drivers on Linux, of its driver in WSL, and of AMD's driver.
DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")


def installed(*packages: str) -> bool:
    """Return whether packages can be imported, without importing them.

    >>> installed("numpy"), installed("numpy", "no_such_package")
    (True, False)
    """
    try:
        return all(find_spec(package) is not None for package in packages)
    except (ImportError, ValueError):  # ValueError: a stand-in without a spec
        return False


def may_have_accelerator() -> bool:
    """Return whether PyTorch may find an accelerator here; False means that it finds none.

    Importing PyTorch to be certain takes seconds, which work on a CPU need not spend.
    """
    if "torch" in sys.modules:
        return _accelerator() != "cpu"
    unknown = not sys.platform.startswith("linux") or any(Path(d).exists() for d in DRIVERS)
    return unknown and installed("torch")


def _accelerator() -> Device:
    if "torch" not in sys.modules and not may_have_accelerator():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
