"""What `search` and `advise` share: commands that measure on data and make no run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.runtime import Runtime
from headstart.cli.flags import DATA_HELP, add_flags, add_store_flag, made, store_of
from headstart.cli.parser import Parser
from headstart.cli.progress import Terminal, say
from headstart.data.checks import CheckPlan
from headstart.targets.plan import TargetPlan

if TYPE_CHECKING:
    from headstart.base.context import RunContext
    from headstart.data.dataset import Dataset

RUNTIME = ("device", "threads", "decode_threads", "engine", "compute_precision")
GOES_ON = "the features so far are kept; the same command goes on from there"


def measuring_parser(command: str) -> Parser:
    """Return the parser of such a command, with its data."""
    parser = Parser(command)
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    return parser


def add_measuring_flags(parser: Parser, shown: str) -> None:
    """Add the flags that such commands share, after their own. shown: what --json prints."""
    parser.add_argument("--json", action="store_true", help=f"print {shown}, as JSON")
    add_store_flag(parser)
    add_flags(parser, TargetPlan(), "target", "ordered")
    add_flags(parser, CheckPlan())
    add_flags(parser, Runtime(), *RUNTIME)


def opened(args: argparse.Namespace) -> "tuple[Dataset, RunContext]":
    """Read the data, and report how its labels were read; return it with a RunContext."""
    from headstart.base.context import RunContext
    from headstart.modalities.reading import read_as

    context = RunContext(store_of(args), made(Runtime(), args).resolved(), Terminal())
    data = read_as(args.data, made(TargetPlan(), args))
    if data.choice:
        say("target", data.choice)
    return data, context
