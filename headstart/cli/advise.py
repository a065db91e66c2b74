"""`headstart advise`: what to freeze, what to tune and how long it takes, measured on a sample."""

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
from headstart.cli.search import GOES_ON, RUNTIME
from headstart.data.checks import CheckPlan
from headstart.evaluation.advice import AdvicePlan
from headstart.targets.plan import TargetPlan


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("advise")
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    add_flags(parser, AdvicePlan())
    parser.add_argument("--json", action="store_true", help="print what was measured, as JSON")
    add_store_flag(parser)
    add_flags(parser, TargetPlan(), "target", "ordered")
    add_flags(parser, CheckPlan())
    add_flags(parser, Runtime(), *RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.base.context import RunContext
    from headstart.base.store import Store
    from headstart.modalities.reading import read_as
    from headstart.runs.advise import advise

    plan, limits = made(AdvicePlan(), args), made(CheckPlan(), args)
    context = RunContext(Store(args.store), made(Runtime(), args).resolved(), Terminal())
    data = read_as(args.data, made(TargetPlan(), args))
    if data.choice:
        say("target", data.choice)
    with kept_if_stopped(GOES_ON):
        found = advise(data, plan, context, limits)
    command = found.command(str(args.data))
    if args.json:
        print_json({**found.to_plain(), "strategy": found.strategy, "command": command})
        return tell_left_out(found.search.left_out)
    for paragraph in found.words:
        print(textwrap.fill(display(paragraph), WIDE, break_on_hyphens=False))
        print()
    print_table(found.search.table())
    print()
    print_line(command)
    return tell_left_out(found.search.left_out)
