"""Accuracy of a model on changed pictures: adversarial attacks and everyday corruptions."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.base.errors import Mismatch
from headstart.base.listener import Listener
from headstart.base.runtime import ON_CPU, Runtime
from headstart.base.threads import ordered_map
from headstart.base.values import Settings
from headstart.evaluation.evaluation import Estimate, wilson
from headstart.explaining.pixels.corruptions import STRENGTHS, corrupt
from headstart.explaining.pixels.forward import Forward
from headstart.explaining.pixels.grad_model import GradModel, Squares
from headstart.explaining.pixels.robust_plan import RobustnessPlan
from headstart.explaining.pixels.robustness import (
    NeighbourCount,
    Neighbours,
    Robustness,
    UnderAttack,
    UnderCorruption,
)
from headstart.features.extract import FeatureTable
from headstart.heads.nearest import unit
from headstart.training.attack import LEVELS, Attack
from headstart.training.attacked import lead, perturb

NEAREST = 10  # nearest training rows that are compared before and after a change
BATCH = 16  # pictures attacked at once; larger batches gain nothing on a CPU
FEW = 4  # steps of the first, short attack
STEP = 3  # cost of an attack step (forward and backward), in forward passes
Labels = NDArray[np.int64]  # (N,)
Rows = NDArray[np.intp]  # (N, NEAREST) of the training rows
Measured = tuple[Estimate, Neighbours | None]  # accuracy; neighbours, None without training rows


def trials(
    model: GradModel,
    squares: Squares,
    labels: Labels,
    plan: RobustnessPlan | None = None,
    *,
    known: FeatureTable | None = None,
    runtime: Runtime = ON_CPU,
    listener: Listener | None = None,
) -> Iterator[Robustness]:
    """Measure accuracy, and how nearest neighbours change, under each condition of the plan.

    Yields the results so far after each condition; the caller may stop early. A picture that is
    misclassified at one epsilon counts as misclassified at all larger ones, so that accuracy never
    rises with epsilon.

    squares: (N, S, S, 3), the network's inputs; all of them are changed. labels: (N,) numbers of
    the model's classes. known: features of training rows, to find the nearest neighbours among.
    """
    plan, listener = plan or RobustnessPlan(), listener or Listener()
    _check(model, squares, labels)
    squares, labels = np.ascontiguousarray(squares), np.ascontiguousarray(labels, np.int64)
    runtime = runtime.resolved()
    trial = _Trial(model, labels, runtime, known)
    rows = 0 if known is None else len(known)
    near = NeighbourCount(min(NEAREST, rows), rows)
    results = Robustness(len(labels), False, Settings.of(plan), near)
    for levels, changed, right in _attacks(model, squares, labels, plan, listener):
        result = UnderAttack(levels, *trial.measure(right, changed))
        results = replace(results, attacked=(*results.attacked, result))
        yield (results := replace(results, finished=results.tried == plan.conditions))
    for name, strength, stream in _corruptions(squares, plan, runtime, listener):
        own = UnderCorruption(name, strength, *trial.predict(stream))
        results = replace(results, corrupted=(*results.corrupted, own))
        yield (results := replace(results, finished=results.tried == plan.conditions))


def _check(model: GradModel, squares: Squares, labels: Labels) -> None:
    size, classes = model.input.size, len(model.classes)
    if squares.shape != (len(labels), size, size, 3) or not len(labels):
        raise Mismatch(
            f"{model.name} is tried on one or more squares (N, {size}, {size}, 3), each with a "
            f"label; got {squares.shape} and {len(labels)} labels."
        )
    if not 0 <= labels.min() <= labels.max() < classes:
        raise Mismatch(f"Labels count from 0 to {classes - 1}; got {sorted(set(labels.tolist()))}.")


class _Trial:
    """Measures a model on one set of changed squares after the other.

    known: training rows to find neighbours among, None without any.
    """

    def __init__(
        self, model: GradModel, labels: Labels, runtime: Runtime, known: FeatureTable | None
    ) -> None:
        self.labels, self.forward = labels, Forward(model, runtime)
        self.known = unit(known.x) if known else None  # (M, D)
        self.known_labels = model.renumbered(known.classes, known.y) if known else labels
        self.before: Rows | None = None  # of the unchanged pictures, the first condition

    def predict(self, squares: Iterable[NDArray[np.uint8]]) -> Measured:
        """Predict the classes of a stream of squares and measure them."""
        x = self.forward.features(squares)
        predicted = self.forward.logits_of(x).argmax(dim=1).numpy()
        return _share(predicted == self.labels), self._neighbours(x)

    def measure(self, right: NDArray[np.bool_], squares: Squares) -> Measured:
        """Measure squares whose predictions are known to be right or wrong."""
        if self.known is None:
            return _share(right), None
        return _share(right), self._neighbours(self.forward.features(squares))

    def _neighbours(self, x: NDArray[np.float32]) -> Neighbours | None:
        if self.known is None:
            return None
        alike = unit(x) @ self.known.T
        rows = np.argsort(-alike, axis=1, kind="stable")[:, :NEAREST]
        if self.before is None:
            self.before = rows
        same = [len({*a} & {*b}) / len(a) for a, b in zip(rows, self.before, strict=True)]
        own = self.known_labels[rows] == self.labels[:, None]
        return Neighbours(float(np.mean(same)), float(own.mean()))


def _attacks(
    model: GradModel,
    squares: Squares,
    labels: Labels,
    plan: RobustnessPlan,
    listener: Listener,
) -> Iterator[tuple[int, Squares, NDArray[np.bool_]]]:
    """Yield for each epsilon, in levels, the attacked pictures and which are still correct.

    Only pictures that are still classified correctly are attacked: first with FEW steps, which is
    enough for most, then with all steps.
    """
    truth, changed = torch.from_numpy(labels), squares.copy()
    began = time.perf_counter()
    parts = [_right(model, torch.from_numpy(squares[p]), truth[p]) for p in _parts(len(labels))]
    each = STEP * (time.perf_counter() - began) / len(labels)
    right = np.concatenate(parts)
    yield 0, squares, right
    for levels in plan.levels[1:]:
        for steps in sorted({min(FEW, plan.steps), plan.steps}):
            attack = Attack(levels / LEVELS, steps=steps, seed=plan.seed)
            standing, stage = np.flatnonzero(right), f"{levels}/{LEVELS} x{steps}"
            if len(standing):
                listener.expect(stage, len(standing), each * (steps + 1) * len(standing))
            for number, part in enumerate(_parts(len(standing))):
                rows = standing[part]
                worst = _worst(model, squares[rows], truth[rows], attack, number)
                right[rows], changed[rows] = _right(model, worst, truth[rows]), worst.numpy()
                listener.progress(stage, min(part.stop, len(standing)), len(standing))
        yield levels, changed, right


def _worst(
    model: GradModel, squares: Squares, truth: Tensor, attack: Attack, stream: int
) -> Tensor:
    """Return the attacked squares, uint8: within epsilon, those where another class leads most."""
    pixels, truth = torch.from_numpy(squares).to(model.device), truth.to(model.device)
    worst = perturb(lambda moved: -lead(model.logits(moved), truth), pixels, attack, stream)
    return worst.to(torch.uint8).cpu()


def _right(model: GradModel, squares: Tensor, truth: Tensor) -> NDArray[np.bool_]:
    with torch.inference_mode():
        return (model.logits(squares).argmax(dim=1).cpu() == truth).numpy()


def _corruptions(
    squares: Squares, plan: RobustnessPlan, runtime: Runtime, listener: Listener
) -> Iterator[tuple[str, int, Iterator[NDArray[np.uint8]]]]:
    """Yield each corruption and strength with a lazy stream of its squares."""
    names = dict.fromkeys(plan.corruptions)
    conditions = [(name, strength) for name in names for strength in STRENGTHS]
    total = len(conditions) * len(squares)
    began = time.perf_counter()

    def made(name: str, strength: int, done: int) -> Iterator[NDArray[np.uint8]]:
        work = ordered_map(
            lambda square: corrupt(square, name, strength, plan.seed),
            squares,
            threads=runtime.decode_threads,
            ahead=2 * BATCH,
        )
        for row, square in enumerate(work, 1):
            yield square
            listener.progress("corrupted", done + row, total)

    for number, (name, strength) in enumerate(conditions):
        yield name, strength, made(name, strength, number * len(squares))
        if number == 0:
            seconds = (time.perf_counter() - began) * len(conditions)
            listener.expect("corrupted", total, seconds)


def _parts(rows: int) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, rows, BATCH))


def _share(right: NDArray[np.bool_]) -> Estimate:
    return cast(Estimate, wilson(int(right.sum()), len(right)))  # there is at least one row
