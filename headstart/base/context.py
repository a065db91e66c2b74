"""What training and extraction work with, as one value."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.base.listener import Listener
from headstart.base.runtime import ON_CPU, Runtime, held_interrupts
from headstart.base.store import USUAL, Store
from headstart.base.values import fingerprint


@dataclass(frozen=True)
class Checkpointing:
    """When and where training writes checkpoints, and who may ask it to stop.

    path: the file, or of several phases the folder of their files; None for no checkpoints. job:
    names everything that decides the result; a checkpoint of another job is refused. every_s:
    seconds between two, 0 for one a step. stop: asked after every step; when it returns True, a
    checkpoint is written and KeyboardInterrupt raised. By default Ctrl-C asks, if there is a path.
    """

    path: Path | None = None
    job: str = ""
    every_s: float = 30.0
    stop: Callable[[], bool] | None = None

    def of(self, phase: str, *decisive: object) -> "Checkpointing":
        """Those of one phase, named by what else decides how it ends."""
        assert self.path is not None
        path = self.path / f"checkpoint-{phase}.safetensors"
        return replace(self, path=path, job=fingerprint(self.job, phase, *decisive))

    def stopping(self) -> AbstractContextManager[Callable[[], bool]]:
        """Gives what is to be asked after every step."""
        if self.stop is None and self.path is not None:
            return held_interrupts()
        return nullcontext(self.stop or (lambda: False))


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
