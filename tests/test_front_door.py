import ast
import subprocess
import sys
from pathlib import Path

import pytest

import headstart


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_front_door_itself_loads_nothing() -> None:
    ours = {name for name in loaded_after("import headstart") if name.startswith("headstart")}
    assert ours == {"headstart"}
    assert not {"torch", "numpy", "PIL"} & loaded_after("import headstart")


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "PIL", "rich", "onnxruntime"}
    assert not heavy & loaded_after("import headstart.cli.main as c; c.main(['--help'])")


def test_help_on_a_command_does_not_load_the_training_stack() -> None:
    code = "import headstart.cli.main as c\ntry: c.main(['train', '-h'])\nexcept SystemExit: pass\n"
    assert not {"torch", "timm", "sklearn"} & loaded_after(f"exec({code!r})")


@pytest.mark.parametrize("command", ["predict", "evaluate", "compare", "export", "track", "verify"])
def test_help_on_what_needs_no_defaults_of_training_loads_no_numpy(command: str) -> None:
    code = f"import headstart.cli.main as c\ntry: c.main([{command!r}, '-h'])\n"
    code += "except SystemExit: pass\n"
    assert not {"numpy", "torch"} & loaded_after(f"exec({code!r})")


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(headstart.__file__).read_text())
    seen = {a.asname for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen - {None} == set(headstart.__all__)
    assert all(getattr(headstart, name) is not None for name in headstart.__all__)


def test_no_public_name_is_also_a_file() -> None:
    """Or else importing the file would put a module where the function was."""
    files = {p.stem for p in Path(headstart.__file__).parent.iterdir()}
    assert not files & (set(headstart.__all__) - set(headstart._MODULES))


def test_what_needs_the_training_stack_says_so_where_it_is_not_installed() -> None:
    code = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': raise ModuleNotFoundError('no torch', name=name)\n"
        "sys.meta_path.insert(0, No())\n"
        "import headstart.cli.main as c\n"
        "sys.exit(c.main(['ideal', '--backbone', 'packaged:efficientnet_lite0', '--class', 'cat']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs the package 'torch'" in done.stderr
    assert "headstart[train]" in done.stderr
    assert "Traceback" not in done.stderr


def test_texts_are_read_by_a_program_that_used_nothing_else_before(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,a\ntwo,b\n")
    code = f"import headstart as hs; assert hs.read({str(tmp_path / 'a.csv')!r}).noun == 'texts'"
    loaded_after(code)
