"""`headstart serve` as a process: signals, without PyTorch, without a connection to elsewhere."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import write_shapes
from system_calls import OPTIONS, calls
from test_serving import replace_link, saved

SERVE = (
    "import sys; sys.path.insert(0, {tests!r})\n"
    "from without_torch import BLOCKED, Blocker\n"
    "sys.meta_path.insert(0, Blocker(BLOCKED))\n"
    "from headstart.cli.main import main\n"
    "code = main(sys.argv[1:])\n"
    "assert not BLOCKED & set(sys.modules)\n"
    "sys.exit(code)\n"
)
TESTS = Path(__file__).parent


@dataclass
class Started:
    """A server process. lines: what it has printed so far."""

    process: "subprocess.Popen[str]"
    lines: list[str]
    port: int = 0

    def until(self, pattern: str) -> "re.Match[str]":
        """Read lines up to one with a pattern."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError("".join(self.lines))

    def predict(self, body: bytes) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", "/predict", body)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def started(*words: str, before: Sequence[str] = ()) -> Iterator[Started]:
    """Run `headstart serve` where the training stack can't be imported."""
    code = SERVE.format(tests=str(TESTS))
    command = [*before, sys.executable, "-c", code, "serve", *words, "--port", "0"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        found = Started(process, [])
        try:
            found.port = int(found.until(r"ready +http://127\.0\.0\.1:(\d+)")[1])
            yield found
        finally:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("process")
    data = write_shapes(found / "shapes")
    saved(data, found / "one")
    saved(data, found / "two", head="ridge")
    return found


def picture(folder: Path) -> bytes:
    return (folder / "shapes" / "dark" / "00.png").read_bytes()


def test_signals_take_a_new_version_and_stop_it_without_the_training_stack(folder: Path) -> None:
    (folder / "now").symlink_to(folder / "one")
    with started(str(folder / "now")) as server:
        first = server.predict(picture(folder))
        replace_link(folder / "now", folder / "two")
        server.process.send_signal(signal.SIGHUP)
        server.until("reload")
        second = server.predict(picture(folder))
        assert first["version"] != second["version"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_ctrl_c_stops_it(folder: Path) -> None:
    with started(str(folder / "one")) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


@pytest.mark.slow
def test_a_server_connects_to_nothing_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    probe = ["strace", "-f", "-o", os.devnull, "true"]
    if shutil.which("strace") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("strace is not installed, or this container forbids it (CAP_SYS_PTRACE)")
    log = tmp_path / "log"
    with started(str(folder / "one"), before=["strace", *OPTIONS, "-o", str(log)]) as server:
        assert server.predict(picture(folder))["predictions"]
        assert server.predict(b"no picture")["error"]
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGTERM)
        assert server.process.wait(30) == 0
    found = calls(log.read_text(errors="surrogateescape"))
    assert len(found) > 100
    connects = [call for call in found if call[1] == "connect" and "AF_INET" in call[2]]
    assert connects == []


@pytest.mark.slow
def test_it_serves_where_there_is_no_network(folder: Path) -> None:
    probe = ["unshare", "-rn", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("unshare is not installed, or this container forbids network namespaces")
    inside = (
        "ip link set lo up 2>/dev/null; "
        f"exec {sys.executable} -m pytest -q -n0 -p no:cacheprovider {TESTS}/test_serving.py"
    )
    done = subprocess.run(["unshare", "-rn", "sh", "-c", inside], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
