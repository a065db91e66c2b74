"""What many rows cost: measured on few, and extrapolated to 1 million, 100 million and 1 billion.

    python bench/scale.py [--images 4096] [--backbone packaged:efficientnet_lite0] [--price 0.04]

Generated JPEGs of 300 pixels, in a folder. `headstart extract` computes their features into an
empty store: in one process with all cores, and on Ray with a process a core (left out where Ray is
not installed). A second command must compute nothing. Then a ridge head learns from features at
random, of as many columns.

The table of many rows multiplies what was measured: core-hours by the rate of a core, bytes and
files of the store, the head by its seconds a row. Nothing of it was run; reading from far away, and
nodes that are lost, come on top. Price: of a core-hour, in any currency.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import Bench
from PIL import Image
from tables import Row

from headstart.base.runtime import cores, installed
from headstart.heads.fit import fit_head
from headstart.heads.head import Rows
from headstart.heads.specs import RidgeSpec
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.targets.classes import ClassTarget

MANY = (10**6, 10**8, 10**9)
COMPACT = 65_536  # rows of a file after `headstart store compact`
CLASSES = 10


def main() -> None:
    bench = Bench("scale", __doc__)
    bench.flag("--images", type=int, default=4096, quick=64)
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    bench.flag("--rows", type=int, default=20_000, quick=500, help="of the head")
    bench.flag("--price", type=float, default=0.04, help="of a core-hour")
    args = bench.arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_pictures(folder / "pictures", args.images)
        words = [str(folder / "pictures"), "--backbone", args.backbone]
        rows = [extracted("one process", words, folder / "one")]
        if installed("ray"):
            rows.append(extracted("on Ray", [*words, "--on-ray"], folder / "ray"))
        again = extracted("one process, again", words, folder / "one")
        assert again["computed"] == 0
        size, files = weight(folder / "one")
    head = head_seconds(args.rows, dimension(size, args.images))
    plain = float(str(rows[0]["images/s"]))
    figures = {
        "MB of the store a 100,000 rows": size / args.images / 10,
        "files of the store a 100,000 rows": files / args.images * 1e5,
        "seconds of a ridge head a 100,000 rows": head * 1e5,
    }
    far = [projected(n, plain, size / args.images, head, args.price) for n in MANY]
    bench.report([*rows, again], figures, more={"extrapolated, not run": far})


def make_pictures(folder: Path, count: int) -> None:
    """Write JPEGs of noise and rectangles, in two classes."""
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = np.full((300, 300, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(12):
            y, x = rng.integers(0, 250, 2)
            pixels[y : y + 50, x : x + 50] = rng.integers(0, 256, 3)
        path = folder / "ab"[i % 2] / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def extracted(title: str, words: list[str], store: Path) -> Row:
    """Run `headstart extract`; return its counts and rates, with and without the start."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "headstart", "-q", "extract", *words, "--json"]
    done = subprocess.run(
        [*command, "--store", str(store)],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_worker_niceness": "0"},
    )
    took = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found = json.loads(done.stdout)
    return {
        "way": title,
        "rows": found["rows"],
        "computed": found["forwards"],
        "images/s": found["rows"] / found["seconds"],
        "seconds": found["seconds"],
        "seconds with the start": took,
    }


def weight(store: Path) -> tuple[int, int]:
    """Bytes and number of the store's shards, without the network that is kept there."""
    shards = [p for p in store.rglob("*.safetensors") if p.parent.name != "graphs"]
    return sum(path.stat().st_size for path in shards), len(shards)


def dimension(size: int, images: int) -> int:
    """About the columns of the features, from the bytes of the store."""
    return max(8, round(size / images / 4))


def head_seconds(n: int, d: int) -> float:
    """Seconds a row of a ridge head, its strength chosen among all, on features at random."""
    rng = np.random.default_rng(0)
    target = ClassTarget(tuple(map(str, range(CLASSES))))
    rows = Rows(rng.normal(size=(n, d)).astype(np.float32), np.arange(n) % CLASSES, target)
    began = time.perf_counter()
    fit_head(RidgeSpec(), rows, rows)
    return (time.perf_counter() - began) / n


def projected(n: int, rate: float, size: float, head: float, price: float) -> Row:
    """What n rows take. rate: images per second of all cores of this machine."""
    hours = n / rate * cores() / 3600
    return {
        "rows": f"{n:,}",
        "core-hours": hours,
        "hours on 100 cores": hours / 100,
        "price": hours * price,
        "GB of the store": n * size / 1e9,
        "files": f"{-(-n // 256) * 2:,}",
        "files, compacted": f"{-(-n // COMPACT) * 2:,}",
        "hours of a ridge head": n * head / 3600,
    }


if __name__ == "__main__":
    main()
