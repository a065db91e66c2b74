"""Photographs of other things than solar cells: does the model call them unknown?

    python bench/unknowns.py [--seeds 0 1 2]

A head on ELPV cells, with limits found on validation: 1 in 100 real cells may be called unlike
anything seen. Then its test cells, and scikit-image's photographs (cats, coins, faces, the Moon),
whole and in random crops. AUROC is of the distance; the false alarms are of real test cells.
"""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import skimage.data
from harness import Bench
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

import headstart as hs
from headstart.data.splits import split
from headstart.features.extract import extract
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.reading import find
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.fitting import fit
from headstart.models.fitting_limits import with_limits
from headstart.specs import FeatureExtraction, SplitPlan, TrustPlan

NAMES = (
    "astronaut brick camera cat cell checkerboard chelsea clock coffee coins grass gravel "
    "horse hubble_deep_field immunohistochemistry microaneurysms moon page rocket text"
).split()
CROPS = 5  # of each photograph, beside the whole
ASKED = (0.01, 0.05)


def main() -> None:
    bench = Bench("unknowns", __doc__)
    bench.flag("--seeds", type=int, nargs="+", default=[0, 1, 2], quick=[0])
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    args = bench.arguments()
    rows = list[dict[str, object]]()
    with tempfile.TemporaryDirectory() as folder:
        strange, _ = find([photographs(Path(folder))])
        for seed in args.seeds:
            rows += [one_split(args.backbone, strange, seed, asked) for asked in ASKED]
    bench.report(
        rows,
        {
            "photographs": len(strange),
            "least AUROC": min(float(str(row["AUROC"])) for row in rows),
            "farthest false-alarm rate from what was asked": max(
                abs(float(str(row["false alarms"])) - float(str(row["asked"]))) for row in rows
            ),
        },
    )


def one_split(backbone: str, strange: hs.Dataset, seed: int, asked: float) -> dict[str, object]:
    data = split(solar_cells(), SplitPlan(seed=seed))
    recipe = FeatureExtraction(fit="squash", seed=seed)
    model = fit(recipe, backbone, data).model
    model = with_limits(model, data, TrustPlan(false_alarms=asked))
    away, doubted = zip(*(judged(model, part) for part in (data.test, strange)), strict=True)
    odd = np.repeat([0, 1], [len(part) for part in away])
    return {
        "seed": seed,
        "asked": asked,
        "AUROC": round(float(roc_auc_score(odd, np.concatenate(away))), 4),
        "false alarms": round(float(doubted[0].mean()), 4),
        "photographs called unknown": round(float(doubted[1].mean()), 4),
        "cells": len(away[0]),
    }


def judged(model: hs.Model, data: hs.Dataset) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How far each row is from the training rows, and whether the model won't answer."""
    table = extract(model.backbone, data)
    doubts = model.doubts(model.predict_table(table), table)
    return model.limits.distance(table.x), np.array([bool(reason) for reason in doubts])


def photographs(folder: Path) -> Path:
    """What scikit-image ships, as files: each whole, and crops of a half to all of a side."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = getattr(skimage.data, name)()
        except Exception as error:  # some are downloaded, each failing in its own way
            print(f"  without {name}: {type(error).__name__}")
            continue
        pixels = pixels.astype(np.uint8) * (255 if pixels.dtype == bool else 1)
        picture = Image.fromarray(pixels[..., :3] if pixels.ndim == 3 else pixels)
        picture.save(folder / f"{name}.png")
        for n in range(CROPS):
            w, h = (round(side * rng.uniform(0.5, 1)) for side in picture.size)
            left, top = (rng.integers(a - b + 1) for a, b in zip(picture.size, (w, h), strict=True))
            box = (int(left), int(top), int(left) + w, int(top) + h)
            picture.crop(box).save(folder / f"{name}-{n}.png")
    return folder


if __name__ == "__main__":
    main()
