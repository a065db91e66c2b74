"""The picture that maximises the score of a class: gradient ascent from noise, or from a picture.

The picture is parametrised by Fourier coefficients in decorrelated colours, so that each step moves
coarse and fine detail alike. Each step scores the picture slightly turned, zoomed and shifted, to
keep out patterns that work for one exact placement only (Olah, Mordvintsev and Schubert 2017,
'Feature Visualization', distill.pub/2017/feature-visualization).
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from headstart.base.errors import Diverged
from headstart.base.notebook import html_image
from headstart.base.paths import user_path
from headstart.base.runtime import seeded
from headstart.base.values import to_plain
from headstart.explaining.pixels.grad_model import GradModel, log_odds
from headstart.explaining.pixels.ideal_plan import IdealPlan
from headstart.modalities.images.decoding import Pixels
from headstart.modalities.images.encoding import png
from headstart.modalities.images.film import write_picture
from headstart.modalities.images.inputs import ImageInput

LOOKS = 64  # times that the picture itself is scored during the ascent; each is a frame of the film
NOISE = 0.1  # standard deviation of the first picture, in log odds about mid-grey: 6 of 255 levels
LEVEL = 4 / 255  # a level of a pixel, in log odds about mid-grey
SLOWEST = 0.02  # share of lr at the last step
# Brightness, red against blue, green against both: the independent axes of natural colours (Ohta,
# Kanade and Sakai 1980), each weighted by about its share in them.
COLOURS = ((1.0, 1.0, 1.0), (0.3, 0.0, -0.3), (-0.1, 0.2, -0.1))


@dataclass(frozen=True, eq=False)
class Ideal:
    """A picture after `step` steps; its score is that of the 8-bit picture, not of a view.

    name: of the class. picture: (S, S, 3). score, log_odds: of its class; log odds still differ
    where scores are all but 1. model: its name.
    """

    name: str
    step: int
    picture: Pixels
    score: float
    log_odds: float
    model: str
    plan: IdealPlan

    def __repr__(self) -> str:
        return f"Ideal({self.name!r}, step {self.step} of {self.plan.steps}, {self.described})"

    def _repr_html_(self) -> str:
        return html_image(png(self.picture), f"{self.name}: {self.described}", len(self.picture))

    @property
    def described(self) -> str:
        """The score and the variation, for messages."""
        return f"score {self.score:.3f}, variation {self.variation:.3f}"

    def save(self, path: Path | str) -> None:
        """Write the picture as a PNG file, with its class, model, step and settings as metadata."""
        about = {"class": self.name, "model": self.model, "step": self.step}
        about |= {"plan": to_plain(self.plan)}
        write_picture(user_path(path), self.picture, json.dumps(about))

    @property
    def variation(self) -> float:
        return total_variation(self.picture)


def ascend(
    model: GradModel, number: int, plan: IdealPlan | None = None, start: Pixels | None = None
) -> Iterator[Ideal]:
    """Yield pictures of class `number`, from the first to the last step, about 64 in between.

    start: a picture (H, W, 3) to begin with instead of noise. Raises Diverged if the log odds are
    not finite.
    """
    plan = plan or IdealPlan()
    eats = model.input
    side = eats.resize if eats.fit == "crop" else eats.size
    random = seeded(plan.seed)
    brushes = [_brush(plan, side, octave) for octave in range(plan.octaves)]
    base = _beginning(brushes[-1], random) if start is None else _drawn_from(start, eats, side)
    yield _judged(model, number, plan, base, 0)
    ends = [plan.steps * (octave + 1) // plan.octaves for octave in range(plan.octaves)]
    every, step = max(1, plan.steps // LOOKS), 0
    for brush, end in zip(brushes, ends, strict=True):
        change = brush.blank().requires_grad_()
        optimizer = torch.optim.Adam([change], lr=plan.lr)
        while step < end:
            lr = optimizer.param_groups[0]["lr"] = plan.lr * _pace(step / plan.steps)
            drawn = base + _mixed(brush.draw(change))
            views = _views(torch.sigmoid(drawn), eats, plan, random)
            optimizer.zero_grad()
            (-_odds(model, views, number).mean()).backward()
            optimizer.step()
            base = base - lr * _pull(drawn.detach(), plan)
            step += 1
            if step % every == 0 or step == plan.steps:
                now = base + _mixed(brush.draw(change.detach()))
                yield _judged(model, number, plan, now, step)
        base = base + _mixed(brush.draw(change.detach()))


def surest(seen: Iterable[Ideal]) -> Ideal:
    """Return the picture with the highest log odds; in a tie, the first."""
    return max(seen, key=lambda each: each.log_odds)


def total_variation(picture: Pixels) -> float:  # (H, W, 3)
    """Return the mean absolute difference of neighbouring values, on the scale 0..1."""
    values = picture / np.float64(255)
    return float(sum(np.abs(np.diff(values, axis=axis)).mean() for axis in (0, 1)) / 2)


@dataclass(frozen=True, eq=False)
class Waves:
    """Parameters are Fourier coefficients. weight: of each frequency, (S, S // 2 + 1)."""

    side: int
    weight: Tensor

    def blank(self) -> Tensor:
        return torch.zeros(1, 3, *self.weight.shape, 2)

    def draw(self, change: Tensor) -> Tensor:
        spectrum = torch.view_as_complex(change) * self.weight
        drawn: Tensor = torch.fft.irfft2(spectrum, s=(self.side, self.side), norm="ortho")
        return drawn


@dataclass(frozen=True)
class Dots:
    """Parameters are the picture itself, `cells` values per side, enlarged to `side`."""

    side: int
    cells: int

    def blank(self) -> Tensor:
        return torch.zeros(1, 3, self.cells, self.cells)

    def draw(self, change: Tensor) -> Tensor:
        if self.cells == self.side:
            return change
        return interpolate(change, self.side, mode="bicubic", align_corners=False)


Brush = Waves | Dots  # draws a picture, in brightness and two colours, from parameters


def _brush(plan: IdealPlan, side: int, octave: int) -> Brush:
    coarseness = 2 ** (plan.octaves - 1 - octave)
    if plan.space == "pixels":
        return Dots(side, max(1, side // coarseness))
    return Waves(side, _weights(side, coarseness))


def _weights(side: int, coarseness: int) -> Tensor:
    """Return weights that fall with frequency, as in photographs; 0 above the octave's limit.

    Standard normal coefficients draw a picture with a standard deviation of about 1.
    """
    rows, columns = torch.fft.fftfreq(side), torch.fft.rfftfreq(side)
    frequency = torch.hypot(rows[:, None], columns[None, :])  # cycles a pixel, up to 0.71
    weight = 1 / frequency.clamp(min=1 / side)
    weight = weight / (2 * weight.square().mean()).sqrt()
    return weight * (frequency <= math.sqrt(0.5) / coarseness)


def _mixed(drawn: Tensor) -> Tensor:
    """Convert brightness and two colours to red, green and blue, as log odds of level / 255."""
    return torch.einsum("nkhw,kc->nchw", drawn, torch.tensor(COLOURS))


def _beginning(brush: Brush, random: torch.Generator) -> Tensor:
    blank = brush.blank()
    return NOISE * _mixed(brush.draw(torch.randn(blank.shape, generator=random)))


def _drawn_from(start: Pixels, eats: ImageInput, side: int) -> Tensor:
    square = ImageInput(side, side, eats.mean, eats.std, eats.interpolation, eats.fit)(start)
    return torch.logit(_nchw(square.copy()), eps=0.25 / 255)


def _pace(done: float) -> float:
    """Return the factor of lr: from 1 down to SLOWEST along a cosine."""
    return SLOWEST + (1 - SLOWEST) * (1 + math.cos(math.pi * done)) / 2


def _views(
    picture: Tensor, eats: ImageInput, plan: IdealPlan, random: torch.Generator
) -> Tensor:  # (1, 3, S, S) -> (V, 3, size, size)
    """Return views of the picture's centre, each turned, zoomed and shifted at random."""
    side = picture.shape[-1]
    turn, zoom, *shift = 2 * torch.rand(4, plan.views, generator=random) - 1
    turn = math.radians(plan.rotation) * turn
    span = eats.size / side / (1 + plan.zoom * zoom)
    middle = (side - eats.size) / 2
    off = [round(middle) - middle + (plan.jitter * s).round() for s in shift]
    cos, sin = span * turn.cos(), span * turn.sin()
    theta = torch.stack([cos, -sin, 2 * off[0] / side, sin, cos, 2 * off[1] / side], dim=1)
    grid = affine_grid(
        theta.view(-1, 2, 3), [plan.views, 3, eats.size, eats.size], align_corners=False
    )
    copies = picture.expand(plan.views, -1, -1, -1)
    return grid_sample(copies, grid, padding_mode="reflection", align_corners=False)


def _odds(model: GradModel, views: Tensor, number: int) -> Tensor:  # (N, 3, S, S) -> (N,)
    """Return the log odds of the class, which still rise where its score saturates."""
    logits = model.logits(255 * views.permute(0, 2, 3, 1))
    return log_odds(logits, torch.full((len(views),), number, device=logits.device))


def _pull(drawn: Tensor, plan: IdealPlan) -> Tensor:
    """Return the gradient of the penalties on total variation and on distance from grey.

    It is applied apart from Adam, which would divide a penalty by the noise of the gradient (as for
    weight decay, Loshchilov and Hutter 2019).
    """
    rough = torch.zeros_like(drawn)
    for axis in (2, 3):
        step = drawn.diff(dim=axis)
        slope = step / (step.square() + LEVEL**2).sqrt()  # the sign, smooth below a level
        rough.narrow(axis, 1, slope.shape[axis]).add_(slope)
        rough.narrow(axis, 0, slope.shape[axis]).sub_(slope)
    return plan.tv * rough + plan.l2 * drawn


@torch.no_grad()
def _judged(model: GradModel, number: int, plan: IdealPlan, drawn: Tensor, step: int) -> Ideal:
    whole = (255 * torch.sigmoid(drawn[0])).round().to(torch.uint8)
    picture = whole.permute(1, 2, 0).contiguous().numpy()
    square = model.input(picture).copy()  # Pillow's memory is read-only
    odds = float(_odds(model, _nchw(square), number))
    if not math.isfinite(odds):
        raise Diverged(
            f"{model.name} must answer with numbers; at step {step} it said {odds}. Look whether "
            f"its weights are sound: `headstart predict` or `classify` shows what it scores."
        )
    score = float(model.scores(square[None])[0, number])
    return Ideal(model.classes[number], step, picture, score, odds, model.name, plan)


def _nchw(square: Pixels) -> Tensor:
    return torch.from_numpy(square).permute(2, 0, 1)[None] / 255
