"""Attacks on solar cells: are the saved files, changed by a few levels, misclassified?

    python bench/attack.py [RUN] [--cells 50] [--outside 16]

RUN is a run on the built-in solar cells, such as `headstart demo` leaves; without one a head is
fitted first. Its test cells go through `headstart attack` and what comes of them through
`headstart predict`, as files. Then, on the squares that the network is given, an independent
library (ART) attacks the same cells within the same epsilon: by gradients (PGD), and without any
(Square Attack, Andriushchenko et al. 2020), which does better only where gradients are masked.
"""

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent, SquareAttack
from art.estimators.classification import PyTorchClassifier
from cells import demo
from harness import Bench
from numpy.typing import NDArray
from torch import Tensor, nn

import headstart as hs
from headstart.cli.main import main as headstart
from headstart.explaining.pixels.grad_model import GradModel, grad_model_of
from headstart.modalities.images.decoding import decode
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.bundle import load_bundle
from headstart.specs import Attack
from headstart.training.attacked import lead, perturb

ATTACKS = {
    "PGD, 4/255": ["--epsilon", "4/255"],
    "PGD, 1/255": ["--epsilon", "1/255"],
    "FGSM, 4/255": ["--epsilon", "4/255", "--steps", "1"],
    "PGD, L2 of 1": ["--norm", "l2", "--epsilon", "1"],
}
LEVELS = (4, 1)
QUERIES = 100  # of Square Attack, a picture
Squares = NDArray[np.uint8]  # (N, S, S, 3)


