"""Run commands one after the other where the libraries of training can't be imported.

    python tests/without_torch.py [--but PACKAGE…] < COMMANDS

COMMANDS: a JSON list of commands without their first word. Prints a JSON list of exit code, stdout
and stderr of each, and fails if a blocked library was imported all the same.
"""

import contextlib
import importlib.abc
import io
import json
import sys
from collections.abc import Sequence
from types import ModuleType

BLOCKED = {
    *("torch", "torchvision", "timm", "onnx", "sklearn", "rich", "captum", "pandas", "pyarrow"),
    *("tokenizers", "sentencepiece", "py3langid", "transformers", "keras", "peft", "umap"),
}


class Blocker(importlib.abc.MetaPathFinder):
    """Finds none of some packages, as if they were not installed."""

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(commands: list[list[str]], blocked: set[str]) -> list[tuple[int, str, str]]:
    sys.meta_path.insert(0, Blocker(blocked))
    from headstart.cli.main import main

    found = []
    for words in commands:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        found.append((code, out.getvalue(), err.getvalue()))
    assert not blocked & set(sys.modules), blocked & set(sys.modules)
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin), BLOCKED - set(sys.argv[2:]))))
