"""The report of a large run, made again from its stored results: time, memory, size.

    python bench/report.py [--images 7000] [--classes 37]

Generated photographs (500 x 375 JPEGs), a run with the smallest backbone, then the page alone in a
process of its own: `headstart report RUN`, the kernel's count of its memory, and how large it is.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import SUPPRESS
from pathlib import Path

import numpy as np
from harness import Bench
from PIL import Image

import headstart as hs
from headstart.base.runtime import peak_rss_bytes
from headstart.reporting.page import write_report
from headstart.specs import FeatureExtraction, Job, LogisticSpec

SECONDS, BYTES, MEGABYTES = 30, 1e9, 5


def main() -> None:
    bench = Bench("report", __doc__)
    bench.flag("--images", type=int, default=7000, quick=70)
    bench.flag("--classes", type=int, default=37, quick=7)
    bench.flag("--page", nargs=2, type=Path, help=SUPPRESS)
    args = bench.arguments()
    if args.page:
        page(*args.page)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs(folder / "photos", args.images, args.classes)
        recipe = FeatureExtraction(LogisticSpec(l2=(0.1, 0.01)))
        job = Job(
            backbone="tiny:64", recipe=recipe, strategy="extract", store=hs.Store(folder / "store")
        )
        run = hs.train(hs.read(folder / "photos"), folder / "run", job)
        command = [sys.executable, __file__, "--page", str(run.folder), str(folder / "photos")]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    figures = {"images": args.images, "classes": args.classes} | figures
    bench.report(
        [figures],
        {
            "within": figures["seconds"] <= SECONDS
            and figures["peak_mb"] <= BYTES / 1e6
            and figures["page_mb"] <= MEGABYTES
        },
    )


def page(run: Path, photos: Path) -> None:
    """Build the page and print what it took, from listing the pictures on."""
    began = time.perf_counter()
    data = hs.read(photos)
    path = write_report(run, dict(zip(data.ids, data.sources, strict=True)))
    figures = {
        "seconds": time.perf_counter() - began,
        "peak_mb": peak_rss_bytes() / 1e6,
        "page_mb": path.stat().st_size / 1e6,
    }
    print(json.dumps(figures))


def photographs(folder: Path, images: int, classes: int) -> None:
    """Coloured noise, smooth and detailed, of a colour a class."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (classes, 3))
    for i in range(images):
        label = folder / f"class {i % classes:02}"
        label.mkdir(parents=True, exist_ok=True)
        coarse = rng.normal(colours[i % classes], 60, (15, 20, 3)).clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        picture.save(label / f"{i:05}.jpg", quality=85)


if __name__ == "__main__":
    main()
