"""Accuracy of a model on changed pictures: adversarial attacks and everyday corruptions."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

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
    RobustnessResults,
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


@dataclass(frozen=True)
class ConditionResult:
    """Accuracy under one change. neighbours: None without training rows."""

    accuracy: Estimate
    neighbours: Neighbours | None = None


@dataclass(frozen=True)
class Robustness:
    """rows: pictures tried. known: training rows for neighbours. attacked: by epsilon, in levels of
    255. corrupted: by the corruption's name and strength."""

    plan: RobustnessPlan
    rows: int
    known: int = 0
    attacked: Mapping[int, ConditionResult] = field(default_factory=dict)
    corrupted: Mapping[tuple[str, int], ConditionResult] = field(default_factory=dict)

    @property
    def planned(self) -> int:
        """How many conditions there are to try, the unchanged pictures among them."""
        return len(self.plan.levels) + len(set(self.plan.corruptions)) * len(STRENGTHS)

    @property
    def finished(self) -> bool:
        return len(self.attacked) + len(self.corrupted) == self.planned

    @property
    def results(self) -> RobustnessResults:
        """The content of robustness.json."""
        return RobustnessResults(
            self.rows,
            self.finished,
            Settings.of(self.plan),
            NeighbourCount(min(NEAREST, self.known), self.known),
            tuple(UnderAttack(e, h.accuracy, h.neighbours) for e, h in self.attacked.items()),
            tuple(
                UnderCorruption(*which, held.accuracy, held.neighbours)
                for which, held in self.corrupted.items()
            ),
        )

    def to_plain(self) -> dict[str, Any]:
        """Return `results`, ready for JSON."""
        return self.results.to_plain()


def robustness(
    model: GradModel,
    squares: Squares,
    labels: Labels,
    plan: RobustnessPlan | None = None,
    *,
    known: FeatureTable | None = None,
    runtime: Runtime = ON_CPU,
    listener: Listener | None = None,
) -> Robustness:
    """Measure accuracy, and how nearest neighbours change, under each condition of the plan.

    squares: (N, S, S, 3), the network's inputs; all of them are changed (`drawn` selects fewer).
    labels: (N,) numbers of the model's classes. known: features of training rows, to find the
    nearest neighbours among.
    """
    *_, last = trials(model, squares, labels, plan, known=known, runtime=runtime, listener=listener)
    return last


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
    """Yield the results of `robustness` after each condition; the caller may stop early.

    A picture misclassified at one epsilon counts as misclassified at all larger ones, so that
    accuracy never rises with epsilon.
    """
    plan, listener = plan or RobustnessPlan(), listener or Listener()
    _check(model, squares, labels)
    squares, labels = np.ascontiguousarray(squares), np.ascontiguousarray(labels, np.int64)
    runtime = runtime.resolved()
    trial = _Trial(model, labels, runtime, known)
    found = Robustness(plan, len(labels), 0 if known is None else len(known))
    for levels, changed, right in _attacks(model, squares, labels, plan, listener):
        held = trial.held(right, changed)
        found = replace(found, attacked={**found.attacked, levels: held})
        yield found
    for which, made in _corruptions(squares, plan, runtime, listener):
        held = trial.answered(made)
        found = replace(found, corrupted={**found.corrupted, which: held})
        yield found


