"""`headstart serve`: answer requests for predictions over HTTP, with a page for people."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.cli.flags import add_flags, made
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE
from headstart.cli.progress import Terminal
from headstart.serving.settings import ServeSpec


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("serve")
    parser.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="RUN_OR_BUNDLE",
        help="run folders, or the bundles in them; SIGHUP takes their newer versions",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="name of a model in addresses, once for each model (default: its folder's)",
    )
    add_flags(parser, ServeSpec())
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.serving.entry import prediction_server

    spec = made(ServeSpec(), args)
    prediction_server(args.models, args.name, spec, Terminal()).run()
    return DONE
