"""What every competitor's script shares: the command line it takes and the one line it prints.

    {"name": ..., "phase1_seconds": ..., "phase2_seconds": ..., "epoch_seconds": [[...], [...]],
     "phase1": {"frozen": ..., "trainable": ...}, "phase2": {...}, "versions": {...}}

Seconds are of the user's whole `fit`: reading files, training and validation, but not importing
or building. Counts are of parameters, with BatchNorm's statistics among the frozen ones.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

SIZES = {"mobilenetv2": 160, "resnet50": 224}  # pixels a side, by network


@dataclass(frozen=True)
class Task:
    """What to fine-tune on (DATA_DIR/train/CLASS/*.jpg and DATA_DIR/val/CLASS/*.jpg), how long."""

    data_dir: Path
    epochs: int
    fine_epochs: int
    batch: int
    augment: bool
    network: str
    bfloat16: bool  # as the library offers it
    json: bool  # nothing but the last line: no progress bars

    @property
    def size(self) -> int:
        """Pixels a side."""
        return SIZES[self.network]


@dataclass(frozen=True)
class Counts:
    frozen: int
    trainable: int


@dataclass
class Phase:
    """One `fit`: made just before it, `lap` at the end of each epoch, `stop` just after."""

    counts: Counts
    epoch_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def lap(self) -> None:
        self.epoch_seconds.append(time.perf_counter() - self.began - sum(self.epoch_seconds))

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self.began


def task(description: str | None) -> Task:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--epochs", type=int, default=10, help="with the base frozen")
    parser.add_argument("--fine-epochs", type=int, default=10, help="with its end thawed")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--augment", action="store_true", help="random flips and rotations")
    parser.add_argument("--network", choices=SIZES, default="mobilenetv2")
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--json", action="store_true", help="no progress, only the last line")
    return Task(**vars(parser.parse_args()))


def show(name: str, frozen: Phase, thawed: Phase, packages: tuple[str, ...]) -> None:
    record = {
        "name": name,
        "phase1_seconds": frozen.seconds,
        "phase2_seconds": thawed.seconds,
        "epoch_seconds": [frozen.epoch_seconds, thawed.epoch_seconds],
        "phase1": asdict(frozen.counts),
        "phase2": asdict(thawed.counts),
        "versions": {package: version(package) for package in packages},
    }
    print(json.dumps(record), flush=True)
