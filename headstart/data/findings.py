"""The findings of the checks of a data set, as saved in checks.json."""

from dataclasses import dataclass, field

from headstart.base.values import Record
from headstart.data.dataset import LeftOut

Group = tuple[str, ...]  # paths of the same picture
AlikePair = tuple[str, str, float]  # two paths and their likeness from 0 to 1


@dataclass(frozen=True)
class OddSize(Record):
    """A picture of an unusual size, in pixels, and the reason."""

    path: str
    width: int
    height: int
    reason: str


@dataclass(frozen=True)
class TwoLabels(Record):
    """Duplicates with more than one label: exact groups and near pairs."""

    exact: tuple[Group, ...] = ()
    near: tuple[AlikePair, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Findings(Record):
    """The findings of `checks.Checks`. counts, readable: all and readable rows of each class."""

    rows: int = 0
    counts: dict[str, int]
    readable: dict[str, int] = field(default_factory=dict)
    unreadable: tuple[LeftOut, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    exact_duplicates: tuple[Group, ...] = ()
    near_duplicates: tuple[Group, ...]
    near_pairs: tuple[AlikePair, ...] = ()
    two_labels: TwoLabels
    empty_classes: tuple[str, ...] = ()
    one_image_classes: tuple[str, ...] = ()
    imbalance: float = 1.0
    odd_sizes: tuple[OddSize, ...] = ()
