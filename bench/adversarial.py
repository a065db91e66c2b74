"""Adversarial fine-tuning: accuracy with and without attack, and the time it takes.

    python bench/adversarial.py [--size 224] [--cells 2624] [--epsilon 2] [--epochs 5] [--lr 1e-4]

The demo's solar cells, its head and its augmentation; from that head on, fine-tuning as the demo
has it and `FineTune(adversarial=epsilon/255)`. Then the same test cells, as they are and each
changed by up to 1, 2, 4 and 8 of 255 levels a value as 20 steps of projected gradient ascent find
best. A cell that is called wrong, clean or within a smaller reach, counts as wrong within a larger
one. The last line of the table always answers with the commonest class.
"""

import time
from argparse import Namespace

import numpy as np
from harness import Bench

import headstart as hs
from headstart.data.splits import split
from headstart.evaluation.evaluation import evaluate
from headstart.explaining.pixels.grad_model import grad_model_of
from headstart.explaining.pixels.robust import trials
from headstart.explaining.pixels.squares import input_squares, stratified_rows
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.fitting import fit
from headstart.specs import Augment, FeatureExtraction, FineTune, RobustnessPlan

LEVELS = (1, 2, 4, 8)  # of 255
PLAN = RobustnessPlan(epsilons=tuple(n / 255 for n in LEVELS), steps=20, corruptions=())
AUGMENT = Augment(flip="both", quarter_turns=True, views=4)  # the demo's


def main() -> None:
    bench = Bench("adversarial", __doc__)
    args = arguments(bench)
    data = split(some(solar_cells(), args.cells))
    hardened = FineTune(
        adversarial=args.epsilon / 255,
        adversarial_steps=args.steps,
        epochs=args.epochs,
        batch_size=16,
        lr=args.lr,
        clip=1.0,
        thaw=args.thaw,
    )
    recipe = FeatureExtraction(fit="squash", size=args.size)
    head = fit(recipe, args.backbone, data, views=AUGMENT).model
    test = some(data.test, args.test)
    models = {"head": (head, 0.0)}
    plain = FineTune(epochs=args.epochs, lr=2e-4)  # the demo's
    for name, settings in {"fine-tuned": plain, "adversarially": hardened}.items():
        models[name] = timed(settings, head, data)
        print(name, "trained in", round(models[name][1]), "s", flush=True)
    rows = [row(name, *found, data.test, test) for name, found in models.items()]
    rows.append(always(data.test, test))
    bench.report(rows, facts(rows, args.epsilon, len(test)))


def arguments(bench: Bench) -> Namespace:
    bench.flag("--size", type=int, default=224, quick=32, help="pixels of a side")
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    bench.flag("--cells", type=int, default=10**6, quick=160, help="to split, at most")
    bench.flag("--test", type=int, default=100, quick=6, help="test cells to attack, at most")
    bench.flag("--epsilon", type=int, default=2, help="of 255, to train within")
    bench.flag("--steps", type=int, default=2, help="of the attack in training")
    bench.flag("--epochs", type=int, default=5, quick=1, help="of both trainings")
    bench.flag("--lr", type=float, default=1e-4)
    bench.flag("--thaw", default="all")
    return bench.arguments()


def some(data: hs.Dataset, most: int) -> hs.Dataset:
    """Up to so many rows, each class with its share."""
    return data.take(stratified_rows(data.y, most))


def timed(settings: FineTune, head: hs.Model, data: hs.Splits) -> tuple[hs.Model, float]:
    """A model fine-tuned from the head, and the seconds that took."""
    began = time.perf_counter()
    model = fit(settings, head, data, views=AUGMENT).model
    return model, time.perf_counter() - began


def row(
    name: str, model: hs.Model, seconds: float, every: hs.Dataset, few: hs.Dataset
) -> dict[str, object]:
    """Accuracy on all test cells, and on few of them within each reach."""
    clean = evaluate(model.predict(every, store=None)).accuracy
    assert clean is not None
    grad_model = grad_model_of(model)
    *_, found = trials(grad_model, input_squares(grad_model.input, few).squares, few.y, PLAN)
    reach = {f"{each.levels}/255": round(each.accuracy.value, 3) for each in found.attacked}
    return {"model": name, "all test cells": str(clean), **reach, "training s": round(seconds, 1)}


def always(every: hs.Dataset, few: hs.Dataset) -> dict[str, object]:
    shares = [round(int(np.bincount(part.y).max()) / len(part), 3) for part in (every, few)]
    reach = {f"{n}/255": shares[1] for n in (0, *LEVELS)}
    return {"model": "commonest class", "all test cells": f"{shares[0]}", **reach}


def facts(rows: list[dict[str, object]], epsilon: int, attacked: int) -> dict[str, object]:
    """What was gained and what it cost, clean accuracy first."""
    plain, hard = rows[1], rows[2]
    column = f"{epsilon}/255"
    before, after = float(str(plain[column])), float(str(hard[column]))
    return {
        "attacked cells": attacked,
        "clean accuracy lost on them": float(str(plain["0/255"])) - float(str(hard["0/255"])),
        "accuracy under attack, times (at least 2)": after / max(before, 1 / attacked),
        "training, times": float(str(hard["training s"])) / float(str(plain["training s"])),
    }


if __name__ == "__main__":
    main()
