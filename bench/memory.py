"""Peak memory of feature extraction, for few and for many images.

    python bench/memory.py [--images 20000] [--few 5000]

Each size runs in a process of its own, survey, checks and extraction with the default backbone on
generated JPEGs, into a store of its own; the peak is the kernel's count of that process.
"""

import json
import subprocess
import sys
import tempfile
from argparse import SUPPRESS
from pathlib import Path

import numpy as np
from harness import Bench
from PIL import Image

import headstart as hs
from headstart.base.runtime import peak_rss_bytes
from headstart.data.checks import check
from headstart.features.extract import extract
from headstart.modalities.reading import survey
from headstart.modalities.sources import DEFAULT_BACKBONE

LIMIT_BYTES = 1.5e9
FLAT = 1.25  # what is kept of every image (5 kB of features, 4 kB of thumbnail) may grow


def generate(folder: Path, n: int) -> None:
    """`n` different 320 x 240 JPEGs in two classes: smooth noise, red or blue."""
    rng = np.random.default_rng(0)
    for i in range(n):
        label = ("red", "blue")[i % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        pixels[..., 0 if label == "red" else 2] |= 128
        image = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
        image.save(folder / label / f"{i:06}.jpg", quality=85)


def work(data: Path, n: int, store: Path, backbone: str) -> None:
    """The part of a run that grows with the data, on the first n images; prints its figures."""
    rows = hs.read(data)
    rows = rows.take([i for i, id in enumerate(rows.ids) if int(Path(id).stem) < n])
    seen = survey(rows, store=hs.Store(store), threads=2)
    check(rows, seen)
    checked = peak_rss_bytes()
    table = extract(hs.load_backbone(backbone), rows, store=hs.Store(store))
    figures = {
        "images": len(table),
        "images_per_s": len(table) / table.seconds,
        "peak_checks_mb": checked / 1e6,
        "peak_mb": peak_rss_bytes() / 1e6,
        "features_mb": table.x.nbytes / 1e6,
    }
    print(json.dumps(figures))


def main() -> None:
    bench = Bench("memory", __doc__)
    bench.flag("--images", type=int, default=20_000, quick=200)
    bench.flag("--few", type=int, default=5_000, quick=100)
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    bench.flag("--work", nargs=3, help=SUPPRESS)
    args = bench.arguments()
    if args.work:
        return work(Path(args.work[0]), int(args.work[1]), Path(args.work[2]), args.backbone)
    with tempfile.TemporaryDirectory() as there:
        generate(Path(there) / "data", args.images)
        rows = []
        for n in (args.few, args.images):
            command = [sys.executable, __file__, "--work", f"{there}/data", str(n), f"{there}/{n}"]
            command += ["--backbone", args.backbone]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    few, many = (float(row["peak_mb"]) for row in rows)
    met = {
        f"peak <= {LIMIT_BYTES / 1e9} GB": many * 1e6 <= LIMIT_BYTES,
        f"flat: at most {FLAT} times the peak of {args.few:,}": many <= FLAT * few,
        "ratio of peaks": many / few,
    }
    bench.report(rows, met)
    return None


if __name__ == "__main__":
    main()
