"""How much work the insights of a run take: fixed limits, so that a seed gives the same results."""

from dataclasses import dataclass
from typing import Literal

Detail = Literal["none", "quick", "full"]


@dataclass(frozen=True)
class InsightEffort:
    """The limits of the insights. 0 is no limit.

    columns: leading directions of the features on which heads are refitted (`heads.basis.rotated`).
    draws: draws of rows for each point of a learning curve but the last. products: rows times
    columns times outputs of all heads of one insight; an insight beyond it is left out. compared:
    rows that outliers are looked for among. map_rows, map_steps: of the map by t-SNE.
    """

    columns: int = 0
    draws: int = 4
    products: float = 0.0
    compared: int = 0
    map_rows: int = 1500
    map_steps: int = 1000

    def allows(self, rows: float, columns: int, outputs: int) -> bool:
        """Return whether heads on `rows` rows, summed over all heads, are within the limit.

        >>> QUICK.allows(10_000, 1280, 2), QUICK.allows(1_000_000, 1280, 1000)
        (True, False)
        """
        own = min(columns, self.columns or columns)
        return not self.products or rows * own * outputs <= self.products


FULL = InsightEffort()
# A million products take about .05 s on two cores: at the limit, a learning curve takes 20 s.
QUICK = InsightEffort(256, 2, 4e8, 10_000, 800, 500)
