"""`headstart search`: compare pretrained networks on a sample of the data."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from headstart.base.display import display
from headstart.base.runtime import Runtime
from headstart.cli.flags import DATA_HELP, add_flags, add_store_flag, made
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_line, print_table, tell_left_out
from headstart.cli.progress import WIDE, Terminal, kept_if_stopped, say
from headstart.data.checks import CheckPlan
from headstart.evaluation.backbone_search import SearchPlan
from headstart.targets.plan import TargetPlan

RUNTIME = ("device", "threads", "decode_threads", "engine", "compute_precision")
GOES_ON = "the features so far are kept; the same command goes on from there"


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("search")
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    add_flags(parser, SearchPlan())
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to keep the table in")
    parser.add_argument("--json", action="store_true", help="print all that was tried, as JSON")
    add_store_flag(parser)
    add_flags(parser, TargetPlan(), "target", "ordered")
    add_flags(parser, CheckPlan())
    add_flags(parser, Runtime(), *RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.base.context import RunContext
    from headstart.base.store import Store
    from headstart.modalities.reading import read_as
    from headstart.runs.search import search

    plan, limits = made(SearchPlan(), args), made(CheckPlan(), args)
    context = RunContext(Store(args.store), made(Runtime(), args).resolved(), Terminal())
    data = read_as(args.data, made(TargetPlan(), args))
    if data.choice:
        say("target", data.choice)
    with kept_if_stopped(GOES_ON):
        found = search(data, plan, context, checks=limits, out=args.out)
    if args.json:
        print_json(found.to_plain())
    else:
        print_table(found.table())
        print()
        print(textwrap.fill(display(found.why), WIDE))
        print_line(f"headstart train {args.data} --out RUN --backbone {found.chosen}")
    return tell_left_out(found.left_out)
