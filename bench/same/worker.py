"""A process that has loaded the libraries, not Headstart, and forks to run each command.

Loading PyTorch and its friends takes longer than most commands; whoever forks has them already.
It reads a JSON object a line and answers one; `python -m headstart` is run in the child as it
would be run alone. Started with the code's folder in PYTHONPATH.
"""

import atexit
import fnmatch
import gc
import json
import os
import runpy
import signal
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

LIBRARIES = (
    "numpy", "scipy.stats", "scipy.optimize", "scipy.special", "PIL.Image", "PIL.ImageDraw",
    "jinja2", "onnx", "onnxruntime", "torch", "torch._dynamo", "torch.onnx", "torchvision", "timm",
    "captum.attr", "safetensors.torch", "sklearn.linear_model", "sklearn.manifold", "rich.progress",
    "simplejpeg", "tensorboardX", "torch.func",
)  # fmt: skip
LONGEST_S = 600.0
TOO_LONG = -1000  # instead of an exit code


def main() -> None:
    for name in LIBRARIES:
        with suppress(ImportError):
            import_module(name)
    gc.freeze()  # or each child would copy what it collects
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        pid = os.fork()
        if not pid:
            answers.close()
            run(asked)
            return
        code, busy = waited(pid)
        print(json.dumps([code, time.perf_counter() - began, busy]), file=answers, flush=True)


def waited(pid: int) -> tuple[int, float]:
    """The exit code and processor seconds of a child, which is killed when it takes too long."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return TOO_LONG, LONGEST_S


def run(asked: dict[str, Any]) -> None:
    """In the child: take the streams, place and words of a process of its own, and be it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(asked[name], flags, 0o644), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = find_spec("headstart")
    if found is None or not str(found.origin).startswith(asked["code"] + os.sep):
        raise RuntimeError(f"The code of {asked['code']} must be run, not {found}.")
    if asked["stopped"]:
        stop_after(asked["stopped"], asked["after"])
    sys.argv = ["headstart", *asked["argv"]]
    leave(code_of_program())


def code_of_program() -> int:
    """Run `python -m headstart`; its exit code."""
    try:
        runpy.run_module("headstart", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> None:
    """End as the interpreter does, but for taking apart all modules, which takes seconds."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def stop_after(number: int, count: int) -> None:
    """Send this process a signal when it is about to write a checkpoint for the `count`-th time."""
    written = [0]

    def look(event: str, given: tuple[Any, ...]) -> None:
        if event != "os.rename" or not fnmatch.fnmatch(str(given[1]), "*/checkpoint-*.safetensors"):
            return
        written[0] += 1
        if written[0] == count:
            os.kill(os.getpid(), number)

    sys.addaudithook(look)


if __name__ == "__main__":
    main()
