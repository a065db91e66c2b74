"""`headstart advise`: what to freeze, what to tune and how long it takes, measured on a sample."""

import argparse
import textwrap
from collections.abc import Sequence

from headstart.base.display import display
from headstart.cli.flags import add_flags, made
from headstart.cli.measuring import GOES_ON, add_measuring_flags, measuring_parser, opened
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_line, print_table, tell_left_out
from headstart.cli.progress import WIDE, kept_if_stopped
from headstart.data.checks import CheckPlan
from headstart.evaluation.advice import AdvicePlan
from headstart.targets.plan import TargetPlan


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = measuring_parser("advise")
    add_flags(parser, AdvicePlan())
    add_measuring_flags(parser, "what was measured")
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.runs.advise import advise

    plan, limits = made(AdvicePlan(), args), made(CheckPlan(), args)
    data, context = opened(args)
    with kept_if_stopped(GOES_ON):
        found = advise(data, plan, context, limits, made(TargetPlan(), args))
    command = found.command(str(args.data))
    left_out = (*found.search.unread, *found.search.left_out)
    if args.json:
        print_json({**found.to_plain(), "strategy": found.strategy, "command": command})
        return tell_left_out(left_out)
    for paragraph in found.words:
        print(textwrap.fill(display(paragraph), WIDE, break_on_hyphens=False))
        print()
    print_table(found.search.table())
    print()
    print_line(command)
    return tell_left_out(left_out)
