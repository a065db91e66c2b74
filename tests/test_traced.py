"""Nothing leaves the machine: the system calls of every command, as strace sees them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from system_calls import calls, declared, outside, sent, trace, written

import headstart as hs
from headstart.specs import Job

RECORDED = r"""
7 chdir("/proj") = 0
7 openat(AT_FDCWD</proj>, "notes/a.txt", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3</proj/notes/a.txt>
7 openat(AT_FDCWD</proj>, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3</etc/passwd>
7 openat(AT_FDCWD</proj>, "/root/.x", O_RDWR|O_CREAT, 0600) = -1 EACCES (Permission denied)
7 openat(5</home/u>, ".id", O_RDWR|O_CREAT, 0600 <unfinished ...>
8 mkdir("/home/u/caf\303\251", 0777)    = 0
7 <... openat resumed>)                 = 6</home/u/.id>
8 rename("b\"c", "../c") = 0
8 unlinkat(AT_FDCWD</proj>, "/home/u/old", 0) = 0
8 openat(AT_FDCWD</proj>, "/dev/null", O_RDWR) = 4</dev/null<char 1:3>>
9 mkdir("/lib/__pycache__", 0777) = 0
7 connect(3<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/run/nscd"}, 110) = -1 ENOENT (…)
7 sendto(3<NETLINK:[2]>, [{nlmsg_len=20}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 20
7 socket(AF_INET, SOCK_DGRAM, IPPROTO_IP) = 4<UDP:[3]>
7 connect(4<UDP:[3]>, {sa_family=AF_INET, sin_port=htons(53)}, 16) = 0
8 connect(5<TCPv6:[4]>, {sa_family=AF_INET6, sin6_port=htons(443)}, 28 <unfinished ...>
7 sendto(4<UDP:[1.2.3.5:9->1.2.3.4:53]>, "\0\6mobile", 8, MSG_NOSIGNAL, NULL, 0) = 8
8 <... connect resumed>) = -1 ENETUNREACH (Network is unreachable)
"""


def test_what_was_written_is_read_from_the_calls() -> None:
    found = written(RECORDED, Path("/began"))
    names = {"/proj/notes/a.txt", "/home/u/.id", "/home/u/café", "/home/u/old", "/lib/__pycache__"}
    assert found == {Path(name) for name in (*names, '/began/b"c', "/c")}
    home = [Path("/proj"), Path("/home/u"), Path("/began")]
    assert outside(found, home) == [Path("/c")]
    assert outside([Path("/home/user")], home) == [Path("/home/user")]


def test_what_was_sent_is_read_from_the_calls() -> None:
    assert [call.split("<")[0] for call in sent(RECORDED)] == ["connect(4", "sendto(4", "connect(5"]
    assert len(calls(RECORDED)) == len(RECORDED.strip().splitlines()) - 2  # of those in two lines


def test_the_guide_declares_what_is_kept_in_the_home_folder() -> None:
    assert Path("/u/.cache/headstart") in declared(Path("/u"))
    assert not [p for p in declared(Path("/u")) if p.name in (".cache", ".config", "Microsoft", "")]


@dataclass(frozen=True)
class Traced:
    """Runs commands under strace in `top`, with a home folder that nothing was in before."""

    top: Path

    def __call__(self, *commands: Sequence[str], then: str = "", **environment: str) -> str:
        """The record of one process that runs commands, each with success, and then more code."""
        code = (
            f"from headstart.cli.main import main\nfor c in {commands!r}: assert not main(c), c\n"
        )
        plain = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LANG")}
        plain |= {"OMP_NUM_THREADS": "1", "MLFLOW_ALLOW_FILE_STORE": "true"}
        for name, folder in PLACES.items():
            plain[name] = str(self.top / folder)
        python = [sys.executable, "-c", code + then]
        return trace(python, self.top / "log", self.top, plain | environment)

    def elsewhere(self, log: str) -> list[Path]:
        """What was written where nobody asked for it."""
        folders = [self.top / name for name in ("run", "store", "tmp", "ml")]
        return outside(written(log, self.top), [*folders, *declared(self.top / "home")])


PLACES = {"HOME": "home", "TMPDIR": "tmp", "HEADSTART_STORE": "store", "MLFLOW_TRACKING_URI": "ml"}


@pytest.fixture
def traced(shapes: Path) -> Traced:
    probe = ["strace", "-f", "-o", os.devnull, "true"]
    if shutil.which("strace") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("strace is not installed, or this container forbids it (CAP_SYS_PTRACE)")
    for folder in ("home", "tmp"):
        (shapes.parent / folder).mkdir()
    return Traced(shapes.parent)


@pytest.mark.slow
def test_no_command_sends_anything_or_writes_where_nobody_asked(traced: Traced) -> None:
    """With the packaged backbone, a Keras one, and every command that a run goes through."""
    picture = "shapes/dark/00.png"
    train = ["train", "shapes", "--out", "run", "--epochs", "1", "--size", "64"]
    few = ["--rows", "2", "--steps", "1", "--epsilons", "2/255", "--corruptions", "fog"]
    others = [
        ["predict", "run", picture],
        ["classify", picture],
        ["evaluate", "run", "shapes", "--part", "test"],
        ["compare", "run", "run"],
        ["explain", "run", picture, "--out", "run/explained", "--method", "gradcam"],
        ["attack", "run", picture, "--out", "run/attacked", "--steps", "2"],
        ["ideal", "run", "--class", "dark", "--out", "run/ideal.png", "--steps", "2"],
        ["robustness", "run", *few],
        ["views", picture, "--out", "run/views.png", "--flip", "both"],
        ["report", "run"],
        ["track", "run", "tensorboard"],
        ["track", "run", "mlflow"],
        ["check", "shapes", "--backbone", "keras:MobileNetV2@32", "--weights", "random"],
    ]
    for commands in ([train], others):
        log = traced(*commands)
        assert sent(log) == []
        assert traced.elsewhere(log) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("switch", "value", "kept"),
    [
        ("ORT_DISABLE_TELEMETRY", "0", ".cache/Microsoft"),
        ("MLFLOW_DISABLE_TELEMETRY", "false", ".config/mlflow"),
    ],
)
def test_the_control_telemetry_that_is_on_is_caught(
    traced: Traced, shapes: Path, switch: str, value: str, kept: str
) -> None:
    """Its first attempt may come some seconds after the work is done."""
    job = Job(
        str(shapes), backbone="tiny:8", strategy="extract", store=hs.Store(traced.top / "store")
    )
    hs.train(hs.read(shapes), traced.top / "run", job)
    wait = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from system_calls import sent\n"
        "end = time.monotonic() + 60\n"
        "while not sent(open('log', errors='replace').read()):\n"
        "    time.sleep(0.5)\n"
        "    assert time.monotonic() < end, 'nothing was sent'\n"
    )
    commands = [["predict", "run", "shapes/dark/00.png"], ["track", "run", "mlflow"]]
    log = traced(*commands, then=wait, **{switch: value})
    assert sent(log) != []
    assert any(traced.top / "home" / kept in p.parents for p in traced.elsewhere(log))
