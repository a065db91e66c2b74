"""Made the folder format-2 beside this file, with the code of commit 17bbd25 (version 0.1.0).

    PYTHONPATH=CODE python tests/runs/make_format_2.py FOLDER

data/: pictures of three classes. new/: pictures that the run never had. run/: what `headstart
train` and `headstart robustness` left, every limit of the model set, without report.html (made of
the rest). bundles/: of other heads and limits. predictions/: what `headstart predict … new --json`
printed of the run and of each bundle. ideal.png: what `headstart ideal` drew. recipes.json: what
`headstart recipes --json` printed. Every later version must read all of it; a later format gets a
folder of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

LEVELS = {"bright": 150, "dark": 100, "mid": 125}
TRAIN = (
    "train data --out run --backbone tiny:8 --strategy finetune --thaw 1 --epochs 3 --batch-size 8 "
    "--views 2 --flip both --rotation 0.1 --colour-jitter 0.2 --l2 1 0.1 --fit squash --seed 1 "
    "--precision 0.5 --alpha 0.2 --false-alarms 0.2 --val 0.3 --test 0.2 --baseline cnn "
    "--data-licence CC0-1.0 --threads 1 --decode-threads 1"
)
IDEAL = "ideal run --class dark --out ideal.png --steps 4 --octaves 1 --judge none"
HEADS = {
    "logistic": "--head logistic --class-weights balanced",
    "nearest": "--head nearest --coverage 0.5 --no-calibrate",
    "linear": "--head linear --head-epochs 2 --false-alarms 0",
}
ROBUSTNESS = "robustness run --rows 6 --steps 2 --epsilons 2/255 --corruptions fog pixelate"


def main(folder: Path) -> None:
    rng = np.random.default_rng(2)
    for name, level in LEVELS.items():
        for i in range(18):
            save(noise(rng, level), folder / "data" / name / f"{i:02}.png")
        save(noise(rng, level), folder / "new" / f"{name}.png")
    for i in range(4):
        save(noise(rng, 137), folder / "new" / f"between-{i}.png")
    save(np.full((12, 12, 3), (255, 0, 255), np.uint8), folder / "new" / "other.png")
    for name in ("bundles", "predictions"):
        (folder / name).mkdir()
    headstart(folder, TRAIN)
    headstart(folder, ROBUSTNESS)
    headstart(folder, IDEAL)
    (folder / "run" / "report.html").unlink()
    for name, flags in HEADS.items():
        headstart(folder, f"train data --out {name} --backbone tiny:8 --strategy extract {flags}")
        (folder / name / "model").rename(folder / "bundles" / name)
    (folder / "recipes.json").write_bytes(headstart(folder, "recipes --json"))
    for name in ("run", *(f"bundles/{name}" for name in HEADS)):
        said = headstart(folder, f"predict {name} new --json")
        (folder / "predictions" / f"{Path(name).name}.json").write_bytes(said)


def noise(rng: np.random.Generator, level: float) -> "np.typing.NDArray[np.uint8]":
    pixels = rng.normal(level + rng.normal(0, 8), 35, size=(12, 12, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def save(pixels: "np.typing.NDArray[np.uint8]", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def headstart(folder: Path, line: str) -> bytes:
    words = [sys.executable, "-m", "headstart", *line.split()]
    env = os.environ | {"HEADSTART_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=env, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
