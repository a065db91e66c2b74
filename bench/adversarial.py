"""Does adversarial fine-tuning pay? Accuracy under attack, with it and without, and what it costs.

    python bench/adversarial.py [--size 224] [--cells 2624] [--epsilon 2] [--epochs 5] [--lr 1e-4]

The demo's solar cells, its head and its augmentation; from that head on, fine-tuning as the demo
has it and `FineTune(adversarial=epsilon/255)`. Then the same test cells, as they are and each
changed by up to 1, 2, 4 and 8 of 255 levels a value as 20 steps of projected gradient ascent find
best. A cell that is called wrong, clean or within a smaller reach, counts as wrong within a larger
one. The last line of the table always answers with the commonest class.
"""

import argparse
import time

import numpy as np
from tables import report

import headstart as hs

LEVELS = (1, 2, 4, 8)  # of 255
PLAN = hs.RobustnessPlan(epsilons=tuple(n / 255 for n in LEVELS), steps=20, corruptions=())
AUGMENT = hs.Augment(flip="both", quarter_turns=True, views=4)  # the demo's
DEMO = hs.FineTune(epochs=5, lr=2e-4)  # the demo's


def main() -> None:
    args = arguments()
    data = hs.split(some(hs.solar_cells(), args.cells))
    hardened = hs.FineTune(
        adversarial=args.epsilon / 255,
        adversarial_steps=args.steps,
        epochs=args.epochs,
        batch_size=16,
        lr=args.lr,
        clip=1.0,
        thaw=args.thaw,
    )
    recipe = hs.FeatureExtraction(fit="squash", size=args.size)
    head = hs.fit(recipe, hs.DEFAULT_BACKBONE, data, augment=AUGMENT)
    test = some(data.test, args.test)
    models = {"head": (head, 0.0)}
    for name, settings in {"fine-tuned": DEMO, "adversarially": hardened}.items():
        models[name] = timed(settings, head, data)
        print(name, "trained in", round(models[name][1]), "s", flush=True)
    rows = [row(name, *found, data.test, test) for name, found in models.items()]
    rows.append(always(data.test, test))
    report("adversarial", rows, facts(rows, args.epsilon, len(data.test), len(test)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=224, help="pixels of a side")
    parser.add_argument("--cells", type=int, default=10**6, help="to split, at most")
    parser.add_argument("--test", type=int, default=100, help="test cells to attack, at most")
    parser.add_argument("--epsilon", type=int, default=2, help="of 255, to train within")
    parser.add_argument("--steps", type=int, default=2, help="of the attack in training")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--thaw", default="all")
    return parser.parse_args()


def some(data: hs.Dataset, most: int) -> hs.Dataset:
    """Up to so many rows, each class with its share."""
    return data.take(hs.drawn(data.y, most))


def timed(settings: hs.FineTune, head: hs.Model, data: hs.Splits) -> tuple[hs.Model, float]:
    """A model fine-tuned from the head, and the seconds that took."""
    began = time.perf_counter()
    model = hs.fit(settings, head, data, augment=AUGMENT)
    return model, time.perf_counter() - began


def row(
    name: str, model: hs.Model, seconds: float, every: hs.Dataset, few: hs.Dataset
) -> dict[str, object]:
    """Accuracy on all test cells, and on few of them within each reach."""
    clean = hs.evaluate(model.predict(every, store=None)).accuracy
    assert clean is not None
    lens = hs.lens_of(model)
    found = hs.robustness(lens, hs.squared(lens.preprocess, few).squares, few.y, PLAN)
    reach = {f"{n}/255": round(held.accuracy.value, 3) for n, held in found.attacked.items()}
    return {"model": name, "all test cells": str(clean), **reach, "training s": round(seconds, 1)}


def always(every: hs.Dataset, few: hs.Dataset) -> dict[str, object]:
    shares = [round(int(np.bincount(part.y).max()) / len(part), 3) for part in (every, few)]
    reach = {f"{n}/255": shares[1] for n in (0, *LEVELS)}
    return {"model": "commonest class", "all test cells": f"{shares[0]}", **reach}


def facts(
    rows: list[dict[str, object]], epsilon: int, every: int, attacked: int
) -> dict[str, object]:
    """What was gained and what it cost, clean accuracy first."""
    plain, hard = rows[1], rows[2]
    column = f"{epsilon}/255"
    before, after = float(str(plain[column])), float(str(hard[column]))
    return {
        "trained within": column,
        "test cells": every,
        "attacked": attacked,
        "clean accuracy lost on them": float(str(plain["0/255"])) - float(str(hard["0/255"])),
        "accuracy under attack, times (at least 2)": after / max(before, 1 / attacked),
        "training, times": float(str(hard["training s"])) / float(str(plain["training s"])),
    }


if __name__ == "__main__":
    main()
