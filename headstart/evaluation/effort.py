"""How much work the insights of a run take: fixed limits, so that a seed gives the same results."""

from dataclasses import dataclass, replace
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

    def within(self, seconds: float) -> "InsightEffort":
        """Return the limits with which one insight takes about half of these seconds at most.

        >>> QUICK.within(2.0).products
        20000000.0
        """
        most = PRODUCTS_PER_S * seconds / 2
        return replace(self, products=min(self.products or most, most))


FULL = InsightEffort()
PRODUCTS_PER_S = 2e7  # on two cores
# A million products take about .05 s on two cores: at the limit, a learning curve takes 20 s.
QUICK = InsightEffort(256, 2, 4e8, 10_000, 800, 500)
