"""Accuracy of a model on changed pictures: the content of robustness.json. No PyTorch."""

from dataclasses import dataclass, field

import numpy as np

from headstart.base.notebook import html_table
from headstart.base.values import Record, Settings
from headstart.evaluation.evaluation import Estimate
from headstart.explaining.pixels.corruptions import STRENGTHS
from headstart.training.attack import LEVELS


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
    """levels: epsilon in steps of 1/255. neighbours: None without training rows."""

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


@dataclass(frozen=True, repr=False)
class Robustness(Record):
    """Accuracy of a model on changed pictures. rows: pictures tried. finished: False if the test
    was stopped early. attacked: by epsilon, the unchanged pictures first."""

    rows: int
    finished: bool
    plan: Settings = field(default_factory=Settings)
    neighbours: NeighbourCount = NeighbourCount()
    attacked: tuple[UnderAttack, ...] = ()
    corrupted: tuple[UnderCorruption, ...] = ()

    def __repr__(self) -> str:
        attacked = (f"{each.levels}/{LEVELS}: {each.accuracy}" for each in self.attacked)
        corrupted = f", {len(self.corrupted)} corruptions" if self.corrupted else ""
        return f"Robustness({self.rows} pictures, {', '.join(attacked)}{corrupted})"

    def _repr_html_(self) -> str:
        return "".join(html_table(rows[1:], rows[0]) for rows in self.tables() if rows)

    @property
    def tried(self) -> int:
        """How many conditions were tried, the unchanged pictures among them."""
        return len(self.attacked) + len(self.corrupted)

    def tables(self) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """Return two tables to print: one row per epsilon, and one row per corruption or []."""
        attacked: list[tuple[str, ...]] = [
            ("epsilon", "accuracy", "nearest still the same", "nearest of its own class")
        ]
        for each in self.attacked:
            near = each.neighbours
            moved = (f"{near.same:.3f}", f"{near.own:.3f}") if near else ("n/a", "n/a")
            attacked.append((f"{each.levels}/{LEVELS}", str(each.accuracy), *moved))
        corrupted = [("", *map(str, STRENGTHS), "mean")] if self.corrupted else []
        for name in dict.fromkeys(each.name for each in self.corrupted):
            shares = [each.accuracy.value for each in self.corrupted if each.name == name]
            cells = [f"{share:.3f}" for share in shares] + [""] * (len(STRENGTHS) - len(shares))
            corrupted.append((name.replace("_", " "), *cells, f"{np.mean(shares):.3f}"))
        return attacked, corrupted
