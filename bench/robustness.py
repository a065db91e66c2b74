"""Accuracy under attack, compared with an independent library, and under everyday damage.

    python bench/robustness.py [RUN] [--rows 100] [--outside 32]

RUN is a run on the built-in solar cells, such as `headstart demo` leaves; without one a head is
fitted first. Its test cells are attacked within each epsilon by us and, some of them, by ART's PGD
with as many steps: if that left fewer right, ours would not look hard enough. Then the ten kinds of
damage, each the mean of its five strengths, and how far the nearest training cells move.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from cells import demo
from harness import Bench
from numpy.typing import NDArray
from torch import Tensor, nn

import headstart as hs
from headstart.explaining.pixels.grad_model import GradModel, grad_model_of
from headstart.explaining.pixels.robust import trials
from headstart.explaining.pixels.robustness import Robustness, UnderAttack, UnderCorruption
from headstart.explaining.pixels.squares import input_squares, stratified_rows
from headstart.features.extract import extract
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.bundle import load_bundle
from headstart.specs import RobustnessPlan

Labels = NDArray[np.int64]
Squares = NDArray[np.uint8]  # (N, S, S, 3)


def main() -> None:
    bench = Bench("robustness", __doc__)
    bench.flag("run", type=Path, nargs="?", metavar="RUN")
    bench.flag("--rows", type=int, default=100, quick=4)
    bench.flag("--outside", type=int, default=32, quick=1, help="cells that ART attacks as well")
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32", help="without RUN")
    bench.flag("--known", type=int, default=10**6, quick=200, help="cells to fit on, without RUN")
    args = bench.arguments()
    with tempfile.TemporaryDirectory() as folder:
        bundle, train, test = demo(args.run, Path(folder), args.backbone, args.known)
        model = load_bundle(bundle).model
    grad_model, plan = grad_model_of(model), RobustnessPlan(rows=args.rows)
    tried = input_squares(grad_model.input, test.take(stratified_rows(test.y, plan.rows)))
    known = extract(model.backbone, train, store=hs.Store())
    began = time.perf_counter()
    *_, found = trials(grad_model, tried.squares, tried.data.y, plan, known=known)
    seconds = time.perf_counter() - began
    few = slice(None, None, max(1, args.rows // args.outside))
    beside = outside(grad_model, tried.squares[few], tried.data.y[few], plan)
    bench.report(
        [*attacked(found, beside), *corrupted(found)],
        {"cells": found.rows, "attacked by ART too": len(tried.data.y[few]), "seconds": seconds},
    )


def attacked(found: Robustness, beside: dict[int, tuple[float, float]]) -> list[dict[str, object]]:
    rows = list[dict[str, object]]()
    for each in found.attacked:
        row = {"change": f"attack {each.levels}/255", "accuracy": each.accuracy.value}
        row |= {"low": each.accuracy.low, "high": each.accuracy.high, **moved([each])}
        if each.levels in beside:
            row["of some, ours"], row["of some, ART"] = beside[each.levels]
        rows.append(row)
    return rows


def corrupted(found: Robustness) -> list[dict[str, object]]:
    rows = list[dict[str, object]]()
    for name in dict.fromkeys(each.name for each in found.corrupted):
        own = [each for each in found.corrupted if each.name == name]
        shares = [each.accuracy.value for each in own]
        row = {"change": name, "accuracy": float(np.mean(shares)), "worst": min(shares)}
        rows.append({**row, **moved(own)})
    return rows


def moved(results: Sequence[UnderAttack | UnderCorruption]) -> dict[str, float]:
    """Of the nearest training cells: still the same, and of the cell's own class."""
    found = [one.neighbours for one in results if one.neighbours]
    return {name: float(np.mean([getattr(n, name) for n in found])) for name in ("same", "own")}


class Outside(nn.Module):
    """A model as ART takes it: (N, 3, S, S), 0 to 1 -> logits."""

    def __init__(self, grad_model: GradModel) -> None:
        super().__init__()
        self.grad_model = grad_model

    def forward(self, x: Tensor) -> Tensor:
        return self.grad_model.logits((255 * x).permute(0, 2, 3, 1))


def outside(
    grad_model: GradModel, squares: Squares, labels: Labels, plan: RobustnessPlan
) -> dict[int, tuple[float, float]]:
    """Of each epsilon, the share that is still right after our attack and after ART's."""
    only = RobustnessPlan(epsilons=plan.epsilons, steps=plan.steps, corruptions=())
    *_, ours = trials(grad_model, squares, labels, only)
    return {
        each.levels: (
            each.accuracy.value,
            by_art(grad_model, squares, labels, each.levels, plan),
        )
        for each in ours.attacked[1:]
    }


def by_art(
    grad_model: GradModel, squares: Squares, labels: Labels, levels: int, plan: RobustnessPlan
) -> float:
    np.random.seed(0)  # ART draws from NumPy's own generator
    x = (squares / 255).astype(np.float32).transpose(0, 3, 1, 2)
    model = PyTorchClassifier(
        Outside(grad_model),
        nn.CrossEntropyLoss(),
        x.shape[1:],
        len(grad_model.classes),
        clip_values=(0, 1),
    )
    epsilon = levels / 255
    attack = ProjectedGradientDescent(
        model,
        eps=epsilon,
        eps_step=epsilon / 8,
        max_iter=plan.steps,
        num_random_init=1,
        batch_size=16,
        verbose=False,
    )
    changed = attack.generate(x, labels)
    whole = np.rint(255 * changed).astype(np.uint8).transpose(0, 2, 3, 1)
    return float((grad_model.scores(whole).argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    main()
