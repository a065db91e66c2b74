"""`headstart verify`: run the golden examples of an export again."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.base.runtime import Runtime
from headstart.cli.flags import add_flags, made
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, print_json, print_words


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("verify")
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a folder that `headstart export` wrote"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    add_flags(parser, Runtime(), "threads")
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.exporting.verifying import verify_export

    found = verify_export(args.folder, made(Runtime(), args).resolved().threads)
    if args.json:
        print_json({**found.to_plain(), "folder": str(args.folder)})
    else:
        print_words(str(found))
    return DONE
