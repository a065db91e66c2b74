"""A person at a terminal: types commands in a folder, and reads what comes back."""

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.cli.main import main

NETWORK = ("--backbone", "tiny:8")  # typed for the person: the usual network takes minutes here
TRAINS = ("train", "check")


class Person:
    """Types commands, each in a process that is new to everything but the folder.

    screen: all that the last command printed, results and messages.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HEADSTART_STORE", str(folder / "store"))
        self.folder, self._printed, self.screen = folder, capsys, ""

    def types(self, line: str, code: int = 0) -> str:
        """Run a command, which must end with this exit code; return what it printed as results."""
        program, *words = shlex.split(line)
        assert program == "headstart"
        if words[:1] and words[0] in TRAINS and not {"--config", "--backbone"} & set(words):
            words += NETWORK
        self._printed.readouterr()
        ended = main(words)
        out, err = self._printed.readouterr()
        self.screen = out + err
        assert ended == code, self.screen
        return out

    def is_told(self, line: str, *answer: str, code: int = 2) -> None:
        """Run a command that can't work; it must end in one message with these words."""
        assert self.types(line, code) == ""
        *_, last = self.screen.splitlines()
        assert last.startswith("error")
        assert all(word in last for word in answer), last


def noisy(rng: np.random.Generator, level: float, side: int = 40) -> np.ndarray[Any, Any]:
    """A grey picture with grain, (side, side, 3) uint8."""
    return rng.normal(level, 25, (side, side, 3)).clip(0, 255).astype(np.uint8)


def saved(pixels: np.ndarray[Any, Any], path: str) -> None:
    """Write a picture in the working folder; its folder is made."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.fromarray(pixels).save(path)
