"""The environment of training and extraction (store, runtime, listener, checkpoints)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from headstart.base.deadline import Deadline
from headstart.base.engine_choice import EngineChoices
from headstart.base.listener import Listener
from headstart.base.ranks import ALONE, Ranks
from headstart.base.runtime import ON_CPU, Runtime, held_interrupts
from headstart.base.store import USUAL, Store
from headstart.base.values import fingerprint

Precision = Literal["float32", "float16"]  # of stored activations


@dataclass(frozen=True)
class Checkpointing:
    """Where and when training writes checkpoints, and when it stops.

    path: the checkpoint file, or the folder for several phases; None for no checkpoints.
    prefix: begins the phases' names in file names, as "fold-1-", where a phase runs several times.
    job: a fingerprint of everything that decides the result; another job's checkpoint is refused.
    every_s: seconds between two checkpoints, 0 for one per step.
    stop: called after every step; if True, training writes a checkpoint and raises
        KeyboardInterrupt. None: Ctrl-C stops it this way, if there is a path.
    """

    path: Path | None = None
    job: str = ""
    every_s: float = 30.0
    stop: Callable[[], bool] | None = None
    prefix: str = ""

    def of(self, phase: str, *decisive: object) -> "Checkpointing":
        """Return the checkpointing of one phase, its job fingerprinted with `decisive` too."""
        assert self.path is not None
        path = self.path / f"checkpoint-{self.prefix}{phase}.safetensors"
        return replace(self, path=path, job=fingerprint(self.job, phase, *decisive))

    def stopping(
        self, early: Callable[[], bool] = lambda: False
    ) -> AbstractContextManager[Callable[[], bool]]:
        """Return a context manager that yields the function to call after every step.

        early: asked on Ctrl-C first; where it returns True, nothing is stopped here.
        """
        if self.stop is None and self.path is not None:
            return held_interrupts(early)
        return nullcontext(self.stop or (lambda: False))


@dataclass(frozen=True)
class RunContext:
    """The environment of a run. It changes no result, but its listener may stop training, and so
    may the deadline.

    engines: those chosen in this run for its backbones; copies of the context share them, and the
    deadline. ranks: the processes that train together.
    """

    store: Store | None = USUAL  # the cache of features
    runtime: Runtime = Runtime()
    listener: Listener = Listener()
    checkpoints: Checkpointing = Checkpointing()
    engines: EngineChoices = field(default_factory=dict, compare=False, repr=False)
    deadline: Deadline = field(default_factory=Deadline, compare=False, repr=False)
    ranks: Ranks = field(default=ALONE, compare=False, repr=False)


IN_MEMORY = RunContext(store=None, runtime=ON_CPU)
