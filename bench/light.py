"""The core installation: its size, its cold start, and its head beside the one with PyTorch.

    python bench/light.py [--quick] [--cells 2624] [--starts 5] [--keep FOLDER]

A fresh virtual environment gets the core alone, `pip install .` with the pinned versions. A head is
trained on solar cells (ELPV) there and in the environment that runs this; all predictions must be
equal. Then single pictures are predicted by new processes, the model is evaluated, and an export of
it, made where PyTorch is, is verified.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from harness import ROOT, Bench
from tables import Row

from headstart.modalities.images.examples import solar_cells

LIMIT_MB, LIMIT_S = 320, 1.0
OF_ANY = ("pip", "setuptools", "_distutils_hack", "distutils", "pkg_resources")  # environment
BYTECODE = "__pycache__"  # what pip compiles of the files that it installs
TRAIN = "import sys; from headstart.cli.main import main; sys.exit(main(sys.argv[1:]))"
FILES = ("predictions.csv", "history.csv", "evaluation.json", "model/weights.safetensors")


def made(folder: Path) -> Path:
    """Make a virtual environment with the core of this clone; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(ROOT)], check=True)
    return python


def sizes(python: Path) -> dict[str, float]:
    """Megabytes (10^6 bytes) of each top folder that the core installs, and of all its bytecode."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    found: dict[str, float] = {}
    for file in site.rglob("*"):
        top, *inside = file.relative_to(site).parts
        if file.is_file() and not file.is_symlink() and not top.startswith(OF_ANY):
            name = BYTECODE if BYTECODE in inside else top
            found[name] = found.get(name, 0) + file.stat().st_size / 1e6
    return found


def cells(folder: Path, count: int) -> Path:
    """Write the first cells of each class as files, one folder per class."""
    data = solar_cells()
    for name in data.classes:
        (folder / name).mkdir(parents=True)
    for row in range(0, len(data), max(1, len(data) // count)):
        path, name = Path(str(data.sources[row])), data.classes[data.y[row]]
        shutil.copyfile(path, folder / name / f"{row:04}{path.suffix}")
    return folder


def run(python: Path | str, words: list[str | Path], cwd: Path) -> tuple[float, float]:
    """Run a command of Headstart; returns its seconds, and those of the processor.

    Nothing but the environment of `python` is on its path; of this one, the clone.
    """
    began, before = time.perf_counter(), processor_seconds()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if python == sys.executable:
        environment["PYTHONPATH"] = str(ROOT)
    command = [str(python), "-c", TRAIN, *map(str, words)]
    subprocess.run(command, check=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, processor_seconds() - before


def processor_seconds() -> float:
    """Seconds that the finished processes of this one have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    bench = Bench("light", __doc__)
    bench.flag("--cells", type=int, default=2624, quick=100)
    bench.flag("--starts", type=int, default=5, quick=2)
    bench.flag("--keep", type=Path, help="make the environment here, and keep it")
    args = bench.arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        place = args.keep or folder / "environment"
        python = place / "bin" / "python" if args.keep and place.exists() else made(place)
        data, seconds = cells(folder / "cells", args.cells), dict[str, float]()
        for name, which in (("core", python), ("with PyTorch", sys.executable)):
            words: list[str | Path] = ["train", data, "--out", folder / name]
            words += ["--strategy", "extract"]
            words += ["--fit", "squash", "--store", folder / f"store {name}"]
            seconds[name], _ = run(which, words, folder)
        pairs = [[(folder / name / file).read_bytes() for name in seconds] for file in FILES]
        equal = {file: one == other for file, (one, other) in zip(FILES, pairs, strict=True)}
        picture = next((data / "defective").iterdir())
        starts = [
            run(python, ["predict", folder / "core", picture], folder) for _ in range(args.starts)
        ]
        run(python, ["evaluate", folder / "core", data], folder)
        run(sys.executable, ["export", folder / "core", "--out", folder / "onnx"], folder)
        verified, _ = run(python, ["verify", folder / "onnx"], folder)
        accuracy = json.loads((folder / "core" / "evaluation.json").read_text())
        by_size = sorted(sizes(python).items(), key=lambda item: -item[1])
    rows: list[Row] = [{"installed": name, "MB": size} for name, size in by_size[:12]]
    total, bytecode = sum(size for _, size in by_size), dict(by_size)[BYTECODE]
    cold, computed = (median(values) for values in zip(*starts, strict=True))
    bench.report(
        rows,
        {
            "files of the core installation, MB": total - bytecode,
            f"at most {LIMIT_MB} MB": total - bytecode <= LIMIT_MB,
            "with the bytecode that pip makes of them, MB": total,
            "predict one picture, cold process, median s": cold,
            f"at most {LIMIT_S} s": cold <= LIMIT_S,
            "predict one picture, cold process, median s of the processor": computed,
            "verify an export, cold process, s": verified,
            "train a head, core, s": seconds["core"],
            "train a head, with PyTorch installed, s": seconds["with PyTorch"],
            **{f"the same bytes with and without PyTorch: {k}": v for k, v in equal.items()},
            "accuracy on test": accuracy["test"]["accuracy"]["value"],
        },
    )
    if not all(equal.values()):
        raise SystemExit("The head must not depend on whether PyTorch is installed.")


if __name__ == "__main__":
    main()
