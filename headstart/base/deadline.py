"""When a run is to end: a deadline on the monotonic clock, and the wish to end before it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Deadline:
    """When a run is to end; by default it never is.

    seconds: of the whole run. after: seconds that evaluation, saving and the report take, which
    training leaves. refit: seconds that a refitted network adds to these. refits: whether what was
    fine-tuned may be fitted again, if there is time. baseline: seconds of the baseline that follows
    a training, which leaves them. later: seconds that are left for the trainings after this one.
    began: on the monotonic clock. on_end: is called when the run is asked to end early.

    >>> Deadline().late, Deadline(60.0).fits(3600.0)
    (False, False)
    """

    seconds: float = math.inf
    after: float = 0.0
    refit: float = 0.0
    refits: bool = True
    baseline: float = 0.0
    later: float = 0.0
    began: float = field(default_factory=time.monotonic)
    on_end: Callable[[], object] = lambda: None
    ended: bool = False

    @property
    def active(self) -> bool:
        return self.seconds < math.inf

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds until the run is to end; 0 when that was asked for, below 0 when it is past."""
        return 0.0 if self.ended else self.seconds - self.spent

    @property
    def spare(self) -> float:
        """Seconds that the current training may take; 0 or less when it is to stop."""
        return self.left - self.after - self.baseline - self.later

    @property
    def late(self) -> bool:
        """Whether training is to stop."""
        return self.spare <= 0

    def fits(self, seconds: float) -> bool:
        """Return whether training may take so many seconds more."""
        return seconds <= self.spare

    def evaluated(self, rest: float) -> None:
        """Note that the model was evaluated, so that at most `rest` seconds follow a baseline."""
        self.after = min(self.after, rest)

    def share(self, trainings: int) -> None:
        """Divide the time that is left equally among so many trainings: the current one and those
        after it. Each but the last is followed by a baseline, whose time is set aside."""
        if self.active:
            others = trainings - 1
            rest = max(0.0, self.left - self.after - others * self.baseline)
            self.later = rest * others / trainings + max(0, others - 1) * self.baseline

    @contextmanager
    def in_baseline(self) -> Iterator[None]:
        """Let a baseline take the time that was left for it."""
        self.baseline, planned = 0.0, self.baseline
        try:
            yield
        finally:
            self.baseline = planned

    def end(self) -> bool:
        """Ask a run with a deadline to end early; return whether it was not asked before."""
        if self.ended or not self.active:
            return False
        self.ended = True
        self.on_end()
        return True
