"""`headstart recipes`: list the named recipes."""

import argparse
import textwrap
from collections.abc import Sequence

from headstart.base.values import to_plain
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, print_json


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("recipes")
    parser.add_argument("--json", action="store_true", help="print one JSON value, every setting")
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.runs.recipes import RECIPES

    if args.json:
        print_json({name: to_plain(named.job) for name, named in RECIPES.items()})
        return DONE
    for name, named in RECIPES.items():
        print(
            f"{name}\n{textwrap.fill(named.does, 78, initial_indent='  ', subsequent_indent='  ')}"
        )
    print("\nType `headstart train DATA --out RUN --recipe NAME`; flags change its settings.")
    return DONE
