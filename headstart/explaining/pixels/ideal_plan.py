"""How the picture that a class is surest of is made: every choice that changes how it looks."""

from dataclasses import dataclass
from typing import Literal, get_args

from headstart.base.errors import SpecError
from headstart.heads.head import MOST_RATE, check_counts, check_word

Space = Literal["frequency", "pixels"]
MOSTS = {"jitter": 2048, "rotation": 360}  # pixels of the largest square; a full turn
MOST_VIEWS = 256
MOST_OCTAVES = 12  # the first then begins with a single pixel of 2048


@dataclass(frozen=True)
class IdealPlan:
    """How a picture is made that a class is surest of.

    steps: of gradient ascent, shared out evenly among the octaves.
    tv: pull of each pixel towards its neighbours (total variation), a share of lr; 0 shows the
        noise that does as well.
    l2: pull of each pixel towards mid-grey, a share of lr.
    jitter: pixels that each look at the picture is shifted by, at most.
    rotation: degrees that it is turned by, at most.
    zoom: share that it is enlarged or reduced by, at most.
    views: looks a step, each changed on its own.
    octaves: coarse detail is drawn first; each octave adds detail twice as fine.
    space: frequency draws waves in colours that do not correlate, pixels the pixels themselves.
    lr: step size, in log odds of a pixel's brightness.
    seed: another seed begins with other noise and looks otherwise.
    """

    steps: int = 640
    tv: float = 0.1
    l2: float = 0.0
    jitter: int = 16
    rotation: float = 10.0
    zoom: float = 0.2
    views: int = 1
    octaves: int = 4
    space: Space = "frequency"
    lr: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_word("space", self.space, get_args(Space))
        check_counts(steps=self.steps, views=self.views, octaves=self.octaves)
        for name in ("tv", "l2"):
            if not 0 <= getattr(self, name) <= 1:
                raise SpecError(f"{name} is a share of lr, 0 to 1; got {getattr(self, name)}.")
        for name, most in MOSTS.items():
            if not 0 <= getattr(self, name) <= most:
                raise SpecError(f"{name} is 0 or more, up to {most:,}; got {getattr(self, name)}.")
        if self.views > MOST_VIEWS:
            raise SpecError(
                f"views is at most {MOST_VIEWS:,}, looked at at once; got {self.views}."
            )
        if self.octaves > MOST_OCTAVES:
            raise SpecError(
                f"octaves is at most {MOST_OCTAVES}; got {self.octaves}. Usual are 1 to 5."
            )
        if not 0 <= self.zoom < 1:
            raise SpecError(f"zoom is a share of the picture's side, below 1; got {self.zoom}.")
        if not 0 < self.lr <= MOST_RATE:
            raise SpecError(f"lr is more than 0, up to {MOST_RATE:g}; got {self.lr}.")
