"""The plan of the house, kept by a test: a room may only use rooms on lower floors."""

import ast
from pathlib import Path

import pytest

import headstart

FLOORS = [
    {"errors", "display", "runtime", "atomic", "seals", "signals", "spec", "store"},
    {"data"},
    {"backbones"},
    {"features", "engines"},
    {"heads", "metrics", "predictions"},
    {"trust"},
    {"model"},
    {"training"},
    {"specs", "evaluation", "run_folder"},
    {"finetuning", "jobs", "comparing"},
    {"fitting", "recipes", "doubting", "insights", "explaining"},
    {"bundle", "phrases", "report"},
    {"phases"},
    {"runs"},
    {"seeds", "tracking"},
    {"__init__"},  # so nothing below the command line may import our own front door
    {"terminal"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
# Rooms of one floor may lean on these neighbours, so long as no circle comes of it.
BESIDE = {
    "runtime": {"errors", "signals"},
    "atomic": {"errors"},
    "spec": {"errors"},
    "store": {"errors", "atomic", "seals"},
    "features": {"engines"},
}
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
ROOT = Path(headstart.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def rooms_used(path: Path) -> set[str]:
    """The rooms of ours that a file imports, at the top or inside a function."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names += [node.module or ""]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {
        n.split(".")[1] if "." in n else "__init__" for n in names if n.split(".")[0] == "headstart"
    }


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_reaches_up(path: Path) -> None:
    mine = room_of(path)
    above = {r for r in rooms_used(path) - {mine} if HEIGHT[r] >= HEIGHT[mine]}
    assert not above - BESIDE.get(mine, set()), f"{mine} may not use {above}"


def test_a_planted_upward_import_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from headstart.cli import main\n")
    assert rooms_used(bad) == {"cli"}
