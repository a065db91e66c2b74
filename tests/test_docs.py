"""Docs run: examples in docstrings, the README's Python, the links, the list of benchmarks."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.cli.aliases import command_of
from headstart.cli.main import COMMANDS, Command, main
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.bundle import load_bundle
from headstart.runs.settings import known_settings
from headstart.specs import Job

ROOT = Path(__file__).parent.parent
MODULES = [m.name for m in pkgutil.walk_packages(hs.__path__, "headstart.")]
SHARED = {
    "box_missing",
    "box_steps",
    "made_boxes",
    "cells",
    "figures",
    "harness",
    "labelled_sets",
    "serving_load",
    "tables",
}  # by the benches
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SHELL = re.compile(r"```(?:sh|bash|console)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_on_the_pages_are_ones_that_there_are(page: Path) -> None:
    lines = [
        line.removeprefix("$ ")
        for text in SHELL.findall(page.read_text())
        for line in text.splitlines()
    ]
    for line in lines:
        words = shlex.split(line, comments=True) if line.startswith("headstart ") else []
        if words and not {"…", "|", "--config"} & set(words):
            name, given, _ = command_of(words[1:], COMMANDS)
            Command(name).parser(given).parse_args(given)


def run_in(
    folder: Path,
    page: Path,
    shapes: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    together: bool = False,
) -> None:
    """Run the blocks of Python on a page, with a folder `photos` and a tiny backbone.

    together: later blocks use the names of earlier ones.
    """
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(folder / "store"))
    (folder / "photos").symlink_to(shapes)
    for module in ("api", "runs.stages"):
        for name in ("load_backbone", "load_for_features"):
            monkeypatch.setattr(f"headstart.{module}.{name}", tiny_in_place_of_default)
    names = dict[str, Any]()
    for code in blocks:
        names = names if together else {}
        exec(code.replace("packaged:efficientnet_lite0", "tiny:32"), names)


def test_the_readmes_python_runs(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(tmp_path, ROOT / "README.md", shapes, monkeypatch)
    assert load_bundle(tmp_path / "bundle").model.classes == ("bright", "dark")


def test_the_guides_python_runs(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(tmp_path, ROOT / "docs" / "guide.md", shapes, monkeypatch)
    assert load_bundle(tmp_path / "bundle").model.backbone.card.name == "ResNet"


def test_the_guides_listener_hears_of_a_refit(
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    guide, page = (ROOT / "docs" / "guide.md").read_text(), tmp_path / "page.md"
    blocks = re.findall(r"```python\n.*?```", guide, re.DOTALL)
    page.write_text(next(block for block in blocks if "GoodEnough" in block))
    for folder in ("first", "exchanged"):  # one of the two is wrong before training
        (tmp_path / folder).mkdir()
        run_in(tmp_path / folder, page, shapes, monkeypatch)
        for old, new in (("dark", "old"), ("bright", "dark"), ("old", "bright")):
            (shapes / old).rename(shapes / new)
    assert "refit-head 1" in capsys.readouterr().out


def test_the_python_about_growing_runs(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(tmp_path, ROOT / "docs" / "scale.md", shapes, monkeypatch)


def test_the_page_about_python_runs(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "0.png").write_bytes((shapes / "dark" / "00.png").read_bytes())
    (tmp_path / "photo.jpg").write_bytes((shapes / "dark" / "00.png").read_bytes())
    run_in(tmp_path, ROOT / "docs" / "python.md", shapes, monkeypatch, together=True)
    assert (tmp_path / "runs" / "head" / "report.html").exists()
    assert load_bundle(tmp_path / "bundle").model.classes == ("bright", "dark")


def test_the_page_about_scikit_learn_runs(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = lambda name, size=0: tiny_in_place_of_default(name)  # noqa: E731
    monkeypatch.setattr("headstart.sklearn.load_for_features", tiny)
    run_in(tmp_path, ROOT / "docs" / "sklearn.md", shapes, monkeypatch)


def test_each_call_for_people_from_other_libraries_runs(
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "new").mkdir()
    for name in ("new/0.png", "photo.jpg"):
        (tmp_path / name).write_bytes((shapes / "dark" / "00.png").read_bytes())
    page = ROOT / "docs" / "coming-from.md"
    run_in(tmp_path, page, shapes, monkeypatch)  # it has no blocks: this makes the folder
    ours = re.findall(r"^\| `.* \| `([^|]*)` \|$", page.read_text(), re.MULTILINE)
    assert len(ours) > 25
    names: dict[str, Any] = {"hs": hs}
    for call in ours:
        if call.startswith("headstart "):
            assert main(shlex.split(call)[1:]) == 0, capsys.readouterr().err
        else:
            exec(call.replace("packaged:efficientnet_lite0", "tiny:32"), names)


def tiny_in_place_of_default(name: str, *_: Any, weights: str = "pretrained") -> hs.Backbone:
    return hs.load_backbone("tiny:32" if name == DEFAULT_BACKBONE else name, weights=weights)


def test_the_page_about_python_names_everything_public() -> None:
    table = (ROOT / "docs" / "python.md").read_text().split("## The names")[1].split("## Data")[0]
    values = re.findall(r"`(?:hs\.)?([A-Z]\w+)`", table)
    named = {*re.findall(r"`(?:hs\.)(\w+)", table), *values}
    assert named == set(dir(hs))
    assert len(dir(hs)) <= 50


@pytest.mark.parametrize("name", dir(hs))
def test_each_public_name_has_a_docstring_with_an_example(name: str) -> None:
    assert ">>>" in getattr(hs, name).__doc__


def test_the_page_about_python_lists_every_setting() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    table = page.split("## The settings")[1].split("Labels become")[0].split("|---|---|")[1]
    assert set(re.findall(r"`(\w+)`", table)) == known_settings(Job()) | {"augment", "head"}


def test_the_python_that_looks_inside_runs(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of ImageNet's network, a tiny one."""
    monkeypatch.chdir(tmp_path)
    job = Job(
        str(shapes), backbone="tiny:32", strategy="extract", store=hs.Store(tmp_path / "store")
    )
    data = hs.read(shapes)
    hs.train(data, tmp_path / "runs" / "demo", job)
    (tmp_path / "photo.jpg").symlink_to(data.sources[0])
    text = (ROOT / "docs" / "inside.md").read_text()
    blocks = [
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import" in code
    ]
    assert len(blocks) == 3
    for code in blocks:
        exec(code.replace("packaged:efficientnet_lite0", "runs/demo/model"), {})
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "why.png",
        "fooled.png",
        "fooled-triptych.png",
    }


def test_every_benchmark_is_listed_and_run() -> None:
    listed = set(re.findall(r"`bench/(\w+)\.py\b", (ROOT / "CONTRIBUTING.md").read_text()))
    run = re.search(r"for b in ((?:\w|\s|\\)+?); do", (ROOT / "Makefile").read_text())
    assert run
    named = {"boxes", "same_results"}  # with data, or a commit
    assert set(run[1].replace("\\", "").split()) == listed - named
    assert listed == {p.stem for p in (ROOT / "bench").glob("*.py")} - SHARED
