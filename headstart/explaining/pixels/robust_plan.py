"""Choices of the robustness test. No PyTorch."""

import math
from dataclasses import dataclass
from typing import Annotated

from headstart.base.errors import SpecError, UnknownName
from headstart.base.values import check_seed
from headstart.explaining.pixels.corruptions import CORRUPTIONS, STRENGTHS
from headstart.heads.head import check_counts
from headstart.training.attack import LEVELS


@dataclass(frozen=True)
class RobustnessPlan:
    """Choices that change the results of the robustness test."""

    rows: Annotated[
        int,
        "pictures at most, drawn so that each class keeps its share; 0 for all",
    ] = 100
    epsilons: Annotated[
        tuple[float, ...],
        "how far each value of a picture may be changed, as shares of its range, such as 2/255; "
        "the unchanged picture is always measured",
    ] = (1 / LEVELS, 2 / LEVELS, 4 / LEVELS, 8 / LEVELS)
    steps: Annotated[
        int,
        "steps of the search for the change that misleads (PGD, Madry et al. 2018)",
    ] = 20
    corruptions: Annotated[
        tuple[str, ...],
        "what else is done to the pictures, each at five strengths",
    ] = tuple(CORRUPTIONS)
    seed: Annotated[int, "another seed draws other pictures, noise and starts of the search"] = 0

    def __post_init__(self) -> None:
        check_counts(steps=self.steps)
        check_seed(self.seed)
        if self.rows < 0:
            raise SpecError(f"rows is a count, or 0 for all; got {self.rows}.")
        for epsilon in self.epsilons:
            _check_whole(epsilon)
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise UnknownName("corruption", name, CORRUPTIONS)

    @property
    def levels(self) -> tuple[int, ...]:
        """The epsilons in steps of 1/255, ascending, without repeats, and 0."""
        return tuple(sorted({0, *(round(e * LEVELS) for e in self.epsilons)}))

    @property
    def conditions(self) -> int:
        """How many conditions there are to try, the unchanged pictures among them."""
        return len(self.levels) + len(set(self.corruptions)) * len(STRENGTHS)


def _check_whole(epsilon: float) -> None:
    """Raise SpecError unless epsilon is a whole number of levels, 0 to 255."""
    levels = epsilon * LEVELS
    if not (math.isfinite(levels) and 0 <= levels <= LEVELS + 1e-6):
        raise SpecError(
            f"epsilons are shares of a pixel's range, 0 to 1; got {epsilon:.3g}. For levels write "
            f"2/255."
        )
    if abs(levels - round(levels)) > 1e-6:
        raise SpecError(
            f"A picture's values are whole levels, and so are the epsilons; got {epsilon:.3g}, "
            f"which is {levels:.2f}/255. The nearest is {round(levels)}/255."
        )
