"""Feature extraction, end to end: every engine of this machine and the usual PyTorch loop.

    python bench/extract.py [--images 600] [--heavy-images 160] [--rounds 3]

For each backbone, by turns and in one process: `extract` on JPEGs of 500 x 375 with each engine and
precision that this machine can use, and the usual loop (PyTorch, a DataLoader with 2 workers, the
same preprocessing), channels-last, channels-last with bfloat16 autocast, and in the default layout
(once). Decoding alone and each engine's forward pass alone give the bound, as both share the cores:
1/(1/decode + 1/forward). What OpenVINO compiles is kept between the rounds, as it is between the
runs of a user; "opening" is what the first run adds. Rates are the medians over rounds, ratios the
medians of the rounds'.

The second table is of differences: each engine's features of two labelled sets against PyTorch in
float32 (cosine, largest), and the test accuracy of a logistic head on them over three splits.
"""

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from harness import Bench
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.graph import freeze
from headstart.backbones.inputs import Encoded
from headstart.base.engine_choice import EngineChoice
from headstart.base.runtime import Runtime, cores
from headstart.base.threads import ordered_map
from headstart.features.engine_table import ENGINES, TRIED, FrozenPart, open_engine
from headstart.features.engines import Engine, TorchEngine, cosines
from headstart.features.extract import COMPILED, extract
from headstart.heads.head import Rows
from headstart.heads.logistic import logistic_trials
from headstart.heads.specs import LogisticSpec
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.images.inputs import ImageInput, of_pictures

BACKBONES = (
    ("packaged:efficientnet_lite0", "pretrained"),
    ("timm:resnet50", "random"),
    ("timm:vit_small_patch16_224", "random"),
)
WIDE, HIGH, QUALITY = 500, 375, 90  # of the JPEGs
RUNTIME = Runtime(device="cpu").resolved()
AT_ONCE = 8  # examples in the forward pass alone
POINTS = 0.003  # accuracy that another engine may cost or gain


class Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """What the tutorials write: one normalised float tensor a picture."""

    def __init__(self, data: hs.Dataset, preprocess: ImageInput) -> None:
        self.data, self.preprocess = data, preprocess
        self.mean = torch.tensor(preprocess.mean)[:, None, None]
        self.std = torch.tensor(preprocess.std)[:, None, None]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> torch.Tensor:
        square = square_of(self.preprocess, self.data.sources[i])
        x = torch.from_numpy(square.copy()).permute(2, 0, 1).float() / 255
        return (x - self.mean) / self.std


def jpegs(count: int) -> hs.Dataset:
    """JPEGs of 500 x 375: windows anywhere on scikit-learn's two photographs, mirrored or not."""
    photos, rng = load_sample_images().images, np.random.default_rng(0)
    files = []
    for i in range(count):
        photo = photos[i % len(photos)][:, :: rng.choice([1, -1])]
        top, left = (rng.integers(0, n + 1) for n in (len(photo) - HIGH, len(photo[0]) - WIDE))
        file = io.BytesIO()
        window = Image.fromarray(np.ascontiguousarray(photo[top : top + HIGH, left : left + WIDE]))
        window.save(file, "JPEG", quality=QUALITY)
        files.append(Encoded(f"{i}.jpg", file.getvalue()))
    names = tuple(file.name for file in files)
    return hs.Dataset(names, tuple(files), tuple(i % 2 for i in range(count)), ("china", "flower"))


def square_of(preprocess: ImageInput, source: Any) -> NDArray[np.uint8]:
    data = source.data if isinstance(source, Encoded) else source
    return preprocess(decode(data, short_side=preprocess.short_side))


