"""How the code is built: names that occur once, short functions, few parameters, no copies."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import headstart

ROOT = Path(headstart.__file__).parent
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.rglob("*.py"))
}
PACKAGES = {path.parent.name for path in ROOT.rglob("__init__.py") if path.parent != ROOT}
# Class names that still occur twice. None is added; one that is unique by now is taken out.
STILL_TWICE: set[str] = set()
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def classes(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """The files that define a public class, by its name."""
    found = defaultdict[str, list[str]](list)
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(file)
    return found


def length(function: Function) -> int:
    """Lines from `def` to the end, decorators and docstring apart."""
    doc = ast.get_docstring(function, clean=False)
    own = function.body[0] if doc is not None else None
    comment = own.end_lineno - own.lineno + 1 if own is not None and own.end_lineno else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - comment


def parameters(function: Function) -> int:
    """How many a caller may give; `self` and `cls` are not counted."""
    a = function.args
    names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"])) + bool(a.vararg) + bool(a.kwarg)


def body(function: Function) -> str:
    """The statements as text, without the docstring; "" if there are fewer than two."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return "\n".join(map(ast.dump, statements)) if len(statements) >= 2 else ""


def copies(trees: dict[str, ast.Module]) -> list[list[str]]:
    """Groups of functions with the same body."""
    found = defaultdict[str, list[str]](list)
    for file, tree in trees.items():
        for function in functions(tree):
            found[body(function)].append(f"{file}:{function.lineno} {function.name}")
    found.pop("", None)
    return [group for group in found.values() if len(group) > 1]


EVERY = [
    (f"{file}:{function.lineno} {function.name}", function)
    for file, tree in TREES.items()
    for function in functions(tree)
]


def test_a_public_class_name_occurs_once() -> None:
    twice = {name: files for name, files in classes(TREES).items() if len(files) > 1}
    assert twice.keys() <= STILL_TWICE, twice


def test_functions_are_short() -> None:
    lengths = {name: length(function) for name, function in EVERY}
    longest = sorted(lengths, key=lambda name: -lengths[name])[:20]
    assert np.percentile(list(lengths.values()), 95) <= 25, longest


def test_functions_have_few_parameters() -> None:
    counts = {name: parameters(function) for name, function in EVERY}
    most = [f"{name} {n}" for name, n in counts.items() if n > 6]
    assert np.percentile(list(counts.values()), 99) <= 6, most


def test_no_two_functions_have_the_same_body() -> None:
    assert copies(TREES) == []


def test_no_public_name_is_that_of_a_sub_package() -> None:
    """Importing the sub-package would replace it."""
    assert not PACKAGES & set(headstart.__all__)


TWICE = "class Rows: ...\n\ndef f(x):\n    '''Doc.'''\n    y = x\n    return y\n"


def test_control_copies_and_names_are_seen() -> None:
    trees = {"a.py": ast.parse(TWICE), "b.py": ast.parse(TWICE.replace("Doc", "Other"))}
    assert classes(trees) == {"Rows": ["a.py", "b.py"]}
    assert copies(trees) == [["a.py:3 f", "b.py:3 f"]]


@pytest.mark.parametrize(
    ("code", "lines", "given"),
    [
        ("def f(a, b=1, *c, d, **e):\n    '''Two\n    lines.'''\n    return a\n", 2, 5),
        ("@g\ndef f():\n    return 1\n", 2, 0),
        ("class A:\n    def f(self, a): ...\n", 1, 1),
    ],
)
def test_control_lines_and_parameters_are_counted(code: str, lines: int, given: int) -> None:
    (function,) = functions(ast.parse(code))
    assert (length(function), parameters(function)) == (lines, given)
