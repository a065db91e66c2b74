"""The content of robustness.json. No PyTorch."""

from dataclasses import dataclass, field

from headstart.base.values import Record, Settings
from headstart.evaluation.evaluation import Estimate


@dataclass(frozen=True)
class Neighbours(Record):
    """The training rows nearest to changed pictures, by the cosine of their features.

    same: share that were nearest before the change. own: share with the picture's own label.
    """

    same: float
    own: float


@dataclass(frozen=True)
class NeighbourCount(Record):
    """How many nearest rows were compared, of how many training rows."""

    nearest: int = 0
    of: int = 0


@dataclass(frozen=True)
class UnderAttack(Record):
    """levels: epsilon in levels of 255. neighbours: None without training rows."""

    levels: int
    accuracy: Estimate
    neighbours: Neighbours | None = None


@dataclass(frozen=True)
class UnderCorruption(Record):
    """strength: 1 to 5. neighbours: None without training rows."""

    name: str
    strength: int
    accuracy: Estimate
    neighbours: Neighbours | None = None


@dataclass(frozen=True)
class RobustnessResults(Record):
    """rows: pictures tried. finished: False if the test was stopped early."""

    rows: int
    finished: bool
    plan: Settings = field(default_factory=Settings)
    neighbours: NeighbourCount = NeighbourCount()
    attacked: tuple[UnderAttack, ...] = ()
    corrupted: tuple[UnderCorruption, ...] = ()
