"""What explanations of every kind of example save. No PyTorch: the report reads it."""

from dataclasses import dataclass

from headstart.base.values import Record

EXPLAINED = "explained.json"  # in the folder of a run


@dataclass(frozen=True)
class Curves(Record):
    """Scores of a class as ever more of an example is hidden: in the order of its explanation
    (ours), at random, and for pictures from the centre outwards."""

    ours: tuple[float, ...]
    random: tuple[float, ...]
    centre: tuple[float, ...] = ()


@dataclass(frozen=True)
class Areas(Record):
    """The area under each of the curves, 0 to 1."""

    ours: float
    random: float
    centre: float | None = None


@dataclass(frozen=True)
class DeletionCurves(Record):
    """hidden: the hidden share of the example at each point of the curves."""

    area: Areas
    hidden: tuple[float, ...] = ()
    curve: Curves | None = None


@dataclass(frozen=True)
class NearestExample(Record):
    path: str
    label: str
    distance: float
