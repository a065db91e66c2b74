"""Feature extraction, end to end: Headstart and the usual PyTorch loop, side by side.

    python bench/extract.py [--images 1000] [--heavy-images 200] [--rounds 3]

For each backbone, in turn and in one run: `extract` (ONNX Runtime, decoding threads); the usual
loop (PyTorch eager, DataLoader with 2 workers, the same preprocessing), channels-last and in the
default layout; decoding alone; the forward pass alone. Their bound, as both share the cores, is
1/(1/decode + 1/forward). Rates are the medians over rounds, ratios the medians of the rounds'.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from harness import Bench
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.graph import freeze
from headstart.base.runtime import cores
from headstart.base.threads import ordered_map
from headstart.features.engines import OnnxEngine
from headstart.features.extract import extract
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.images.inputs import ImageInput, of_pictures

BACKBONES = (
    ("packaged:efficientnet_lite0", "pretrained"),
    ("timm:resnet50", "random"),
    ("timm:vit_small_patch16_224", "random"),
)
TARGETS = {"against channels-last": 2.5, "against default": 3.5, "of the bound": 0.9}


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


def square_of(preprocess: ImageInput, source: Any) -> NDArray[np.uint8]:
    return preprocess(decode(source, short_side=preprocess.short_side))


@torch.inference_mode()
def usual_loop(backbone: Backbone, data: hs.Dataset, layout: torch.memory_format) -> Any:
    """Eager PyTorch, batches of 32 from two worker processes."""
    module = backbone.module.to(memory_format=layout)
    loader = torch.utils.data.DataLoader(
        Pictures(data, of_pictures(backbone.card.input)), batch_size=32, num_workers=2
    )
    return torch.cat([module(x.to(memory_format=layout)) for x in loader]).numpy()


def decode_only(preprocess: ImageInput, data: hs.Dataset) -> None:
    for _ in ordered_map(partial(square_of, preprocess), data.sources, threads=cores(), ahead=48):
        pass


def forward_only(engine: OnnxEngine, squares: NDArray[np.uint8], n: int) -> None:
    for _ in range(0, n, len(squares)):
        engine({"pixels": squares})


def rate(work: Callable[[], Any], n: int) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return n / (time.perf_counter() - began), result


def measure(name: str, weights: str, data: hs.Dataset, rounds: int) -> dict[str, object]:
    backbone, n = hs.load_backbone(name, weights=weights), len(data)
    began = time.perf_counter()
    frozen = freeze(backbone)
    export_s = time.perf_counter() - began
    engine = OnnxEngine(frozen, cores())
    eats = of_pictures(backbone.card.input)
    squares = np.stack([square_of(eats, s) for s in data.sources[: engine.batch]])
    ways: dict[str, Callable[[], Any]] = {
        "headstart": lambda: extract(frozen, data).x,
        "channels-last": lambda: usual_loop(backbone, data, torch.channels_last),
        "default": lambda: usual_loop(backbone, data, torch.contiguous_format),
        "decode": lambda: decode_only(eats, data),
        "forward": lambda: forward_only(engine, squares, n),
    }
    engine({"pixels": squares})
    done = [{way: rate(work, n) for way, work in ways.items()} for _ in range(rounds)]
    rates = [{way: r for way, (r, _) in one.items()} for one in done]
    off = max(np.abs(one["headstart"][1] - one["channels-last"][1]).max() for one in done)
    return {
        "backbone": name,
        "images": n,
        **{way: _median(r[way] for r in rates) for way in ways},
        "against channels-last": _median(r["headstart"] / r["channels-last"] for r in rates),
        "against default": _median(r["headstart"] / r["default"] for r in rates),
        "of the bound": _median(
            r["headstart"] * (1 / r["decode"] + 1 / r["forward"]) for r in rates
        ),
        "largest difference": float(off),
        "export_s": export_s,
    }


def _median(values: Iterable[float]) -> float:
    return float(median(values))


def main() -> None:
    bench = Bench("extract", __doc__)
    bench.flag("--images", type=int, default=1000, quick=40)
    bench.flag(
        "--heavy-images", type=int, default=200, quick=0, help="for the larger backbones, if any"
    )
    bench.flag("--rounds", type=int, default=3, quick=1)
    args = bench.arguments()
    torch.set_num_threads(cores())
    cells = solar_cells()
    rows = []
    for i, (name, weights) in enumerate(BACKBONES if args.heavy_images else BACKBONES[:1]):
        n = args.heavy_images if i else args.images
        data = cells.take(range(0, len(cells), len(cells) // n)[:n])
        rows.append(measure(name, weights, data, 1 if i else args.rounds))
        print(rows[-1], flush=True)
    met = {f"{k} >= {v}": bool(float(str(rows[0][k])) >= v) for k, v in TARGETS.items()}
    met["largest difference <= 1e-4"] = all(
        float(str(r["largest difference"])) <= 1e-4 for r in rows
    )
    bench.report(rows, {"unit": "images/s", **met})


if __name__ == "__main__":
    main()
