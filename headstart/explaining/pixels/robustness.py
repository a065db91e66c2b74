"""What changed pictures do to a model, as robustness.json holds it. No PyTorch."""

from dataclasses import dataclass, field

from headstart.base.values import Record, Settings
from headstart.evaluation.evaluation import Estimate


@dataclass(frozen=True)
class Neighbours(Record):
    """Of the training rows nearest to changed pictures, by the cosine of their features.

    same: share that were nearest before the change. own: share with the picture's own label.
    """

    same: float
    own: float


@dataclass(frozen=True)
class NeighbourCount(Record):
    """How many nearest rows were watched, of how many training rows."""

    nearest: int = 0
    of: int = 0


@dataclass(frozen=True)
class UnderAttack(Record):
    """levels: the largest change of a value, of 255. neighbours: None without training rows."""

    levels: int
    accuracy: Estimate
    neighbours: Neighbours | None = None


@dataclass(frozen=True)
class UnderCorruption(Record):
    """The same under a corruption of a strength from 1 to 5."""

    name: str
    strength: int
    accuracy: Estimate
    neighbours: Neighbours | None = None


@dataclass(frozen=True)
class RobustnessResults(Record):
    """rows: pictures that were tried. finished: False where trying was stopped."""

    rows: int
    finished: bool
    plan: Settings = field(default_factory=Settings)
    neighbours: NeighbourCount = NeighbourCount()
    attacked: tuple[UnderAttack, ...] = ()
    corrupted: tuple[UnderCorruption, ...] = ()
