"""`headstart demo`: train on the built-in example."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import headstart as hs
from headstart.cli.flags import add_store_flag
from headstart.cli.opening import CELLS
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
    out = args.out or _free(Path("runs/demo"))
    say("demo", "solar cells, defective or not (ELPV data set, CC BY-NC-SA 4.0, not shipped)")
    job = hs.Job(
        source=CELLS,
        data_licence="CC BY-NC-SA 4.0",
        recipe=hs.FeatureExtraction(fit="squash"),
        finetune=hs.FineTune(epochs=5, lr=2e-4),
        augment=hs.Augment(flip="both", quarter_turns=True, views=4),  # a cell has no upside
        store=hs.Store(args.store),
    )
    data = hs.solar_cells()
    kept = f"what was finished is kept; headstart demo --out {out} goes on from there"
    with kept_if_stopped(kept):
        finished = hs.train(data, out, job, Terminal())
    print_run(finished)
    test, folder = finished.splits.test, finished.folder
    few = test.take(range(0, len(test), max(1, len(test) // 5)))
    said = hs.load_bundle(folder / "model").model.predict(few, store=None)
    print("\na few test cells, by the saved bundle")
    print_table([("cell", "truth", "predicted", "score"), *predicted_rows(said)])
    print()
    print_line(f"next: look at {folder / 'report.html'}; headstart predict {folder} FILE…")
    return tell_left_out(finished.left_out)


def _free(path: Path) -> Path:
    """Return `path`, or the first free name of path-2, path-3, …"""
    names = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in range(1, 10_000))
    return next(name for name in names if not name.exists())
