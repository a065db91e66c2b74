"""What training and extraction work with, as one value."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headstart.base.listener import Listener
from headstart.base.runtime import ON_CPU, Runtime
from headstart.base.store import USUAL, Store


@dataclass(frozen=True)
class Checkpointing:
    """When and where training writes checkpoints, and who may ask it to stop.

    path: None for no checkpoints. job: names everything that decides the result; a checkpoint of
    another job is refused. every_s: seconds between two, 0 for one a step. stop: asked after every
    step; when it returns True, a checkpoint is written and KeyboardInterrupt raised.
    """

    path: Path | None = None
    job: str = ""
    every_s: float = 30.0
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class RunContext:
    """What a run works with and whom it tells. Nothing in it changes a result, except that the
    listener may stop training.

    store: where features are kept; None keeps none.
    """

    store: Store | None = USUAL
    runtime: Runtime = Runtime()
    listener: Listener = Listener()
    checkpoints: Checkpointing = Checkpointing()


IN_MEMORY = RunContext(store=None, runtime=ON_CPU)
