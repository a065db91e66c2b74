"""One attempt to load something hostile, in a forked process that is watched."""

import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headstart.base.errors import HeadstartError

HANGS_S, MOST_DATA = 20.0, 4 * 2**30
PAGE = os.sysconf("SC_PAGE_SIZE")
LONGEST = 1200  # characters of a sentence
RUNS = (  # audit events of code that is run, or of the network
    *("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"),
    *("os.spawn", "os.startfile", "socket.connect", "ctypes.dlopen", "code.__new__", "os.fork"),
)
SYSTEM_CODE = (("libc.so.6",), (None,))  # libraries that Python's own modules open
ROOT = str(Path(__file__).parents[2])
OURS = (sys.prefix, sys.base_prefix, f"{ROOT}/headstart", f"{ROOT}/__editable__", f"{ROOT}/bench")
SYSTEM = (
    "/proc/",
    "/sys/",
    "/dev/",
    "/usr/lib/",
    "/lib/",
    "/etc/ld.so",
    "/etc/os-release",
    "/usr/share/zoneinfo",
)


@dataclass
class Attempt:
    """What came of it. kind: refused, same, or a failure's name. seconds: of the processor, for
    loading. memory: bytes above the start. outside: files opened elsewhere. ran: events of code
    that was run."""

    kind: str
    said: str = ""
    seconds: float = 0.0
    memory: int = 0
    outside: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)


def attempt(load: Callable[[], Any], same: Callable[[Any], bool], folder: Path) -> Attempt:
    """Run `load` in a fork, and `same` on what it returns: whether it answers as it did.

    folder: the only one of which files may be opened.
    """
    read, write = os.pipe()
    if not (child := os.fork()):
        os.close(read)
        _watched(load, same, folder, write)
    os.close(write)
    began, data = time.monotonic(), b""
    while (left := HANGS_S - (time.monotonic() - began)) > 0:
        ready, _, _ = select.select([read], [], [], left)
        if not ready or not (part := os.read(read, 2**16)):
            break
        data += part
    os.close(read)
    if time.monotonic() - began >= HANGS_S:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return Attempt("hangs", seconds=HANGS_S)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Attempt(f"signal {os.WTERMSIG(status)}", seconds=time.monotonic() - began)
    return Attempt(**json.loads(data)) if data else Attempt("died")


def _watched(
    load: Callable[[], Any], same: Callable[[Any], bool], folder: Path, write: int
) -> None:
    found = Attempt("died")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    warnings.simplefilter("error")  # a warning would be printed on the user's terminal
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_DATA, MOST_DATA))
    sys.addaudithook(_hook(found, folder))
    start, began = _resident(), time.process_time()
    try:
        try:
            loaded = load()
        finally:
            found.seconds = time.process_time() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            found.memory = max(0, peak - start)
        found.kind = "same" if same(loaded) else "other answers"
    except HeadstartError as error:
        found.said = str(error)
        plain = found.said.isprintable() and 0 < len(found.said) <= LONGEST
        found.kind = "refused" if plain else "no sentence"
    except BaseException as error:
        found.kind, found.said = "traceback", f"{type(error).__name__}: {error}"[:300]
    os.write(write, json.dumps(asdict(found)).encode())
    os._exit(0)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _hook(found: Attempt, folder: Path) -> Callable[[str, tuple[Any, ...]], None]:
    own = (str(folder), *OURS, *SYSTEM)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes):
            path = os.path.abspath(os.fsdecode(args[0]))
            if not path.startswith(own):
                found.outside.append(path)
        elif event in RUNS and args[:1] not in SYSTEM_CODE:
            found.ran.append(f"{event} {args}"[:200])

    return hook


def in_fork(work: Callable[[], object]) -> None:
    """Do some work in a forked process, so that its memory is not this one's."""
    if not (child := os.fork()):
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"the change failed: {status}")
