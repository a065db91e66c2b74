"""A picture changed so little that people see the same and a model calls it something else."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from headstart.base.errors import SpecError
from headstart.explaining.pixels.lens import Lens, log_odds
from headstart.explaining.pixels.squaring import MOST, squaring
from headstart.modalities.images.augment import png
from headstart.modalities.images.decoding import Pixels, decode
from headstart.models.distance import NEIGHBOUR, Seen
from headstart.models.limits import Limits
from headstart.models.predictor import Answer, Answerer
from headstart.training.attack import LEVELS, RESTARTS, Attack
from headstart.training.attacked import lead, perturb

ENOUGH = 5.0  # logits that another class is ahead: from there on it is about not being strange
STRANGE = 20.0  # logits that a distance of 1 beyond the limit is worth
ROOM = 0.95  # of the limit
MARGIN = 1.0  # logits beyond the score from which on a model answers


@dataclass(frozen=True, eq=False)
class Fooling:
    """What became of one picture.

    picture: as it was. file: a PNG of the changed one. before, after: what is said of both, the
    latter of the file, read back. target: number of the class it was to be taken for, None for
    any other than before.
    """

    picture: Pixels
    file: bytes
    before: Answer
    after: Answer
    target: int | None = None

    @cached_property
    def changed(self) -> Pixels:
        """What the file shows."""
        return decode(self.file)

    @cached_property
    def difference(self) -> Pixels:
        """How many levels each value is away from what it was."""
        return np.where(
            self.changed > self.picture, self.changed - self.picture, self.picture - self.changed
        )

    @property
    def flipped(self) -> bool:
        """Whether the highest score is now that of the target, or of any other class."""
        if self.target is not None:
            return self.after.label == self.target
        return self.after.label != self.before.label

    @property
    def fooled(self) -> bool:
        """Whether it is flipped and the model answers so, rather than that it does not know."""
        return self.flipped and not self.after.doubt

    @property
    def levels(self) -> int:
        """The largest change of a value."""
        return int(self.difference.max())

    @property
    def length(self) -> float:
        """L2 of all changes, on the scale 0..1."""
        each = np.bincount(self.difference.ravel(), minlength=LEVELS + 1)
        return float(np.sqrt(each @ np.arange(LEVELS + 1.0) ** 2)) / LEVELS


def fool(
    lens: Lens,
    answering: Answerer,
    picture: Pixels,
    attack: Attack,
    *,
    target: int | None = None,
    restarts: int = RESTARTS,
) -> Fooling:
    """The change within reach that misleads most, of those parts of the picture that are looked at.

    target: number of the class it is to be taken for; None leads away from what is said now. Each
    try is saved, read back and asked about; it is the first that fools, or else the one that comes
    closest. Raises SpecError if the picture is called so already.
    """
    before = answering.of_example(picture)
    if target == before.label:
        raise SpecError(f"it is called {before.name!r} already: name another --target.")
    eye = squaring(lens.input, picture, _largest_block(attack))
    attack = _on_blocks(attack, eye.block)
    seen = torch.from_numpy(eye.seen[None])
    label = before.label if target is None else target
    aim = Aim(lens, label, target is not None, answering.limits)
    tries = restarts if attack.steps > 1 else 1  # a single step begins at the picture itself
    found = list[Fooling]()
    for stream in range(tries):
        (worst,) = perturb(lambda x: aim(eye(x)), seen, attack, stream)
        file = png(eye.whole(worst.to(torch.uint8).numpy()))
        found.append(Fooling(picture, file, before, answering.of_file(file), target))
        if found[-1].fooled:
            break
    return max(found, key=_success)


@dataclass(frozen=True, eq=False)
class Aim:
    """What a change is to bring about: more of it is better.

    label: number of the class that is to be called (towards), or no longer. limits: of the model
    that is to answer so, rather than call the picture unlike what it was trained on. An attack
    that ignored them would tell nothing of what they are worth (Tramèr et al. 2020, On adaptive
    attacks).
    """

    lens: Lens
    label: int
    towards: bool
    limits: Limits

    def __call__(self, squares: Tensor) -> Tensor:  # (N, S, S, 3) -> (N,)
        x = self.lens.network(squares)
        scaled = self.lens.head(x) / self.limits.temperature  # as scores are, of many classes too
        ahead = self._ahead(scaled, torch.full((len(x),), self.label))
        if self.limits.seen is None:
            return ahead
        beyond = distance(x, self.limits.seen) - ROOM * self.limits.far
        return ahead.clamp(max=self._enough) - STRANGE * beyond.clamp(min=0)

    def _ahead(self, logits: Tensor, labels: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
        """Away from a class, how far the best other one leads; towards one, its log odds: of many
        classes it could lead with a score that is small all the same. That is so of the other one
        too where a model says nothing below a score."""
        if self.towards:
            return log_odds(logits, labels)
        if not self.limits.confidence:
            return -lead(logits, labels)
        others = logits.scatter(1, labels[:, None], -torch.inf)
        return log_odds(logits, others.argmax(dim=1))

    @property
    def _enough(self) -> float:
        """ENOUGH, or what the model asks for before it says anything, and a little more."""
        sure = self.limits.confidence
        wanted = math.log(sure / (1 - sure)) + MARGIN if 0 < sure < 1 else 0.0
        return math.inf if sure >= 1 else max(ENOUGH, wanted)


def distance(x: Tensor, seen: Seen) -> Tensor:  # (N, D) -> (N,)
    """`Seen.distance`, with gradients."""
    rows = torch.from_numpy(seen.rows).float()
    alike = torch.nn.functional.normalize(x) @ rows.T
    kth = alike.topk(min(NEIGHBOUR, len(rows)), dim=1).values[:, -1]
    return (2 - 2 * kth).clamp(min=1e-12).sqrt()


def _largest_block(attack: Attack) -> int:
    """So large that one can still change by a level; that has the length of its side (l2)."""
    return MOST if attack.norm == "linf" else int(attack.levels)


def _on_blocks(attack: Attack, block: int) -> Attack:
    """The same reach where each value stands for a block of pixels."""
    return attack if attack.norm == "linf" else replace(attack, epsilon=attack.epsilon / block)


def _success(found: Fooling) -> tuple[bool, bool, float]:
    """More is better."""
    scores, target = found.after.scores, found.target
    closer = -scores[found.before.label] if target is None else scores[target]
    return found.fooled, found.flipped, float(closer)