@torch.inference_mode()
def usual_loop(
    backbone: Backbone, data: hs.Dataset, layout: torch.memory_format, *, narrow: bool = False
) -> Any:
    """Eager PyTorch, batches of 32 from two worker processes; narrow: in bfloat16 autocast."""
    module = backbone.module.to(memory_format=layout)
    loader = torch.utils.data.DataLoader(
        Pictures(data, of_pictures(backbone.card.input)), batch_size=32, num_workers=2
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        return torch.cat([module(x.to(memory_format=layout)) for x in loader]).float().numpy()


def decode_only(preprocess: ImageInput, data: hs.Dataset) -> None:
    for _ in ordered_map(partial(square_of, preprocess), data.sources, threads=cores(), ahead=48):
        pass


def forward_only(engine: Engine, squares: NDArray[np.uint8], n: int) -> None:
    for _ in range(0, n, len(squares)):
        engine({"pixels": squares})


def ours(own: Any, data: hs.Dataset, choice: EngineChoice, folder: Path) -> None:
    """`extract` into an empty store, which keeps only what an engine has compiled earlier."""
    for path in folder.glob("*"):
        if path.name != COMPILED:
            shutil.rmtree(path)
    extract(own, data, store=hs.Store(folder), runtime=runtime_of(choice))


def rate(work: Callable[[], Any], n: int) -> float:
    began = time.perf_counter()
    work()
    return n / (time.perf_counter() - began)


def engines_of(backbone: Backbone) -> list[EngineChoice]:
    """The engines and precisions that this machine can use for a backbone."""
    return [c for c in TRIED if ENGINES[c.engine].can_run(backbone, c.precision)]


def runtime_of(choice: EngineChoice) -> Runtime:
    precision: Any = choice.precision
    engine: Any = choice.engine
    return replace(RUNTIME, engine=engine, compute_precision=precision)


def measure(
    name: str, weights: str, data: hs.Dataset, rounds: int, folder: Path
) -> list[dict[str, object]]:
    """Return a row for each engine on a backbone: rates and ratios. folder: for stores."""
    backbone, n = hs.load_backbone(name, weights=weights), len(data)
    eats, graph = of_pictures(backbone.card.input), freeze(backbone)
    squares = np.stack([square_of(eats, s) for s in data.sources[:AT_ONCE]])
    layouts = {"channels-last": torch.channels_last, "default": torch.contiguous_format}
    ways: dict[str, Callable[[], Any]] = {
        "channels-last": partial(usual_loop, backbone, data, layouts["channels-last"]),
        "bfloat16 loop": partial(usual_loop, backbone, data, layouts["channels-last"], narrow=True),
        "decode": partial(decode_only, eats, data),
    }
    opening = dict[str, float]()
    for choice in engines_of(backbone):
        own = graph if ENGINES[choice.engine].takes_graphs else backbone
        began = time.perf_counter()
        kept = folder / name.replace(":", "-") / choice.name
        engine = open_engine(FrozenPart(own, RUNTIME, cache=kept / COMPILED), choice)
        engine({"pixels": squares})
        opening[choice.name] = time.perf_counter() - began
        ways[f"{choice.name} forward"] = partial(forward_only, engine, squares, n)
        ways[choice.name] = partial(ours, own, data, choice, kept)
    done = [{way: rate(work, n) for way, work in ways.items()} for _ in range(rounds)]
    default = rate(partial(usual_loop, backbone, data, layouts["default"]), n)
    rows = list[dict[str, object]]()
    for engine_name, seconds in opening.items():
        forward = f"{engine_name} forward"
        rows.append(
            {
                "backbone": name,
                "engine": engine_name,
                "images": n,
                "headstart": _median(r[engine_name] for r in done),
                "decode": _median(r["decode"] for r in done),
                "forward": _median(r[forward] for r in done),
                "channels-last": _median(r["channels-last"] for r in done),
                "bfloat16 loop": _median(r["bfloat16 loop"] for r in done),
                "default": default,
                "against channels-last": _median(r[engine_name] / r["channels-last"] for r in done),
                "against bfloat16 loop": _median(r[engine_name] / r["bfloat16 loop"] for r in done),
                "against default": _median(r[engine_name] / default for r in done),
                "of the bound": _median(
                    r[engine_name] * (1 / r["decode"] + 1 / r[forward]) for r in done
                ),
                "opening, s": seconds,
            }
        )
        print(rows[-1], flush=True)
    return rows


def differences(name: str, sets: dict[str, hs.Dataset], seeds: int) -> list[dict[str, object]]:
    """Return a row for each engine and data set: what it changes."""
    backbone, rows = hs.load_backbone(name), list[dict[str, object]]()
    torch_engine = TorchEngine(backbone, "cpu")
    for title, data in sets.items():
        few = data.take(range(0, len(data), -(-len(data) // 64)))
        eats, exact = of_pictures(backbone.card.input), list[NDArray[np.float32]]()
        squares = np.stack([square_of(eats, s) for s in few.sources])
        exact = [torch_engine({"pixels": squares[i : i + 16]})[0] for i in range(0, len(few), 16)]
        reference, scores = np.concatenate(exact), dict[str, list[float]]()
        for choice in engines_of(backbone):
            table = extract(backbone, data, runtime=runtime_of(choice))
            own = table.of(few).x
            scores[choice.name] = [accuracy(table.x, data, seed) for seed in range(seeds)]
            first = next(iter(scores.values()))
            rows.append(
                {
                    "data": title,
                    "engine": choice.name,
                    "smallest cosine": float(cosines(own, reference).min()),
                    "largest difference": float(np.abs(own - reference).max()),
                    "of the largest feature": float(
                        np.abs(own - reference).max() / np.abs(reference).max()
                    ),
                    "accuracy": mean(scores[choice.name]),
                    "points to float32": 100 * (mean(scores[choice.name]) - mean(first)),
                }
            )
            print(rows[-1], flush=True)
    return rows


def accuracy(x: NDArray[np.float32], data: hs.Dataset, seed: int) -> float:
    """The accuracy of a logistic head on a quarter of the rows, another quarter by seed."""
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = np.split(order, [len(x) // 4])
    target = data.target.fitted(data.y[train])
    rows = Rows(x[train], data.y[train], target)
    (trial,) = logistic_trials(LogisticSpec(l2=(0.03,)), rows, x[test])
    return float(target.row_scores(trial.answers, data.y[test]).mean())


def digits(count: int) -> hs.Dataset:
    """scikit-learn's handwritten digits, 8 x 8, as PNGs of 96 x 96."""
    found, files = load_digits(), list[Encoded]()
    for i, pixels in enumerate(found.images[:count]):
        grey = np.kron((pixels * 15.9).astype(np.uint8), np.ones((12, 12), np.uint8))
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "PNG")
        files.append(Encoded(f"{i}.png", file.getvalue()))
    labels = tuple(found.target[:count].tolist())
    names = tuple(str(digit) for digit in range(10))
    return hs.Dataset(tuple(f.name for f in files), tuple(files), labels, names)


def _median(values: Iterable[float]) -> float:
    return float(median(values))


def best_by_backbone(rows: Sequence[dict[str, Any]]) -> dict[str, object]:
    """The fastest engine of each backbone, and its ratios."""
    found = dict[str, object]()
    for name in dict.fromkeys(row["backbone"] for row in rows):
        best = max((r for r in rows if r["backbone"] == name), key=lambda r: r["headstart"])
        short = name.partition(":")[2]
        found[f"{short}: fastest engine"] = best["engine"]
        for key in ("against channels-last", "against bfloat16 loop", "of the bound"):
            found[f"{short}: {key}"] = best[key]
    return found


def main() -> None:
    bench = Bench("extract", __doc__)
    bench.flag("--images", type=int, default=600, quick=16)
    bench.flag(
        "--heavy-images", type=int, default=160, quick=0, help="for the larger backbones, if any"
    )
    bench.flag("--rounds", type=int, default=3, quick=1)
    bench.flag("--rows", type=int, default=10**6, quick=64, help="of each labelled set, at most")
    bench.flag("--splits", type=int, default=3, quick=1)
    args = bench.arguments()
    torch.set_num_threads(cores())
    rows = list[dict[str, object]]()
    for i, (name, weights) in enumerate(BACKBONES if args.heavy_images else BACKBONES[:1]):
        data = jpegs(args.heavy_images if i else args.images)
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, weights, data, 1 if i else args.rounds, Path(folder))
    cells = solar_cells()
    sets = {
        "solar cells": cells.take(range(0, len(cells), -(-len(cells) // args.rows))),
        "digits": digits(args.rows),
    }
    changed = differences(BACKBONES[0][0], sets, args.splits)
    most = max(abs(float(str(row["points to float32"]))) for row in changed)
    figures = best_by_backbone(rows) | {
        "largest change of accuracy, points": most,
        f"accuracy within {100 * POINTS:g} points": most <= 100 * POINTS,
    }
    bench.report(rows, {"unit": "images/s", **figures}, more={"differences": changed})


if __name__ == "__main__":
    main()
