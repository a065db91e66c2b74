"""Adversarial pictures: changes too small to see that make a model predict another class."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headstart.base.errors import SpecError
from headstart.explaining.pixels.fooling import Fooling
from headstart.explaining.pixels.grad_model import GradModel, log_odds
from headstart.explaining.pixels.squaring import MOST, squaring
from headstart.modalities.images.decoding import Pixels
from headstart.modalities.images.encoding import png
from headstart.models.distance import NEIGHBOUR, Seen
from headstart.models.limits import Limits
from headstart.models.predictor import Answerer
from headstart.training.attack import RESTARTS, Attack
from headstart.training.attacked import lead, perturb

ENOUGH = 5.0  # logits by which another class leads; beyond that, only the feature distance counts
STRANGE = 20.0  # logits that a feature distance of 1 beyond the limit costs
ROOM = 0.95  # share of the distance limit that is used
MARGIN = 1.0  # logits above the confidence limit of the model


def fool(
    model: GradModel,
    answering: Answerer,
    picture: Pixels,
    attack: Attack,
    *,
    target: int | None = None,
    restarts: int = RESTARTS,
) -> Fooling:
    """Attack a picture within `attack.epsilon`; change only pixels that affect the network's input.

    target: number of the class to predict; None for any class but the current one. The result of
    each restart is encoded as PNG, read back and predicted: the first that fools the model is
    returned, or else the closest. Raises SpecError if the prediction is the target already.
    """
    before = answering.of_example(picture)
    if target == before.label:
        raise SpecError(f"it is called {before.name!r} already: name another --target.")
    # A block's side is the L2 norm of changing it by one level, which must be within reach.
    largest = MOST if attack.norm == "linf" else int(attack.levels)
    eye = squaring(model.input, picture, largest)
    if attack.norm == "l2":  # each value stands for a block of pixels
        attack = replace(attack, epsilon=attack.epsilon / eye.block)
    seen = torch.from_numpy(eye.seen[None]).to(model.device)
    label = before.label if target is None else target
    aim = Aim(model, label, target is not None, answering.limits)
    tries = restarts if attack.steps > 1 else 1  # a single step begins at the picture itself
    found = list[Fooling]()
    for stream in range(tries):
        (worst,) = perturb(lambda x: aim(eye(x)), seen, attack, stream)
        file = png(eye.whole(worst.to(torch.uint8).cpu().numpy()))
        found.append(Fooling(picture, file, before, answering.of_file(file), target))
        if found[-1].fooled:
            break
    return max(found, key=_success)


@dataclass(frozen=True, eq=False)
class Aim:
    """The objective that an attack maximises, one value per input square.

    label: number of the class to predict (towards), or to avoid. limits: the model's thresholds for
    unknown pictures, which the attack must pass as well: an attack that ignores them can't measure
    how well they protect (Tramèr et al. 2020, On adaptive attacks).
    """

    model: GradModel
    label: int
    towards: bool
    limits: Limits

    def __call__(self, squares: Tensor) -> Tensor:  # (N, S, S, 3) -> (N,)
        x = self.model.network(squares)
        scaled = self.model.head(x) / self.limits.temperature  # as for scores
        ahead = self._ahead(scaled, torch.full((len(x),), self.label, device=x.device))
        if self.limits.seen is None:
            return ahead
        beyond = distance(x, self.limits.seen) - ROOM * self.limits.far
        return ahead.clamp(max=self._enough) - STRANGE * beyond.clamp(min=0)

    def _ahead(self, logits: Tensor, labels: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
        """Return the log odds of the target, or how far the best other class leads. With a
        confidence limit, return that class's log odds: among many classes, a class can lead with a
        small score."""
        if self.towards:
            return log_odds(logits, labels)
        if not self.limits.confidence:
            return -lead(logits, labels)
        others = logits.scatter(1, labels[:, None], -torch.inf)
        return log_odds(logits, others.argmax(dim=1))

    @property
    def _enough(self) -> float:
        """ENOUGH, or the log odds of the model's confidence limit plus MARGIN, if larger."""
        sure = self.limits.confidence
        wanted = math.log(sure / (1 - sure)) + MARGIN if 0 < sure < 1 else 0.0
        return math.inf if sure >= 1 else max(ENOUGH, wanted)


def distance(x: Tensor, seen: Seen) -> Tensor:  # (N, D) -> (N,)
    """Compute `Seen.distance` with gradients."""
    rows = torch.from_numpy(seen.rows).to(x.device).float()
    alike = torch.nn.functional.normalize(x) @ rows.T
    kth = alike.topk(min(NEIGHBOUR, len(rows)), dim=1).values[:, -1]
    return (2 - 2 * kth).clamp(min=1e-12).sqrt()


def _success(found: Fooling) -> tuple[bool, bool, float]:
    """Return a sort key; larger is better."""
    scores, target = found.after.scores, found.target
    closer = -scores[found.before.label] if target is None else scores[target]
    return found.fooled, found.flipped, float(closer)
