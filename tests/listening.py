"""Listeners for tests."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import headstart as hs
from headstart.base.context import IN_MEMORY, Checkpointing, RunContext
from headstart.models.wording import epoch_message


class Calls(hs.Listener):
    """A listener made of functions: what is not given is not heard."""

    def __init__(self, **heard: Callable[..., Any]) -> None:
        for name, function in heard.items():
            assert hasattr(hs.Listener, name)
            setattr(self, name, function)


def progress_of(stage: str, act: Callable[[int, int], object]) -> hs.Listener:
    """A listener to the progress of one stage."""

    def progress(name: str, done: int, total: int) -> None:
        if name == stage:
            act(done, total)

    return Calls(progress=progress)


class Lines(hs.Listener):
    """Keeps what a terminal would show, as pairs of a stage and a line."""

    def __init__(self) -> None:
        self.lines = list[tuple[str, str]]()

    def stage(self, name: str, message: str) -> None:
        self.lines.append((name, message))

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool | None:
        self.lines.append((phase, epoch_message(phase, number, figures)))
        return None

    def of(self, stage: str) -> list[str]:
        return [line for name, line in self.lines if name == stage]


def kept(path: Path, job: str = "job", **more: Any) -> RunContext:
    """What keeps checkpoints of training, and otherwise works in memory."""
    return replace(IN_MEMORY, checkpoints=Checkpointing(path, job, **more))


def told(**heard: Callable[..., Any]) -> RunContext:
    """What tells functions how training in memory goes."""
    return replace(IN_MEMORY, listener=Calls(**heard))


class Stopper:
    """Asks for the end after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0
