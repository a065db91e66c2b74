"""constraints.txt lists what `make test` installs, at the versions that are installed."""

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13")  # a line may be there for one of them


def pinned() -> dict[str, SpecifierSet]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): r.specifier for r in wanted}


def required(name: str, extra: str) -> list[str]:
    """What a distribution requires; ours by pyproject.toml, which an old install may not follow."""
    if name != "headstart":
        return distribution(name).requires or []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["optional-dependencies"][extra] if extra else project["dependencies"]


def reached(**environment: str) -> set[str]:
    """Every distribution that `pip install '.[dev]'` installs, here or where the markers say."""
    waiting, seen = [("headstart", ""), ("headstart", "dev")], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        waiting += parts(name, extra, environment)
    return {name for name, _ in seen} - {"headstart"}


def parts(name: str, extra: str, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    try:
        wanted = [Requirement(text) for text in required(name, extra)]
    except PackageNotFoundError:  # where another Python or system would want it
        return
    for part in wanted:
        if part.marker is None or part.marker.evaluate({**environment, "extra": extra}):
            yield from ((canonicalize_name(part.name), e) for e in ("", *part.extras))


def test_all_that_is_installed_is_listed_at_its_version() -> None:
    listed = pinned()
    assert sorted(reached() - listed.keys()) == []
    versions = {name: distribution(name).version for name in reached()}
    assert {n: v for n, v in versions.items() if not listed[n].contains(v, prereleases=True)} == {}


def test_each_line_of_the_constraints_names_one_version() -> None:
    assert all([s.operator for s in wanted] == ["=="] for wanted in pinned().values())
    assert not any("*" in str(wanted) for wanted in pinned().values())


def test_nothing_is_listed_that_is_not_installed() -> None:
    linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    if "nvidia-cublas" not in reached(**linux):
        pytest.skip("PyTorch's build here is not the one for CUDA that the lines are for")
    wanted = [reached(python_version=p, python_full_version=f"{p}.0", **linux) for p in PYTHONS]
    assert sorted(pinned().keys() - set.union(*wanted)) == []
