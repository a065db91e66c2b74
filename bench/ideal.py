"""Ideal pictures of ImageNet classes: scores of this and another network, and smoothness.

    python bench/ideal.py [--classes tabby zebra daisy] [--pictures docs/images]

Each picture is drawn as usual and once more without the variation term, from the same noise. Scores
are of the saved PNG, read as any other; the judge never saw a gradient. With --pictures the two are
written side by side as ideal-CLASS.png.
"""

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import Bench
from PIL import Image

import headstart as hs
from headstart.explaining.pixels.grad_model import GradModel, source_grad_model
from headstart.explaining.pixels.ideal import ascend, surest, total_variation
from headstart.modalities.images.decoding import Pixels, decode
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.specs import IdealPlan

JUDGE = "packaged:efficientnet_lite2"
GAP = 8  # pixels between the two


def main() -> None:
    bench = Bench("ideal", __doc__)
    every = ["tabby", "zebra", "daisy"]
    bench.flag("--classes", nargs="+", default=every, quick=every[:1])
    bench.flag("--steps", type=int, default=IdealPlan().steps, quick=8)
    bench.flag("--pictures", type=Path, metavar="FOLDER")
    args = bench.arguments()
    grad_model = source_grad_model(hs.load_backbone(DEFAULT_BACKBONE))
    judge = source_grad_model(hs.load_backbone(JUDGE))
    rows = list[dict[str, object]]()
    for name in args.classes:
        usual, without = (one(grad_model, judge, name, plan) for plan in plans(args.steps))
        rows += [usual[0], without[0]]
        if args.pictures:
            side_by_side(args.pictures / f"ideal-{name}.png", usual[1], without[1])
    usual_rows, without_rows = rows[::2], rows[1::2]
    ratios = [
        float(str(b["variation"])) / float(str(a["variation"]))
        for a, b in zip(usual_rows, without_rows, strict=True)
    ]
    bench.report(
        rows,
        {
            "least score": min(float(str(row["score"])) for row in usual_rows),
            "least score by the judge": min(float(str(row["judged"])) for row in usual_rows),
            "times smoother than without the term, at least": round(min(ratios), 2),
            "most seconds": max(float(str(row["seconds"])) for row in usual_rows),
        },
    )


def plans(steps: int) -> tuple[IdealPlan, IdealPlan]:
    usual = IdealPlan(steps=steps)
    return usual, replace(usual, tv=0.0)


def one(
    grad_model: GradModel, judge: GradModel, name: str, plan: IdealPlan
) -> tuple[dict[str, object], Pixels]:
    began, worked = time.perf_counter(), time.process_time()
    found = surest(ascend(grad_model, grad_model.number(name), plan))
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    pixels = decode(as_png(found.picture))
    return {
        "class": name,
        "tv": plan.tv,
        "score": round(score(grad_model, name, pixels), 4),
        "judged": round(score(judge, name, pixels), 4),
        "variation": round(total_variation(pixels), 5),
        "seconds": round(seconds, 1),
        "seconds of all cores": round(worked, 1),
    }, pixels


def score(grad_model: GradModel, name: str, pixels: Pixels) -> float:
    return float(
        grad_model.scores(grad_model.input(pixels)[None].copy())[0, grad_model.number(name)]
    )


def as_png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def side_by_side(path: Path, usual: Pixels, without: Pixels) -> None:
    """With the term on the left, dithered to 256 colours, so that the file stays small."""
    gap = np.full((len(usual), GAP, 3), 255, np.uint8)
    both = Image.fromarray(np.concatenate([usual, gap, without], axis=1))
    palette = both.quantize(256, Image.Quantize.MEDIANCUT)
    path.parent.mkdir(parents=True, exist_ok=True)
    both.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    main()
