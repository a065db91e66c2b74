"""The container's files name what there is; no container can be built here."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_shapes
from served import running
from test_serving import saved

from headstart.cli.main import Command
from headstart.serving.measures import Measures

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "container"


def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile and their arguments."""
    text = re.sub(r"\\\n", " ", (FOLDER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def step(name: str) -> str:
    """The last instruction of a name."""
    return [words for own, words in steps() if own == name][-1]


def kept(path: str) -> bool:
    """Whether .dockerignore lets a path into the build."""
    lines = (ROOT / ".dockerignore").read_text().split()
    return any(path.rstrip("/") == line.removeprefix("!") for line in lines if line[0] == "!")


def test_the_files_that_are_copied_exist_and_are_not_ignored() -> None:
    copied = [words.split() for name, words in steps() if name == "COPY"]
    files = [file for words in copied if not words[0].startswith("--from") for file in words[:-1]]
    assert len(files) >= 5
    for file in files:
        assert (ROOT / file).exists(), file
        assert kept(file), file


def test_the_command_is_one_that_the_program_takes() -> None:
    entry, usual = json.loads(step("ENTRYPOINT")), json.loads(step("CMD"))
    assert entry[:2] == ["headstart", "serve"]
    args = Command("serve").parser().parse_args([*entry[2:], *usual])
    assert (args.host, args.port) == ("0.0.0.0", 8000)
    assert args.token_file
    assert step("EXPOSE") == "8000"


def test_it_runs_without_rights_and_stops_as_the_server_does() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", step("USER"))
    assert step("STOPSIGNAL") == "SIGTERM"
    order = [name for name, _ in steps()]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_what_pip_installs_are_extras_of_ours() -> None:
    extra = dict(words.split("=") for name, words in steps() if name == "ARG")["EXTRAS"]
    text = (ROOT / "pyproject.toml").read_text()
    assert f"\n{extra} = [" in text
    assert "constraints.txt" in step("COPY") or any("-c constraints.txt" in w for _, w in steps())


def test_the_health_check_is_a_program_that_tells_ready_from_not(tmp_path: Path) -> None:
    program = step("HEALTHCHECK").partition("CMD ")[2]
    name = Path(json.loads(program)[1]).name
    assert any(name in words for own, words in steps() if own == "COPY")
    with running(saved(write_shapes(tmp_path / "data"), tmp_path / "bundle")) as server:
        assert health(name, server.port) == 0
    assert health(name, server.port) == 1


def health(name: str, port: int) -> int:
    environment = {"HEADSTART_PORT": str(port), "PATH": ""}
    command = [sys.executable, "-S", str(FOLDER / name)]
    return subprocess.run(command, env=environment, timeout=20).returncode


def compose() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def test_the_example_names_files_and_flags_that_there_are() -> None:
    serve = compose()["services"]["serve"]
    assert (FOLDER / serve["build"]["context"]).resolve() == ROOT
    assert (ROOT / serve["build"]["dockerfile"]).is_file()
    entry = json.loads(step("ENTRYPOINT"))
    args = Command("serve").parser().parse_args([*entry[2:], *serve["command"]])
    assert args.allow_host == ["serve"]
    assert serve["read_only"] is True
    assert serve["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in serve["ports"])
    for volume in mounted():
        assert (FOLDER / volume).is_file(), volume


def mounted() -> Iterator[str]:
    for volume in compose()["services"]["prometheus"]["volumes"]:
        if volume.startswith("./"):
            yield volume.partition(":")[0]


def test_prometheus_asks_the_server_for_metrics_that_it_has() -> None:
    (job,) = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["serve:8000"]}]
    names = {metric.name for metric in Measures().registry.collect()}
    rules = (FOLDER / "drift.yaml").read_text()
    used = set(re.findall(r"headstart_\w+?(?=_total|_sum|_count)", rules))
    assert len(used) >= 4
    assert used <= names


@pytest.mark.parametrize("name", ["compose.yaml", "prometheus.yaml", "drift.yaml"])
def test_no_secret_lies_beside_the_example(name: str) -> None:
    assert not (FOLDER / "secrets").exists()
    assert "Bearer" not in (FOLDER / name).read_text()
