"""`headstart explain`: saliency maps or marked words, their deletion curves, similar examples."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.base.display import displayed
from headstart.base.errors import SpecError
from headstart.base.runtime import Runtime
from headstart.cli.answers import given_texts
from headstart.cli.flags import add_flags, add_store_flag, made, named_files, store_of
from headstart.cli.opening import (
    add_json_flag,
    add_model_flags,
    named_model,
    work_through,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_line, print_table
from headstart.cli.progress import Terminal
from headstart.explaining.pixels.method import METHODS

if TYPE_CHECKING:
    from headstart.backbones.inputs import Input
    from headstart.data.dataset import Dataset, LeftOut

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
        help=f"folder for a PNG per picture, or an HTML and a JSON per text (default: {FOLDER}; "
        f"without FILE, RUN/{FOLDER})",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="where a run's examples are now (default: where it had them)",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text to explain, for a model of texts; may be given several times",
    )
    add_json_flag(parser, ", curves too")
    add_store_flag(parser)
    add_flags(parser, Runtime(), "device")
    return parser


def run(args: argparse.Namespace) -> int:
    of_run = args.backbone is None and len(args.names) == 1 and not args.text
    given, name = named_model(args)
    from headstart.explainer import Asked
    from headstart.explanations import explainer_of

    left_out: Sequence[LeftOut] = ()
    device = made(Runtime(), args).device
    asked = Asked(args.name, args.method, args.data, store_of(args), device)
    explainer = explainer_of(given, asked, Terminal(), name)
    if of_run:
        own = (explainer.run or Path()) / FOLDER
        work = explainer.of_run(args.out or own, own=args.out is None)
    else:
        examples, left_out = _examples(args, explainer.input, explainer.noun)
        work = explainer.of_files(examples, args.out or Path(FOLDER))

    def show(explanation: Any, file: Path) -> None:
        if args.json:
            return
        answer = explanation.answer or f"{explanation.score:.4f}"
        print_line(explanation.path, explanation.name, answer, str(file), flush=True)
        if details := explanation.details():
            print_table(details)

    done = work_through(work, "explain", "explained and kept", show, explainer.noun)
    if args.json:
        print_json([_plain(explanation, file) for explanation, file in done.results])
    return done.exit_code(left_out)


def _examples(
    args: argparse.Namespace, input: "Input[Any]", noun: str
) -> "tuple[Dataset, tuple[LeftOut, ...]]":
    """Return the examples named in `args`, and the files that are left out."""
    if not (args.names or args.text):
        raise SpecError(f"Name one or more {noun} to look at.")
    from headstart.modalities.reading import find

    return find([*named_files(args.names), *given_texts(args, input)], input=input)


def _plain(explanation: Any, file: Path) -> dict[str, object]:
    return explanation.to_plain() | {"path": displayed(explanation.path), "file": str(file)}
