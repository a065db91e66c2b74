"""How long each stage of a demo takes, before and after, and what stands beside the work itself.

    python bench/stages.py [--against COMMIT] [--example images|text|number] [--seeds 0 1 2]
    python bench/stages.py --quick

The built-in example of `headstart demo` is trained with an empty store: by the code of an older
commit ("before"), by that of this checkout ("after"), and by it with --no-refit and --choose
validation ("plain"), which is what older commits did. They take turns (in the reversed order for
every second seed), each in a process of its own on all cores. "start and report" is the time of the
process that no stage of timings.json counts: start-up, imports, and the report. What stands beside
the work itself is all but features, views, head and fine-tuning.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import environ
from pathlib import Path
from statistics import mean
from typing import Any

from harness import Bench
from same_results import as_it_is, checked_out, git

MAIN = ("features", "views", "head", "fine-tuning", "training")  # stages: the work itself
REST = "start and report"
SETTINGS: dict[str, dict[str, object]] = {  # of `headstart train`, by side
    "before": {},
    "after": {},
    "plain": {"refit": False, "choose": "validation"},
}
SIDES = tuple(SETTINGS)
# Arguments: the example, the folder of the run, the number of rows (0 for all), settings as JSON.
RUN = """
import json
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from headstart.base.store import Store
from headstart.cli.progress import Terminal
from headstart.runs.demos import get_demo
from headstart.runs.run import train
from headstart.runs.settings import job_with
name, out, rows, settings = sys.argv[1:]
demo = get_demo(name)
data = demo.read()
if int(rows):
    data = data.take(np.sort(np.random.default_rng(0).permutation(len(data))[: int(rows)]))
job = replace(job_with(demo.job, json.loads(settings)), store=Store(None))
train(data, Path(out), job, Terminal())
"""


@dataclass(frozen=True)
class Timed:
    """One training. seconds: by stage, REST the last of them. score: the main metric on test."""

    seconds: Mapping[str, float]
    score: float

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def beside(self) -> float:
        """The share of the time beside the work itself."""
        return sum(s for stage, s in self.seconds.items() if stage not in MAIN) / self.total


def main() -> None:
    bench = Bench("stages", __doc__)
    bench.flag("--against", default="HEAD", metavar="COMMIT", help="(%(default)s)")
    bench.flag("--example", default="images", choices=("images", "text", "number"))
    bench.flag("--seeds", type=int, nargs="+", default=[0], quick=[0], metavar="SEED")
    bench.flag("--rows", type=int, default=0, quick=250, help="rows of the example, 0 for all")
    args = bench.arguments()
    with tempfile.TemporaryDirectory(prefix="stages-") as temporary:
        place = Path(temporary)
        old, new = checked_out(args.against, place / "old"), place / "new"
        as_it_is(new)
        codes = {"before": old, "after": new, "plain": new}
        found = measured(codes, place, args.example, args.seeds, args.rows)
    bench.report(by_stage(found), figures(found, args.against))


def measured(
    codes: Mapping[str, Path], place: Path, example: str, seeds: Sequence[int], rows: int
) -> dict[str, list[Timed]]:
    """Train with each seed by both sides, in an order that alternates."""
    found: dict[str, list[Timed]] = {side: [] for side in SIDES}
    for number, seed in enumerate(seeds):
        for side in SIDES[:: -1 if number % 2 else 1]:
            work = Path(tempfile.mkdtemp(dir=place))
            settings = json.dumps({"seed": seed, **SETTINGS[side]})
            one = timed(codes[side], work, [example, str(work / "run"), str(rows), settings])
            found[side].append(one)
            print(f"{side:7} seed {seed}: {one.total:6.1f} s, {one.score:.4f}", flush=True)
    return found


def timed(code: Path, work: Path, words: Sequence[str]) -> Timed:
    """Train in a process of its own, with an empty store; if it fails, exit with its last lines."""
    env = {**environ, "PYTHONPATH": str(code), "HEADSTART_STORE": str(work / "store")}
    began = time.perf_counter()
    command = [sys.executable, "-P", "-c", RUN, *words]
    ended = subprocess.run(command, env=env, check=False, stderr=subprocess.PIPE, text=True)
    whole = time.perf_counter() - began
    if ended.returncode:
        sys.exit(ended.stderr[-2000:])
    run = Path(words[1])
    seconds = dict(json.loads((run / "timings.json").read_text())["seconds"])
    test = json.loads((run / "evaluation.json").read_text())["test"]
    return Timed({**seconds, REST: whole - sum(seconds.values())}, main_score(test))


def main_score(test: Mapping[str, Any]) -> float:
    """Return the first metric of an evaluation, which is the main one: the accuracy of classes."""
    shown = (value for value in test.values() if isinstance(value, dict) and "value" in value)
    return float(next(shown)["value"])


def by_stage(found: Mapping[str, Sequence[Timed]]) -> list[dict[str, object]]:
    """Return a row per stage: its mean seconds on both sides, and its share after."""
    stages = dict.fromkeys(stage for side in SIDES for one in found[side] for stage in one.seconds)
    ordered = [stage for stage in stages if stage != REST] + [REST]
    totals = {side: mean(one.total for one in found[side]) for side in SIDES}
    rows: list[dict[str, object]] = []
    for stage in ordered:
        own = {side: mean(one.seconds.get(stage, 0.0) for one in found[side]) for side in SIDES}
        share = own["after"] / totals["after"]
        rows.append(
            {
                "stage": stage,
                **{f"{s}, s": round(v, 2) for s, v in own.items()},
                "share after": round(share, 3),
            }
        )
    whole = {f"{side}, s": round(total, 2) for side, total in totals.items()}
    return [*rows, {"stage": "all", **whole, "share after": 1.0}]


def figures(found: Mapping[str, Sequence[Timed]], against: str) -> dict[str, object]:
    def of_seconds(side: str) -> float:
        pairs = zip(found["before"], found[side], strict=True)
        return round(mean(new.total / old.total for old, new in pairs), 3)

    return {
        "before": git("rev-parse", "--short=7", against).decode().strip(),
        **{
            f"share beside the work, {side}": round(mean(one.beside for one in found[side]), 3)
            for side in SIDES
        },
        **{f"seconds {side} / before": of_seconds(side) for side in SIDES[1:]},
        **{f"score {side}": round(mean(one.score for one in found[side]), 4) for side in SIDES},
    }


if __name__ == "__main__":
    main()
