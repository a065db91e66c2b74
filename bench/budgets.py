"""What a run with a time budget comes to: its seconds, and its accuracy on the test part.

    python bench/budgets.py [--budgets 60 180 600] [--seed 0]
    python bench/budgets.py --quick

ELPV, 2,624 solar cells of 300 pixels, whole cells as squares, each budget with an empty
store and in a process of its own. The seconds are those of the process, from its start to its end;
a run is in time if they are at most a tenth above the budget. The split is the same for all
budgets.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from os import environ
from pathlib import Path

from harness import Bench

import headstart as hs
from headstart.evaluation.evaluation import compare
from headstart.targets.predictions import read_predictions

LATE = 0.1  # share of the budget that a run may take more
# Arguments: the folder of the run, the budget, the seed, the number of cells, the backbone.
RUN = """
import sys, time
began = time.monotonic()
from pathlib import Path
from headstart.base.store import Store
from headstart.cli.progress import Terminal
from headstart.explaining.pixels.squares import stratified_rows
from headstart.modalities.images.examples import solar_cells
from headstart.runs.job import Job
from headstart.runs.run import train
from headstart.runs.settings import job_with
out, budget, seed, rows, backbone = sys.argv[1:]
cells = solar_cells()
cells = cells.take(stratified_rows(cells.y, int(rows)))
settings = {"budget": float(budget), "seed": int(seed), "fit": "squash", "backbone": backbone}
train(cells, Path(out), job_with(Job(store=Store(None)), settings), Terminal(), began=began)
"""


def main() -> None:
    bench = Bench("budgets", __doc__)
    bench.flag("--budgets", type=float, nargs="+", default=[60.0, 180.0, 600.0], quick=[45.0])
    bench.flag("--seed", type=int, default=0)
    bench.flag("--cells", type=int, default=10**6, quick=120, help="to split, at most")
    bench.flag("--backbone", default="packaged:efficientnet_lite0", quick="tiny:32")
    args = bench.arguments()
    with tempfile.TemporaryDirectory(prefix="budgets-") as folder:
        place = Path(folder)
        rows = list[dict[str, object]]()
        for budget in args.budgets:
            words = [f"{budget:g}", str(args.seed), str(args.cells), args.backbone]
            rows.append(one_run(place / f"{budget:g}", budget, words))
            print(rows[-1], flush=True)
        bench.report(rows, {**in_time(rows), **gains(place, args.budgets)})


def one_run(out: Path, budget: float, words: Sequence[str]) -> dict[str, object]:
    """Train in a process of its own, with an empty store; if it fails, exit with its last lines."""
    env = {**environ, "HEADSTART_STORE": str(out.with_suffix(".store"))}
    began = time.perf_counter()
    command = [sys.executable, "-P", "-c", RUN, str(out), *words]
    ended = subprocess.run(command, env=env, check=False, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    if ended.returncode:
        sys.exit(ended.stderr[-2000:])
    print(ended.stderr, (out / "timings.json").read_text(), file=sys.stderr, flush=True)
    recipe, timings, judged = (
        json.loads((out / name).read_text())
        for name in ("recipe.json", "timings.json", "evaluation.json")
    )
    plan = timings["plan"]
    accuracy = judged["test"]["accuracy"]
    hs.load(out)  # the bundle is whole
    return {
        "budget, s": budget,
        "seconds": round(seconds, 1),
        "overrun, %": round(100 * (seconds / budget - 1), 1),
        "planned": round(sum(part["seconds"] for part in plan["parts"]), 1),
        "side": plan["choice"]["side"] or "whole",
        "epochs": plan["choice"]["epochs"],
        "refitted": recipe["strategy"]["refitted"],
        "kept": recipe["strategy"]["kept"],
        "accuracy": "{value:.3f} [{low:.3f}, {high:.3f}] n={n}".format(**accuracy),
    }


def in_time(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    late = [float(str(row["overrun, %"])) for row in rows]
    return {"in time": max(late) <= 100 * LATE, "overrun, %, the largest": max(late)}


def gains(place: Path, budgets: Sequence[float]) -> dict[str, object]:
    """What each budget gains over the one before, on the same test cells, with its interval."""
    said = [read_predictions(place / f"{b:g}" / "predictions.csv") for b in budgets]
    return {
        f"accuracy gained, {more:g} s over {less:g} s": str(compare(after, before))
        for less, more, before, after in zip(budgets, budgets[1:], said, said[1:], strict=False)
    }


if __name__ == "__main__":
    main()
