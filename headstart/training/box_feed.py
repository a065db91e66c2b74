"""Rows of stored activations whose labels are places, which move with each view of an example."""

from dataclasses import dataclass

from headstart.targets.target import Labels
from headstart.training.feeds import RowNumbers, Stored, views_of


@dataclass(frozen=True, eq=False)
class PlacedRows(Stored):
    """Stored rows with the labels of each view. moved: of each table; () for those of the table."""

    moved: tuple[Labels, ...] = ()

    @property
    def features(self) -> None:
        return None  # the head does not read pooled features

    def labels(self, rows: RowNumbers, epoch: int) -> Labels:
        if not self.moved:
            return self.y[rows]
        numbers = views_of(rows, len(self.ids), len(self.tables), epoch, self.seed)
        pairs = zip(numbers.tolist(), rows.tolist(), strict=True)
        return self.target.labels([self.moved[view][row] for view, row in pairs])
