"""`headstart compare`: runs against the first of them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import headstart as hs
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, print_json, print_table


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("compare")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or files of predictions"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def run(args: argparse.Namespace) -> int:
    found = hs.compare_runs(args.runs)
    if args.json:
        print_json([one.to_plain() for one in found])
    else:
        print_table(hs.comparison_rows(found))
        print("\np is McNemar's: how likely such a difference is if both are equally accurate.")
    return DONE
