"""`headstart demo`: train on the built-in example."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headstart.cli.flags import add_store_flag
from headstart.cli.parser import Parser
from headstart.cli.printing import predicted_rows, print_line, print_run, print_table, tell_left_out
from headstart.cli.progress import Terminal, kept_if_stopped, say


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("demo")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="folder for the run (default: runs/demo, or -2, …)"
    )
    add_store_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.base.store import Store
    from headstart.modalities.images.examples import solar_cells
    from headstart.models.bundle import load_bundle
    from headstart.runs.folder import free_folder
    from headstart.runs.recipes import DEMO
    from headstart.runs.run import train

    out = args.out or free_folder(Path("runs/demo"))
    say("demo", "solar cells, defective or not (ELPV data set, CC BY-NC-SA 4.0, not shipped)")
    job = replace(DEMO, store=Store(args.store))
    data = solar_cells()
    kept = f"what was finished is kept; headstart demo --out {out} goes on from there"
    with kept_if_stopped(kept):
        finished = train(data, out, job, Terminal())
    print_run(finished)
    test, folder = finished.splits.test, finished.folder
    few = test.take(range(0, len(test), max(1, len(test) // 5)))
    said = load_bundle(folder / "model").model.predict(few, store=None)
    print("\na few test cells, by the saved bundle")
    print_table([("cell", "truth", "predicted", "score"), *predicted_rows(said)])
    print()
    print_line(f"next: look at {folder / 'report.html'}; headstart predict {folder} FILE…")
    return tell_left_out(finished.left_out)
