"""The settings of an adversarial attack: its size and its search effort. Imports no PyTorch."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from headstart.base.errors import SpecError
from headstart.heads.head import check_counts, check_word

LEVELS = 255
LONGEST = 20_000  # the L2 norm of changing every value of the largest readable image fully: 13,900
RESTARTS = 3  # random starts per image, until one fools the model
Norm = Literal["linf", "l2"]
EPSILONS = {"linf": 4 / LEVELS, "l2": 1.0}  # of an attack on single pictures, if none is given


@dataclass(frozen=True)
class Attack:
    """How far an image may be changed, and how long the worst change is searched for."""

    epsilon: Annotated[
        float,
        "largest change, as a share of the pixels' range, such as 4/255: of any one value (linf), "
        "or the length of all changes together (l2)",
    ] = 4 / LEVELS
    norm: Annotated[
        Norm, "what epsilon limits: each value (linf), or the length of all changes (l2)"
    ] = "linf"
    steps: Annotated[
        int,
        "steps of gradient ascent from a random start (PGD, Madry et al. 2018); 1 is one whole "
        "step from the picture itself (FGSM, Goodfellow et al. 2015)",
    ] = 20
    seed: Annotated[int, "another seed starts elsewhere"] = 0

    def __post_init__(self) -> None:
        check_word("norm", self.norm, get_args(Norm))
        check_counts(steps=self.steps)
        if not 1 - 1e-9 <= self.epsilon * LEVELS <= LONGEST * LEVELS:
            raise SpecError(
                f"epsilon is a share of the pixels' range, 1/255 or more, since a file holds whole "
                f"levels, and up to {LONGEST:,} (l2); got {self.epsilon:.3g}. Usual are 2/255 to "
                f"8/255 (linf), 0.5 to 3 (l2)."
            )
        if self.norm == "linf" and self.epsilon > 1:
            raise SpecError(
                f"epsilon is a share of the pixels' range, up to 1 (linf); got {self.epsilon:.3g}. "
                f"For levels write 4/255."
            )

    @property
    def levels(self) -> float:
        """Epsilon in pixel levels (0 to 255), rounded down to an integer for linf."""
        levels = self.epsilon * LEVELS
        return float(int(levels + 1e-6)) if self.norm == "linf" else levels


def starts_of(attack: Attack, restarts: int | None = None) -> int:
    """Return from how many random starts an attack is tried, at most; None is the usual number.

    Raises SpecError for a number that is none, and for several starts of an attack of one step.
    """
    if restarts is None:
        return RESTARTS
    check_counts(restarts=restarts)
    if attack.steps == 1 and restarts > 1:
        raise SpecError("--restarts would change nothing: 1 step begins at the picture itself.")
    return restarts
