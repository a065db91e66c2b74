"""`headstart report`: rewrite the report of a run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import headstart as hs
from headstart.base.atomic import check_folder
from headstart.base.errors import DataError
from headstart.cli.flags import add_language_flag
from headstart.cli.opening import sources_of
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE
from headstart.cli.progress import say


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("report")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--data", type=Path, help="where the pictures are now (default: where the run had them)"
    )
    add_language_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if not args.run.exists():
        raise DataError(f"There is no run {args.run}. Check the path.")
    sources = sources_of(args.run, args.data)
    check_folder(args.run)
    page = hs.write_report(args.run, sources, args.language)
    say("report", str(page))
    return DONE
