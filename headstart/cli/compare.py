"""`headstart compare`: compare runs with the first one."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import headstart as hs
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_table, tell_left_out


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("compare")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or CSV files of predictions"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def run(args: argparse.Namespace) -> int:
    runs, left_out = _finished(args.runs)
    code = tell_left_out(left_out)
    found = hs.compare_runs(runs)
    if args.json:
        print_json([one.to_plain() for one in found])
    else:
        print_table(hs.comparison_rows(found))
        print("\np is McNemar's: how likely such a difference is if both are equally accurate.")
    return code


def _finished(runs: Sequence[Path]) -> "tuple[list[Path], list[hs.LeftOut]]":
    """Separate the runs from other folders, which a pattern like `runs/*` includes."""
    from headstart.runs.folder import MARKER

    kept, left_out = list[Path](), list[hs.LeftOut]()
    for run in runs:
        unfinished = (run / MARKER).exists()
        if run.is_dir() and (unfinished or not (run / "predictions.csv").exists()):
            why = "the run is not finished" if unfinished else "holds no run"
            left_out.append(hs.LeftOut(str(run), why))
        else:
            kept.append(run)
    return kept, left_out
