"""Choices of the gradient ascent for a class. No PyTorch."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from headstart.base.errors import SpecError
from headstart.heads.head import MOST_RATE, check_counts, check_word

Space = Literal["frequency", "pixels"]
MOSTS = {"jitter": 2048, "rotation": 360}  # pixels of the largest square; a full turn
MOST_VIEWS = 256
MOST_OCTAVES = 12  # the first of them is a single pixel of a square of 2048


@dataclass(frozen=True)
class IdealPlan:
    """Choices that change the picture that `ideal` makes."""

    steps: Annotated[int, "steps of gradient ascent, shared out evenly among the octaves"] = 640
    tv: Annotated[
        float,
        "pull of each pixel towards its neighbours (total variation), a share of lr; with 0 the "
        "picture is mostly noise",
    ] = 0.1
    l2: Annotated[float, "pull of each pixel towards mid-grey, a share of lr"] = 0.0
    jitter: Annotated[int, "pixels that each view of the picture is shifted by, at most"] = 16
    rotation: Annotated[float, "degrees that each view is turned by, at most"] = 10.0
    zoom: Annotated[float, "share that each view is enlarged or reduced by, at most"] = 0.2
    views: Annotated[int, "views per step, each changed on its own"] = 1
    octaves: Annotated[
        int,
        "levels of detail, drawn one after the other; each adds detail twice as fine",
    ] = 4
    space: Annotated[
        Space,
        "what is drawn: waves in colours that do not correlate (frequency), or the pixels "
        "themselves",
    ] = "frequency"
    lr: Annotated[float, "step size, in log odds of a pixel's brightness"] = 0.05
    seed: Annotated[int, "another seed begins with other noise and draws other views"] = 0

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
