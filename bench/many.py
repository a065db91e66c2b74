"""Many pictures, many classes, and features beyond memory: seconds, peaks and sizes.

    python bench/many.py [--images 100000] [--classes 5000] [--limit-mb 700] [--only PART]

Three parts, each in processes of its own, on generated 48 x 48 JPEGs of two cores at most.
check: pictures are indexed, where `headstart index` is there, and checked, for all and for a tenth
of them. classes: a ridge head of very many classes with 10 pictures each is trained, judged and
reported by `headstart train`. memory: a head is trained from stored features under `ulimit -d`:
with --limit-mb, less than the size of the store, beyond what PyTorch maps when it is imported
(790 MB of PyPI's build, of which it touches 290).
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from harness import Bench
from PIL import Image

import headstart as hs
from headstart.base.runtime import peak_rss_bytes

CHECK_S, BYTES_EACH = 120, 200
CLASSES_S, CLASSES_MB, REPORT_MB = 300, 2000, 5
EACH = 10  # pictures of a class
PARTS = ("check", "classes", "memory")
Figures = dict[str, Any]
WIDE = "tiny:1024"  # 4 kB of features a picture


def main() -> None:
    bench = Bench("many", __doc__)
    bench.flag("--images", type=int, default=100_000, quick=400)
    bench.flag("--classes", type=int, default=5_000, quick=210)
    bench.flag("--limit-mb", type=int, default=700, quick=700)
    bench.flag("--only", choices=PARTS)
    bench.flag("--work", nargs=3, help=SUPPRESS)
    args = bench.arguments()
    if args.work:
        part, data, store = args.work
        print(json.dumps(WORK[part](Path(data), Path(store), args.limit_mb)))
        return
    asked = [args.only] if args.only else PARTS
    more, figures = dict[str, list[Figures]](), dict[str, object]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked != ["classes"]:
            for part, n in (("tenth", args.images // 10), ("all", args.images)):
                pictures(folder / part, n, 20)
        for part in asked:
            rows, own = MEASURED[part](folder, args)
            more[part], figures = rows, figures | own
            print(part, own, flush=True)
    bench.report([], figures, more=more)


def check(folder: Path, args: Any) -> tuple[list[Figures], dict[str, object]]:
    rows = []
    for part in ("tenth", "all", "all"):  # two commands each, the first of which indexes
        index, seen = (
            work(name, folder / part, folder / f"store-{part}", args.limit_mb)
            for name in ("index", "check")
        )
        peak = max(index["peak_mb"], seen["peak_mb"])
        seconds = index["seconds"] + seen["seconds"]
        own = {"indexed_s": index["seconds"], "index_peak_mb": index["peak_mb"]}
        rows.append(seen | own | {"seconds": seconds, "peak_mb": peak})
    few, many, _ = rows
    each = (many["peak_mb"] - few["peak_mb"]) * 1e6 / (many["images"] - few["images"])
    return rows, {
        "bytes of memory a picture": each,
        f"check <= {CHECK_S} s": many["seconds"] <= CHECK_S,
        f"memory <= {BYTES_EACH} B a picture": each <= BYTES_EACH,
    }


def classes(folder: Path, args: Any) -> tuple[list[Figures], dict[str, object]]:
    pictures(folder / "classes", EACH * args.classes, args.classes)
    out, began = folder / "run", time.perf_counter()
    words = ["train", str(folder / "classes"), "--out", str(out), "--backbone", "tiny:32"]
    words += ["--strategy", "extract", "--head", "ridge", "--store", str(folder / "store-classes")]
    child = subprocess.Popen([sys.executable, "-m", "headstart", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status or not (out / "report.html").exists():
        raise SystemExit("The run of many classes failed.")
    sizes = {path.name: path.stat().st_size / 1e6 for path in out.iterdir() if path.is_file()}
    accuracy = json.loads((out / "evaluation.json").read_text())["test"]["accuracy"]["value"]
    row = {
        "classes": args.classes,
        "seconds": time.perf_counter() - began,
        "peak_mb": used.ru_maxrss / 1e3,
        "accuracy": accuracy,
        **{f"{name} MB": size for name, size in sorted(sizes.items()) if size >= 0.1},
    }
    stages = json.loads((out / "timings.json").read_text())["seconds"]
    row |= {f"{stage} s": spent for stage, spent in stages.items() if spent >= 1}
    return [row], {
        f"classes <= {CLASSES_S} s": row["seconds"] <= CLASSES_S,
        f"classes <= {CLASSES_MB} MB": row["peak_mb"] <= CLASSES_MB,
        f"report <= {REPORT_MB} MB": sizes["report.html"] <= REPORT_MB,
    }


def memory(folder: Path, args: Any) -> tuple[list[Figures], dict[str, object]]:
    store = folder / "store-memory"
    rows = [work(part, folder / "all", store, args.limit_mb) for part in ("fill", "fit")]
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) / 1e6
    return rows, {
        "store MB": size,
        "ulimit -d MB": rows[1]["limit_mb"],
        "of them left after importing MB": args.limit_mb,
        "peak anonymous MB": rows[1]["anonymous_mb"],
        "left below the store": args.limit_mb < size,
    }


MEASURED: dict[str, Callable[[Path, Any], tuple[list[Figures], dict[str, object]]]] = {
    "check": check,
    "classes": classes,
    "memory": memory,
}


def work(part: str, data: Path, store: Path, limit_mb: int) -> Figures:
    """Do one piece of work in a process of its own, and return its figures."""
    command = [sys.executable, __file__, "--work", part, str(data), str(store)]
    command += ["--limit-mb", str(limit_mb)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check_work(data: Path, store: Path, _: int) -> Figures:
    from headstart.cli.main import main as command

    began, source = time.perf_counter(), data
    if data.with_suffix(".parquet").exists():
        source = data.with_suffix(".parquet")
    with quiet():
        command(["check", str(source), "--backbone", "none", "--store", str(store)])
    seconds = time.perf_counter() - began
    images = sum(len(files) for _, _, files in os.walk(data))
    return figures_of(images, seconds)


def index_work(data: Path, _: Path, __: int) -> Figures:
    began = time.perf_counter()
    if hasattr(hs, "index"):
        data.with_suffix(".parquet").unlink(missing_ok=True)
        hs.index(data, data.with_suffix(".parquet"))
    return figures_of(0, time.perf_counter() - began)


def fill_work(data: Path, store: Path, _: int) -> Figures:
    began = time.perf_counter()
    table = hs.extract(hs.read(data), backbone=WIDE, store=hs.Store(store))
    from headstart.base.compacting import compact

    compact(hs.Store(store))
    return figures_of(len(table), time.perf_counter() - began)


def fit_work(data: Path, store: Path, limit_mb: int) -> Figures:
    hs.load_backbone(WIDE)  # imports PyTorch
    began, limit = time.perf_counter(), limit_mb * 10**6 + 1024 * _status("VmData")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with anonymous() as peak:
        rows = hs.read(data)
        hs.fit(rows, backbone=WIDE, strategy="extract", head="ridge", store=hs.Store(store))
    row = figures_of(len(rows), time.perf_counter() - began)
    return row | {"anonymous_mb": max(peak) / 1e6, "limit_mb": limit / 1e6}


WORK = {"index": index_work, "check": check_work, "fill": fill_work, "fit": fit_work}


def figures_of(images: int, seconds: float) -> Figures:
    return {"images": images, "seconds": seconds, "peak_mb": peak_rss_bytes() / 1e6}


@contextmanager
def quiet() -> Iterator[None]:
    """Send what a command prints nowhere."""
    with open(os.devnull, "w") as nowhere:
        before, sys.stdout = sys.stdout, nowhere
        try:
            yield
        finally:
            sys.stdout = before


@contextmanager
def anonymous(every_s: float = 0.02) -> Iterator[list[int]]:
    """Collect the bytes of this process that no file holds, many times a second."""
    seen, ended = [1024 * _status("RssAnon")], threading.Event()

    def look() -> None:
        while not ended.wait(every_s):
            seen.append(1024 * _status("RssAnon"))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def _status(name: str) -> int:
    """Return kilobytes that the system counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def pictures(folder: Path, images: int, groups: int) -> None:
    """Coarse random cells, smoothed, half of a colour pattern that is the class's own."""
    rng = np.random.default_rng(0)
    own = rng.integers(0, 256, (groups, 7, 7, 3))
    for c in range(groups):
        (folder / f"class {c:04}").mkdir(parents=True, exist_ok=True)
    for i in range(images):
        cells = (own[i % groups] + rng.integers(0, 256, (7, 7, 3))) // 2
        picture = Image.fromarray(cells.astype(np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(folder / f"class {i % groups:04}" / f"{i:06}.jpg", quality=85)


if __name__ == "__main__":
    main()
