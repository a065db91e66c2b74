"""Large JPEGs decoded at a fraction of their size (`draft`), compared with full decoding.

    python bench/draft.py [--images 12] [--rounds 5]

Two real photographs (scikit-learn's china.jpg and flower.jpg, 640 x 427) are mirror-tiled at their
own resolution to 2000 x 1500 and saved at several qualities and subsamplings. Three ways run by
turns in one process: usual (Pillow decodes all pixels, resizes, crops), full (ours, draft=False)
and draft. Ratios are of medians; the difference, of 255, is between the draft's square and full's.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from harness import Bench
from PIL import Image
from sklearn.datasets import load_sample_images

from headstart.modalities.images.decoding import Pixels, decode
from headstart.modalities.images.inputs import ImageInput

WIDTH, HEIGHT = 2000, 1500
DRAFT = ImageInput()
FULL = replace(DRAFT, draft=False)
QUALITIES = (85, 90, 95)
SUBSAMPLINGS = {"4:2:0": 2, "4:4:4": 0}


def main() -> None:
    bench = Bench("draft", __doc__)
    bench.flag("--images", type=int, default=12, quick=2, help="JPEGs of each kind")
    bench.flag("--rounds", type=int, default=5, quick=1)
    args = bench.arguments()
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for name, subsampling in SUBSAMPLINGS.items():
        files = [
            jpeg(large(rng, i), QUALITIES[i % len(QUALITIES)], subsampling)
            for i in range(args.images)
        ]
        differences = [difference(file) for file in files]
        for threads in (1, 2):
            slowest, slow, fast = race(files, threads, args.rounds)
            rows.append(
                {
                    "subsampling": name,
                    "threads": threads,
                    "usual img/s": len(files) / slowest,
                    "full img/s": len(files) / slow,
                    "draft img/s": len(files) / fast,
                    "to usual": slowest / fast,
                    "to full": slow / fast,
                    "difference": statistics.mean(differences),
                    "worst": max(differences),
                }
            )
    ratio = statistics.geometric_mean(row["to full"] for row in rows)
    apart = statistics.mean(row["difference"] for row in rows)
    good = ratio >= 2 and apart <= 0.5
    bench.report(
        rows,
        {
            "times as fast as in full": ratio,
            "mean difference from full decoding, of 255 levels": apart,
            "2 times as fast at 0.5 levels": good,
        },
    )
    sys.exit(not good and not args.quick)  # few pictures tell nothing of speed


def large(rng: np.random.Generator, i: int) -> Pixels:
    """A 2000 x 1500 window, anywhere, on sample photograph i mirrored to all sides."""
    photos: list[Pixels] = load_sample_images().images
    picture = photos[i % len(photos)]
    both = np.concatenate([picture, picture[:, ::-1]], axis=1)
    tile = np.concatenate([both, both[::-1]], axis=0)
    top, left = rng.integers(0, tile.shape[0]), rng.integers(0, tile.shape[1])
    across, down = -(-(WIDTH + left) // tile.shape[1]), -(-(HEIGHT + top) // tile.shape[0])
    return np.tile(tile, (down, across, 1))[top : top + HEIGHT, left : left + WIDTH]


def jpeg(pixels: Pixels, quality: int, subsampling: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def usual(file: bytes) -> Pixels:
    """Resize(256), CenterCrop(224), as everybody does it."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    width, height = (FULL.resize * side // min(image.size) for side in image.size)
    left, top = round((width - FULL.size) / 2), round((height - FULL.size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + FULL.size, top + FULL.size)))


def full(file: bytes) -> Pixels:
    return FULL(decode(file))


def draft(file: bytes) -> Pixels:
    return DRAFT(decode(file, short_side=DRAFT.short_side))


def difference(file: bytes) -> float:
    """Mean absolute difference of the two squares, of 255."""
    assert np.array_equal(full(file), usual(file))
    return float(np.abs(full(file).astype(int) - draft(file)).mean())


def race(files: list[bytes], threads: int, rounds: int) -> tuple[float, ...]:
    """Median seconds for all files: usual, full, draft."""
    took: dict[Callable[[bytes], Pixels], list[float]] = {usual: [], full: [], draft: []}
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds + 1):
            for way, seconds in took.items():
                start = time.perf_counter()
                list(pool.map(way, files))
                seconds.append(time.perf_counter() - start)
    return tuple(statistics.median(seconds[1:]) for seconds in took.values())  # [0] warms up


if __name__ == "__main__":
    main()
