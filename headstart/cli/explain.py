"""`headstart explain`: saliency maps, their deletion curves, and similar training pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.display import displayed
from headstart.base.store import Store
from headstart.cli.flags import add_store_flag
from headstart.cli.opening import (
    add_json_flag,
    add_model_flags,
    named_examples,
    open_named,
    work_through,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_line
from headstart.cli.progress import Terminal
from headstart.explaining.pixels.method import METHODS

if TYPE_CHECKING:
    from headstart.data.dataset import LeftOut
    from headstart.explaining.pixels.explanation import Explanation

FOLDER = "explained"


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("explain")
    add_model_flags(parser, files=True)
    parser.add_argument(
        "--class",
        dest="name",
        metavar="NAME",
        help="class or label to explain (default: the one that the model answers, the most "
        "probable label, a number or a grade)",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="best",
        help="how maps are made; best tries several and keeps the one whose deletion curve falls "
        "soonest (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"folder for a PNG per picture (default: {FOLDER}; without FILE, RUN/{FOLDER})",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="where a run's pictures are now (default: where it had them)",
    )
    add_json_flag(parser, ", curves too")
    add_store_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    of_run = args.backbone is None and len(args.names) == 1
    opened = open_named(args, "headstart explain takes", files=not of_run, of_classes=False)
    from headstart.pixels import Explainer

    left_out: Sequence[LeftOut] = ()
    explainer = Explainer(opened, args.name, args.method, args.data, Store(args.store), Terminal())
    if of_run:
        own = (opened.run or Path()) / FOLDER
        work = explainer.of_run(args.out or own, own=args.out is None)
    else:
        examples, left_out = named_examples(args)
        work = explainer.of_files(examples, args.out or Path(FOLDER))

    def show(explanation: "Explanation", file: Path) -> None:
        if not args.json:
            answer = explanation.answer or f"{explanation.score:.4f}"
            print_line(explanation.path, explanation.name, answer, str(file), flush=True)

    done = work_through(work, "explain", "explained and kept", show)
    if args.json:
        print_json([_plain(explanation, file) for explanation, file in done.results])
    return done.exit_code(left_out)


def _plain(explanation: "Explanation", file: Path) -> dict[str, object]:
    return explanation.to_plain() | {"path": displayed(explanation.path), "file": str(file)}