def main() -> None:
    bench = Bench("attack", __doc__)
    bench.flag("run", type=Path, nargs="?", metavar="RUN")
    bench.flag("--cells", type=int, default=50, quick=3)
    bench.flag("--outside", type=int, default=16, quick=1, help="cells for Square Attack")
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32", help="without RUN")
    bench.flag("--known", type=int, default=10**6, quick=200, help="cells to fit on, without RUN")
    args = bench.arguments()
    with tempfile.TemporaryDirectory() as folder:
        bundle, _, test = demo(args.run, Path(folder), args.backbone, args.known)
        cells = list(test.sources[:: max(1, len(test) // args.cells)][: args.cells])
        rows = list[dict[str, object]]()
        for row in measured(bundle, cells, Path(folder), args.outside):
            print(*row.values(), sep="  ", flush=True)
            rows.append(row)
        facts = {"cells": len(cells), "test accuracy before": accuracy(bundle, test)}
    bench.report(rows, facts)


def measured(
    bundle: Path, cells: list[Path], folder: Path, outside: int
) -> Iterator[dict[str, object]]:
    for name in ATTACKS:
        yield by_command(name, bundle, cells, folder)
    yield from by_library(bundle, cells, outside)


def accuracy(bundle: Path, cells: hs.Dataset) -> float:
    return float(load_bundle(bundle).model.predict(cells).correct.mean())


def by_command(name: str, bundle: Path, cells: list[Path], folder: Path) -> dict[str, object]:
    """`headstart attack`, and what `headstart predict` says of its files and of the cells."""
    began = time.perf_counter()
    out = ["--out", str(folder / name.replace("/", " of "))]
    done = told("attack", bundle, cells, *ATTACKS[name], *out)
    seconds = time.perf_counter() - began
    files = [Path(str(one["file"])) for one in done]
    before, after = told("predict", bundle, cells), told("predict", bundle, files)
    changes = [difference(*pair) for pair in zip(cells, files, strict=True)]
    pairs = list(zip(before, after, strict=True))
    return {
        "attack": f"ours, files: {name}",
        "cells": len(cells),
        "flipped": sum(best(a) != best(b) for a, b in pairs) / len(cells),
        "and answered": sum(best(a) != best(b) and b["predicted"] != "unknown" for a, b in pairs)
        / len(cells),
        "largest change": max(int(change.max()) for change in changes),
        "median L2": median(float(np.linalg.norm(change / 255)) for change in changes),
        "s a cell": seconds / len(cells),
    }


def told(command: str, bundle: Path, files: list[Path], *more: str) -> list[dict[str, object]]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = headstart([command, str(bundle), *map(str, files), *more, "--json"])
    if code:
        raise SystemExit(f"headstart {command} ended with {code}")
    found: list[dict[str, object]] = json.loads(out.getvalue())
    return found


def best(row: dict[str, object]) -> str:
    """The class of the highest score, whether or not the model says that it knows."""
    scores = row["scores"]
    assert isinstance(scores, dict)
    return max(scores, key=lambda name: float(scores[name]))


def difference(before: Path, after: Path) -> NDArray[np.int16]:
    return np.abs(decode(before).astype(np.int16) - decode(after))


class Outside(nn.Module):
    """A model as ART takes it: (N, 3, S, S), 0 to 1 -> logits."""

    def __init__(self, grad_model: GradModel) -> None:
        super().__init__()
        self.grad_model = grad_model

    def forward(self, x: Tensor) -> Tensor:
        return self.grad_model.logits((255 * x).permute(0, 2, 3, 1))


def by_library(bundle: Path, cells: list[Path], outside: int) -> Iterator[dict[str, object]]:
    """Ours and ART's on the same squares."""
    grad_model = grad_model_of(load_bundle(bundle).model)
    squares = np.stack([grad_model.input(decode(cell)) for cell in cells])
    few = squares[:outside]
    for levels in LEVELS:
        mine, reach = ours(grad_model, squares, levels), f"{levels}/255"
        pgd = by_art(
            ProjectedGradientDescent,
            grad_model,
            squares,
            levels,
            eps_step=levels / 255 / 8,
            max_iter=20,
        )
        yield row_of(f"ours, squares: PGD, {reach}", grad_model, squares, mine)
        yield row_of(f"ART, squares: PGD, {reach}", grad_model, squares, pgd)
        square = by_art(SquareAttack, grad_model, few, levels, max_iter=QUERIES)
        yield row_of(f"ours, squares: PGD, {reach}", grad_model, few, mine[:outside])
        yield row_of(f"ART, squares: Square Attack, {reach}", grad_model, few, square)
        yield row_of(f"noise, squares: {reach}", grad_model, few, noisy(few, levels))


def ours(grad_model: GradModel, squares: Squares, levels: int) -> Squares:
    def attacked(some: Tensor) -> Tensor:
        labels = grad_model.logits(some).argmax(dim=1)
        how = Attack(levels / 255)
        return perturb(lambda x: -lead(grad_model.logits(x), labels), some, how)

    parts = torch.from_numpy(squares).split(8)
    return torch.cat([attacked(part) for part in parts]).to(torch.uint8).numpy()


def by_art(
    kind: type, grad_model: GradModel, squares: Squares, levels: int, **settings: float
) -> Squares:
    np.random.seed(0)  # ART draws from NumPy's own generator
    x = (squares / 255).astype(np.float32).transpose(0, 3, 1, 2)
    outside = PyTorchClassifier(
        Outside(grad_model),
        nn.CrossEntropyLoss(),
        x.shape[1:],
        len(grad_model.classes),
        clip_values=(0, 1),
        device_type="cpu",  # where the model is
    )
    attack = kind(outside, eps=levels / 255, batch_size=8, verbose=False, **settings)
    changed: NDArray[np.float32] = attack.generate(x)
    return np.rint(255 * changed).astype(np.uint8).transpose(0, 2, 3, 1)


def noisy(squares: Squares, levels: int) -> Squares:
    signs = np.random.default_rng(0).choice([-levels, levels], squares.shape)
    return (squares + signs).clip(0, 255).astype(np.uint8)


def row_of(name: str, grad_model: GradModel, before: Squares, after: Squares) -> dict[str, object]:
    said = [
        np.concatenate([grad_model.scores(part) for part in np.array_split(squares, len(squares))])
        for squares in (before, after)
    ]
    change = np.abs(after.astype(np.int16) - before)
    return {
        "attack": name,
        "cells": len(before),
        "flipped": float((said[0].argmax(1) != said[1].argmax(1)).mean()),
        "largest change": int(change.max()),
        "median L2": float(
            np.median(np.linalg.norm((change / 255).reshape(len(change), -1), axis=1))
        ),
    }


if __name__ == "__main__":
    main()
