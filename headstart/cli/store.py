"""`headstart store`: merge the files of the store, or verify them."""

import argparse
from collections.abc import Sequence
from functools import partial

from headstart.base.store import Store
from headstart.cli.flags import add_store_flag
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, LEFT_OUT, print_json, print_words
from headstart.cli.progress import Terminal, kept_if_stopped, say

WORK = ("compact", "verify")


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("store")
    parser.add_argument(
        "work",
        choices=WORK,
        metavar="|".join(WORK),
        help="compact: merge the many small files into few large ones with an index, while no "
        "other command uses the store. verify: read every file again and compare it with its "
        "digest, which a machine otherwise does once for each file",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    add_store_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.base import compacting

    store, progress = Store(args.store), partial(Terminal().progress, "store")
    with kept_if_stopped("the store is as good as before; the same command goes on from there"):
        found = getattr(compacting, args.work)(store, progress)
    if args.json:
        print_json({**found.to_plain(), "folder": str(store.folder)})
    else:
        merged = f"; {found.merged:,} files were merged" if found.merged else ""
        print_words(f"{store.folder}: {found}{merged}")
    for path in found.damaged:
        say("damaged", f"{path} can be deleted: its rows are computed again when they are needed")
    return LEFT_OUT if found.damaged else DONE
