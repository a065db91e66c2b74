"""What a program sends and writes, read from its system calls as strace records them.

    strace $(python tests/system_calls.py) -o LOG COMMAND
    python tests/system_calls.py LOG FOLDER...

The first prints strace's options. The second prints what COMMAND sent to the internet and wrote
elsewhere than in FOLDERs, the folder for temporary files and the caches that the guide declares,
and exits with 1 if there is anything.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# strace passes over names with "?" that a processor does not have
TRACED = (
    "network,chdir,fchdir,openat,?openat2,?open,?creat,?mkdir,mkdirat,?mknod,mknodat,?rename,renameat,"
    "?renameat2,?link,linkat,?symlink,symlinkat,?unlink,unlinkat,?rmdir,?truncate"
)
OPTIONS = ("-f", "-yy", "-s", "300", "--seccomp-bpf", "-e", f"trace={TRACED}")
CALL = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)\) += (-?\d+)(.*)")
SENDS = {"connect", "sendto", "sendmsg", "sendmmsg"}
INTERNET = re.compile(r"sa_family=AF_INET6?\b|<(?:TCP|UDP)")
WRITES = {"creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2"}
WRITES |= {"link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "truncate"}
OPENS = {"open", "openat", "openat2"}
# Opened for writing, but nothing is kept; semaphores are files of their own folder on Linux.
NOWHERE = ("/dev/null", "/dev/tty", "/dev/shm/sem.", "/proc/")
GUIDE = Path(__file__).parent.parent / "docs" / "guide.md"
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')


def trace(command: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a command, which must succeed, and return the record of its system calls."""
    strace = ["strace", *OPTIONS, "-o", str(log), *command]
    done = subprocess.run(strace, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return log.read_text(errors="surrogateescape")


def calls(log: str) -> list[tuple[str, str, str, str]]:
    """Process, name, arguments and result of each call, in the order in which they returned."""
    begun: dict[str, str] = {}
    found = []
    for line in log.splitlines():
        process = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[process] = line.split("(", 1)[-1].removesuffix("<unfinished ...>")
        elif call := CALL.fullmatch(line):
            before = begun.pop(process, "") if " resumed>" in line else ""
            found.append((process, call[2], before + call[3], call[4] + call[5]))
    return found


def sent(log: str) -> list[str]:
    """Calls that reach for the internet, name servers included; a local socket does not count."""
    return [
        f"{name}({arguments})"
        for _, name, arguments, _ in calls(log)
        if name in SENDS and INTERNET.search(arguments)
    ]


def written(log: str, cwd: Path) -> set[Path]:
    """Files and folders that were made, opened for writing, renamed or removed, absolute."""
    places: dict[str, str] = {}
    found = set[Path]()
    for process, name, arguments, result in calls(log):
        if result.startswith("-"):
            continue
        paths = [
            Path(os.path.normpath(Path(places.get(process, cwd), folder or "", _plain(path))))
            for folder, path in PATH.findall(arguments)
        ]
        if name == "chdir":
            places[process] = str(paths[0])
        elif name in WRITES or (name in OPENS and re.search("O_(WRONLY|RDWR|CREAT)", arguments)):
            found |= set(paths)
    return {path for path in found if not str(path).startswith(NOWHERE)}


def outside(paths: Iterable[Path], folders: Iterable[Path]) -> list[Path]:
    """Paths that neither lie in one of the folders nor lead to one; bytecode does not count."""
    allowed = list(folders)
    return sorted(
        path
        for path in paths
        if "__pycache__" not in path.parts
        and not any(folder in (path, *path.parents) or path in folder.parents for folder in allowed)
    )


def _plain(text: str) -> str:
    """A path as strace quotes it: octal escapes are bytes."""
    raw = re.sub(r"\\([0-7]{1,3})", lambda m: chr(int(m[1], 8)), text)
    return os.fsdecode(raw.replace('\\"', '"').replace("\\\\", "\\").encode("latin-1", "replace"))


def declared(home: Path) -> list[Path]:
    """The cache folders that the guide says are written, in a user's home folder."""
    (section,) = re.findall(
        "## What stays on this machine\n(.*?)\n## ", GUIDE.read_text(), re.DOTALL
    )
    return [home / path for path in re.findall(r"^\| `~/([^`]+)` \|", section, re.MULTILINE)]


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(*OPTIONS)
        return 0
    log = Path(arguments[0]).read_text(errors="surrogateescape")
    folders = [Path(folder).resolve() for folder in (*arguments[1:], tempfile.gettempdir())]
    elsewhere = outside(written(log, Path.cwd()), [*folders, *declared(Path.home())])
    for call in sent(log):
        print("sent:", call)
    for path in elsewhere:
        print("written:", path)
    return 1 if sent(log) or elsewhere else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
