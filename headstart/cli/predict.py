"""`headstart predict`: predict examples with a trained model."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime
from headstart.cli.answers import Answers, print_answers
from headstart.cli.flags import (
    BUNDLE_RUNTIME,
    MODEL_HELP,
    add_files_flags,
    bundle_of,
    made,
)
from headstart.cli.parser import Parser
from headstart.cli.progress import say

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset

AT_ONCE = 64  # examples per output of --csv and --jsonl


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("predict")
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help=MODEL_HELP)
    add_files_flags(parser, *BUNDLE_RUNTIME, needed=False)
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text to predict, for a model of texts; may be given several times",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.features.extract import extract
    from headstart.models.bundle import load_bundle

    if not (args.files or args.text):
        raise SpecError(
            "This is required: FILE, or --text TEXT. Type `headstart predict RUN_OR_BUNDLE FILE`."
        )
    runtime = made(Runtime(), args)
    model = load_bundle(bundle_of(args.model)).model
    if not math.isfinite(model.limits.far):
        noun = model.backbone.card.input.noun
        say("limits", f"this model has no limit for {noun} unlike those it learned from")

    def answering(files: "Dataset", listener: Listener) -> Answers:
        table = extract(model.backbone, files, runtime=runtime, listener=listener, stage="predict")
        found = model.predict_table(table)
        sets = model.limits.region(found.target, found.outputs).get("not_ruled_out")
        return Answers(found, table.left_out, model.doubts(found, table), sets)

    return print_answers(answering, args, model.backbone.card.input, AT_ONCE)
