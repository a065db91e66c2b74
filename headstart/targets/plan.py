"""What the user says of the target; what is not said follows from the data."""

from dataclasses import dataclass
from typing import Annotated

from headstart.base.errors import SpecError


@dataclass(frozen=True)
class TargetPlan:
    """The settings of a target, all of which may be left open."""

    target: Annotated[
        str,
        "what is predicted: class, labels, number or grades; usually the columns show it",
    ] = ""
    ordered: Annotated[
        str, "the grades of the column label, the lowest first, such as low,middle,high"
    ] = ""
    loss: Annotated[str, "what training minimises, in place of the target's usual loss"] = ""

    def __post_init__(self) -> None:
        if self.ordered and self.target not in ("", "grades"):
            raise SpecError(
                f"--ordered gives the order of grades, and --target {self.target} has none: leave "
                f"one of them out."
            )
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
