"""`headstart compare`: compare runs with the first one."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.cli.flags import add_flags, made
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_table, tell_left_out
from headstart.targets.plan import TargetPlan


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("compare")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or CSV files of predictions"
    )
    add_flags(parser, TargetPlan(), "target", "ordered")
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.evaluation.comparison import comparison_note, comparison_rows
    from headstart.runs.comparison import compare_runs, finished_runs

    runs, left_out = finished_runs(args.runs)
    code = tell_left_out(left_out)
    plan = made(TargetPlan(), args)
    found = compare_runs(runs, plan.target, plan.ordered)
    if args.json:
        print_json([one.to_plain() for one in found])
    else:
        print_table(comparison_rows(found))
        print("\n" + comparison_note(found))
    return code
