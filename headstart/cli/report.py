"""`headstart report`: rewrite the report of a run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.base.atomic import check_folder
from headstart.base.errors import DataError
from headstart.cli.flags import add_language_flag
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE
from headstart.cli.progress import Terminal, say


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("report")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--data", type=Path, help="where the examples are now (default: where the run had them)"
    )
    add_language_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.reporting.page import write_report
    from headstart.runs.recorded import recorded_files

    if not args.run.exists():
        raise DataError(f"There is no run {args.run}. Check the path.")
    sources = recorded_files(args.run, args.data, Terminal())
    check_folder(args.run)
    page = write_report(args.run, sources, args.language)
    say("report", str(page))
    return DONE
