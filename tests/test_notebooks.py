"""The notebooks run from the first cell to the last, on a tiny network."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from test_docs import tiny_in_place_of_default

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(notebook: Path) -> list[str]:
    """The code of a notebook of format 4, cell by cell."""
    content = json.loads(notebook.read_text())
    assert (content["nbformat"], content["metadata"]["kernelspec"]["name"]) == (4, "python3")
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == "code"]


def shown(code: str, names: dict[str, Any]) -> str:
    """Run a cell; return what a notebook shows of its last expression, as HTML if it has any."""
    body = ast.parse(code).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if not isinstance(last, ast.Expr):
        return ""
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(
    notebook: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    for module in ("api", "runs.stages"):
        for name in ("load_backbone", "load_for_features"):
            monkeypatch.setattr(f"headstart.{module}.{name}", tiny_in_place_of_default)
    names: dict[str, Any] = {"__name__": "__main__"}
    assert all("object at 0x" not in shown(code, names) for code in cells(notebook))


def test_the_notebooks_are_those_that_the_readme_names_and_hold_no_outputs() -> None:
    readme = (FOLDER.parent.parent / "README.md").read_text()
    assert len(NOTEBOOKS) == 3
    assert all(f"docs/notebooks/{notebook.name}" in readme for notebook in NOTEBOOKS)
    for notebook in NOTEBOOKS:
        content = json.loads(notebook.read_text())
        assert not any(cell.get("outputs") for cell in content["cells"])
    assert len(cells(FOLDER / "tutorial.ipynb")) == 10
