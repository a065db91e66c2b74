"""Classify learning curves by fixed rules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headstart.training.history import Epoch

Floats = NDArray[np.float64]
Kind = Literal[
    "still learning", "plateau", "over-fitting", "under-fitting", "diverged", "too short"
]

SHORT = 3  # trained epochs: fewer make no curve
RISEN = 1.25  # training loss at the end / its lowest: diverged
JUMP = 1.5  # training loss / that of the epoch before: a jump
JUMPS = 2  # jumps that mean divergence
LEAST = 0.05  # nats: smaller changes of a loss never count as a rise
TURNED = 1.10  # validation loss at the end / its lowest: over-fitting
GAP = 0.15  # training accuracy - validation accuracy: over-fitting
FALL = 0.05  # relative fall of the loss over the last half of the epochs: still learning
LITTLE = 0.005  # nats: a smaller fall is not worth an epoch
SCATTER = 2.0  # a fall must be this many times the scatter about its trend
LOW = 0.7  # training accuracy of a converged network: below, it under-fits
LAST = 3  # epochs in "the end", at most


@dataclass(frozen=True)
class Diagnosis:
    """kind: the state of training. best: the epoch of the lowest loss; 0 without a loss."""

    kind: Kind
    best: int


def diagnose_curves(
    lines: Sequence[Epoch], *, guess: float | None = None, attacked: bool = False
) -> Diagnosis:
    """Classify the last phase of `lines` by the first of these rules that holds.

    Only trained epochs count (those with a learning rate). "The end" is the last LAST epochs, or
    the last third if that is fewer: the median of accuracies, the minimum of losses (so that one
    bad epoch is no rise). If validation was not measured in every epoch, training loss replaces
    it, and over-fitting cannot be detected.

    1. diverged: a loss is not finite; or training loss at the end is RISEN times its lowest, or
       JUMPS epochs have JUMP times the loss of the epoch before (by LEAST at least, either way).
    2. too short: fewer than SHORT epochs.
    3. over-fitting: validation loss at the end is TURNED times its lowest (and LEAST above it),
       while training loss has fallen since; or training accuracy is GAP above validation's at the
       end, while validation loss no longer falls.
    4. still learning: a straight line through the last half of validation loss (SHORT epochs at
       least) falls by FALL of its height, by LITTLE, and by SCATTER times the scatter about it.
    5. under-fitting: training accuracy at the end is below LOW or, given `guess` (the accuracy of
       always predicting the most frequent class), below the middle between `guess` and 1.
    6. plateau: none of these.

    In an `attacked` phase (adversarial training) only validation is used, which is always measured
    at full attack strength: training loss may rise because the attacks get stronger.
    """
    trained = [line for line in lines if line.phase == lines[-1].phase and line.lr is not None]
    if attacked:
        trained = [replace(line, train_loss=None, train_accuracy=None) for line in trained]
    train, val = _column(trained, "train_loss"), _column(trained, "val_loss")
    loss = train if val is None else val
    if loss is None:
        return Diagnosis("too short", 0)
    best = trained[int(np.where(np.isfinite(loss), loss, np.inf).argmin())].epoch
    if train is not None and _diverged(train, loss):
        return Diagnosis("diverged", best)
    if len(trained) < SHORT:
        return Diagnosis("too short", best)
    if train is not None and val is not None and _turned(train, val):
        return Diagnosis("over-fitting", best)
    low = LOW if guess is None else guess + (1 - guess) / 2
    ends = _end_accuracy(trained, "train"), _end_accuracy(trained, "val")
    return Diagnosis(_settled(_falls(loss), *ends, low), best)


@dataclass(frozen=True)
class LossChange:
    """How fine-tuning moved the validation loss. start: before its first step. best, epoch: the
    lowest one after it. end: in its last epoch."""

    kind: Literal["lowered", "turned", "raised", "same"]
    start: float
    best: float
    epoch: int
    end: float


def compare_with_start(lines: Sequence[Epoch]) -> LossChange | None:
    """Compare the last phase with its own start; None unless both were measured on validation.

    A change below LITTLE is none. "turned": the loss fell, and ended above its start.
    """
    own = [line for line in lines if line.phase == lines[-1].phase and line.val_loss is not None]
    before = [line for line in own if line.lr is None]
    after = [(line.val_loss or 0.0, line.epoch) for line in own if line.lr is not None]
    if not before or not after or not all(math.isfinite(loss) for loss, _ in after):
        return None
    start, (best, epoch), end = before[-1].val_loss or 0.0, min(after), after[-1][0]
    if best > start + LITTLE:
        return LossChange("raised", start, best, epoch, end)
    if best > start - LITTLE:
        kind: Literal["raised", "same"] = "raised" if end > start + LEAST else "same"
        return LossChange(kind, start, best, epoch, end)
    return LossChange("turned" if end > start + LITTLE else "lowered", start, best, epoch, end)


def _settled(falling: bool, train: float, val: float, low: float) -> Kind:
    """Apply the rules for the accuracies at the end, NaN if not measured."""
    if falling:
        return "still learning"
    if train - val > GAP:
        return "over-fitting"
    return "under-fitting" if train < low else "plateau"


def _column(lines: Sequence[Epoch], name: str) -> Floats | None:
    """Return one value per epoch, or None if an epoch has none."""
    values = [getattr(line, name) for line in lines]
    return None if not values or None in values else np.array(values, np.float64)


def _end(values: Floats) -> Floats:
    return values[-min(LAST, max(1, len(values) // 3)) :]


def _end_accuracy(lines: Sequence[Epoch], part: str) -> float:
    values = _column(lines, f"{part}_accuracy")
    return math.nan if values is None else float(np.median(_end(values)))


def _diverged(train: Floats, loss: Floats) -> bool:
    if not (np.isfinite(train).all() and np.isfinite(loss).all()):
        return True
    if len(train) < SHORT:
        return False
    before, after = train[:-1], train[1:]
    jumps = int(((after > JUMP * before) & (after > before + LEAST)).sum())
    lowest = float(train.min())
    return jumps >= JUMPS or bool(_end(train).min() > max(RISEN * lowest, lowest + LEAST))


def _turned(train: Floats, val: Floats) -> bool:
    best, end = int(val.argmin()), _end(val).min()
    risen = end > max(TURNED * float(val[best]), float(val[best]) + LEAST)
    return bool(risen and _end(train).min() < train[best])


def _falls(values: Floats) -> bool:
    half = values[-max(SHORT, math.ceil(len(values) / 2)) :]
    x = np.arange(len(half), dtype=np.float64)
    slope, start = np.polyfit(x, half, 1)
    scatter = float(np.sqrt(((half - (start + slope * x)) ** 2).sum() / (len(half) - 2)))
    fall = float(-slope * x[-1])
    return fall > max(FALL * float(start), LITTLE, SCATTER * scatter)
