"""Focal loss, under which rows that are almost right count less (Lin et al. 2017)."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from headstart.targets.plan import TargetPlan
from headstart.targets.target import Target

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-6  # lower bound of 1 - p, whose powers below 1 have no slope at 0


def focal(logs: "Tensor", shares: "Tensor", gamma: float) -> "Tensor":
    """Return (1 - p)^gamma · -log p, weighted by `shares` (equation 4, without its weight alpha).

    logs: log p of each outcome; shares: how far each outcome is true, of the same shape.
    """
    return -shares * (1 - logs.exp()).clamp(min=LEAST) ** gamma * logs


class FocalTarget(Target):
    """A target, a dataclass, whose loss may be focal: `focal` is its gamma, None if it is not."""

    focal: float | None
    losses: ClassVar[tuple[str, ...]] = ("focal",)

    def planned(self, plan: TargetPlan) -> Self:
        super().planned(plan)
        return self._with(plan.focal_gamma if plan.loss == "focal" else None)

    def learning(self, asked: Target) -> Self:
        return self._with(getattr(asked, "focal", None))

    @property
    def learning_key(self) -> tuple[Any, ...]:
        return () if self.focal is None else ("focal", self.focal)

    @property
    def solvable(self) -> bool:
        return self.focal is None

    def _with(self, gamma: float | None) -> Self:
        target: Any = self
        changed: Self = replace(target, focal=gamma)
        return changed
