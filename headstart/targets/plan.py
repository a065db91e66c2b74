"""The user's settings of the target; settings that are left open follow from the data."""

from dataclasses import dataclass, field
from typing import Annotated

from headstart.base.errors import SpecError
from headstart.base.values import later

GAMMA = 2.0  # the best of Lin et al. 2017, table 1b
MOST_GAMMA = 100.0


@dataclass(frozen=True)
class TargetPlan:
    """The settings of a target, all of which may be left open."""

    target: Annotated[
        str,
        "class, labels, number, grades or boxes; usually the data shows it",
    ] = ""
    ordered: Annotated[
        str, "the grades of the column label, the lowest first, such as low,middle,high"
    ] = ""
    loss: Annotated[
        str,
        "what training minimises, in place of the target's usual loss: focal for classes and "
        "labels; squared, huber or quantile for a number",
    ] = ""
    focal_gamma: Annotated[
        float,
        "with --loss focal, its gamma: the higher, the less almost right rows count; 0 is "
        "cross-entropy",
    ] = field(default=GAMMA, metadata=later())

    voc_base: Annotated[
        int,
        "where the pixels of Pascal VOC's boxes count from: 1, its own way, or 0 for edges as they "
        "are written",
    ] = field(default=1, metadata=later())

    def __post_init__(self) -> None:
        if self.voc_base not in (0, 1):
            raise SpecError(f"voc_base is 0 or 1; got {self.voc_base}.")
        if self.ordered and self.target not in ("", "grades"):
            raise SpecError(
                f"--ordered gives the order of grades, and --target {self.target} has none: leave "
                f"one of them out."
            )
        if not 0 <= self.focal_gamma <= MOST_GAMMA:
            raise SpecError(f"focal_gamma is from 0 to {MOST_GAMMA:g}; got {self.focal_gamma}.")
        if self.focal_gamma != GAMMA and self.loss != "focal":
            raise SpecError("focal_gamma is a setting of --loss focal: name that loss too.")
        if self.ordered and not all(self.grades):
            raise SpecError(f"--ordered names grades, as low,middle,high; got {self.ordered!r}.")

    @property
    def grades(self) -> tuple[str, ...]:
        """The names of the grades, the lowest first; () if they are not given."""
        return tuple(name.strip() for name in self.ordered.split(",")) if self.ordered else ()

    @property
    def kind(self) -> str:
        """The kind of target that is asked for; "" leaves it to the data."""
        return self.target or ("grades" if self.ordered else "")
