"""Seconds until a command starts its work, beyond the start of Python itself.

    python bench/startup.py [--runs 15]

Medians over interleaved runs of whole processes.
"""

import subprocess
import sys
import time
from statistics import median

from harness import Bench

PYTHON = [sys.executable, "-c", "pass"]
COMMANDS = {
    "import headstart": ([sys.executable, "-c", "import headstart"], 0.15),
    "headstart --help": ([sys.executable, "-m", "headstart", "--help"], 0.3),
    "headstart train --help": ([sys.executable, "-m", "headstart", "train", "--help"], None),
}


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    bench = Bench("startup", __doc__)
    bench.flag("--runs", type=int, default=15, quick=2)
    args = bench.arguments()
    beyond: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.runs):
        plain = seconds(PYTHON)
        for name, (command, _limit) in COMMANDS.items():
            beyond[name].append(seconds(command) - plain)
    rows = [
        {
            "command": name,
            "seconds beyond python": median(beyond[name]),
            "limit": limit or "",
            "met": limit is None or median(beyond[name]) <= limit,
        }
        for name, (_, limit) in COMMANDS.items()
    ]
    bench.report(rows)


if __name__ == "__main__":
    main()