def robustness_rows(
    found: Robustness,
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return two tables to print: one row per epsilon, and one row per corruption or []."""
    attacked = list[tuple[str, ...]]()
    attacked.append(("epsilon", "accuracy", "nearest still the same", "nearest of its own class"))
    for levels, held in found.attacked.items():
        attacked.append((f"{levels}/{LEVELS}", str(held.accuracy), *_moved(held.neighbours)))
    corrupted = [("", *map(str, STRENGTHS), "mean")] if found.corrupted else []
    for name in dict.fromkeys(name for name, _ in found.corrupted):
        shares = [h.accuracy.value for (n, _), h in found.corrupted.items() if n == name]
        told = [f"{share:.3f}" for share in shares] + [""] * (len(STRENGTHS) - len(shares))
        corrupted.append((name.replace("_", " "), *told, f"{np.mean(shares):.3f}"))
    return attacked, corrupted


def _moved(neighbours: Neighbours | None) -> tuple[str, str]:
    if neighbours is None:
        return "n/a", "n/a"
    return f"{neighbours.same:.3f}", f"{neighbours.own:.3f}"


def drawn(labels: Labels, rows: int, seed: int = 0) -> NDArray[np.intp]:
    """Draw `rows` row numbers, sorted, each class keeping its share; 0 or too many takes all."""
    if not 0 < rows < len(labels):
        return np.arange(len(labels))
    rng, share = np.random.default_rng(seed), np.empty(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        share[own] = (np.arange(len(own)) + 0.5) / len(own)
    return np.sort(np.argsort(share, kind="stable")[:rows])


def _check(model: GradModel, squares: Squares, labels: Labels) -> None:
    size, classes = model.input.size, len(model.classes)
    if squares.shape != (len(labels), size, size, 3) or not len(labels):
        raise Mismatch(
            f"{model.name} is tried on one or more squares (N, {size}, {size}, 3), each with a "
            f"label; got {squares.shape} and {len(labels)} labels."
        )
    if not 0 <= labels.min() <= labels.max() < classes:
        raise Mismatch(f"Labels count from 0 to {classes - 1}; got {sorted(set(labels.tolist()))}.")


@dataclass(frozen=True, eq=False)
class _Known:
    """Training rows. rows: (M, D) of length 1. labels: (M,) numbers of the model's classes, -1 for
    a class that it lacks."""

    rows: NDArray[np.float32]
    labels: Labels

    @classmethod
    def of(cls, table: FeatureTable, classes: tuple[str, ...]) -> "_Known":
        place = {name: number for number, name in enumerate(classes)}
        there = np.array([place.get(name, -1) for name in table.classes], np.int64)
        return cls(unit(table.x), there[table.y])

    def nearest(self, x: NDArray[np.float32]) -> Rows:  # (N, D) -> (N, NEAREST)
        alike = unit(x) @ self.rows.T
        return np.argsort(-alike, axis=1, kind="stable")[:, :NEAREST]


class _Trial:
    """Measures a model on one set of changed squares after the other."""

    def __init__(
        self, model: GradModel, labels: Labels, runtime: Runtime, known: FeatureTable | None
    ) -> None:
        self.labels, self.forward = labels, Forward(model, runtime)
        self.known = _Known.of(known, model.classes) if known else None
        self.before: Rows | None = None  # of the unchanged pictures, the first condition

    def answered(self, squares: Iterable[NDArray[np.uint8]]) -> ConditionResult:
        """Predict the classes of a stream of squares and measure them."""
        x = self.forward.features(squares)
        answers = self.forward.logits_of(x).argmax(dim=1).numpy()
        return ConditionResult(_share(answers == self.labels), self._neighbours(x))

    def held(self, right: NDArray[np.bool_], squares: Squares) -> ConditionResult:
        """Measure squares whose predictions are known to be right or wrong."""
        moved = self._neighbours(self.forward.features(squares)) if self.known else None
        return ConditionResult(_share(right), moved)

    def _neighbours(self, x: NDArray[np.float32]) -> Neighbours | None:
        if self.known is None:
            return None
        rows = self.known.nearest(x)
        if self.before is None:
            self.before = rows
        same = [len({*a} & {*b}) / len(a) for a, b in zip(rows, self.before, strict=True)]
        own = self.known.labels[rows] == self.labels[:, None]
        return Neighbours(float(np.mean(same)), float(own.mean()))


def _attacks(
    model: GradModel,
    squares: Squares,
    labels: Labels,
    plan: RobustnessPlan,
    listener: Listener,
) -> Iterator[tuple[int, Squares, NDArray[np.bool_]]]:
    """Yield for each epsilon, in levels, the attacked pictures and which are still right.

    Only pictures that are still right are attacked further: first in a few steps, which is enough
    for most, then in all.
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
    """Return the attacked squares, uint8: within reach, where another class leads most."""
    return perturb(
        lambda pixels: -lead(model.logits(pixels), truth), torch.from_numpy(squares), attack, stream
    ).to(torch.uint8)


def _right(model: GradModel, squares: Tensor, truth: Tensor) -> NDArray[np.bool_]:
    with torch.inference_mode():
        return (model.logits(squares).argmax(dim=1) == truth).numpy()


def _corruptions(
    squares: Squares, plan: RobustnessPlan, runtime: Runtime, listener: Listener
) -> Iterator[tuple[tuple[str, int], Iterator[NDArray[np.uint8]]]]:
    """Yield each corruption and strength with a lazy stream of its squares."""
    names = list(dict.fromkeys(plan.corruptions))
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
        yield (name, strength), made(name, strength, number * len(squares))
        if number == 0:
            seconds = (time.perf_counter() - began) * len(conditions)
            listener.expect("corrupted", total, seconds)


def _parts(rows: int) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, rows, BATCH))


def _share(right: NDArray[np.bool_]) -> Estimate:
    return cast(Estimate, wilson(int(right.sum()), len(right)))  # there is at least one row
