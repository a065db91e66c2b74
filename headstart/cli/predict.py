"""`headstart predict`: predict examples with a trained model."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime
from headstart.cli.answers import (
    Answering,
    Answers,
    asked_files,
    check_table,
    print_of_files,
)
from headstart.cli.box_files import BoxFiles, add_box_flags, asks_for_files, check_box_flags
from headstart.cli.flags import (
    BUNDLE_RUNTIME,
    MODEL_HELP,
    add_files_flags,
    add_sha256_flag,
    bundle_of,
    made,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import FAILED, tell_left_out
from headstart.cli.progress import Terminal, say

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset, LeftOut

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
    add_sha256_flag(parser)
    add_box_flags(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.features.extract import extract
    from headstart.models.bundle import load_bundle
    from headstart.targets.target import POOLED

    if not (args.files or args.text):
        raise SpecError(
            "This is required: FILE, or --text TEXT. Type `headstart predict RUN_OR_BUNDLE FILE`."
        )
    runtime = made(Runtime(), args)
    model = load_bundle(bundle_of(args.model), sha256=args.sha256).model
    check_box_flags(args, model)
    pooled = model.target.takes == POOLED  # limits are distances of pooled features
    if not math.isfinite(model.limits.far) and pooled:
        noun = model.backbone.card.input.noun
        say("limits", f"this model has no limit for {noun} unlike those it learned from")

    def answers(files: "Dataset", listener: Listener) -> Answers:
        table = extract(model.backbone, files, runtime=runtime, listener=listener, stage="predict")
        found = model.predict_table(table)
        sets = model.limits.region(found.target, found.outputs).get("not_ruled_out")
        return Answers(found, table.left_out, model.doubts(found, table), sets)

    answering: Answering = answers
    check_table(args)
    files, left_out = asked_files(args, model.backbone.card.input)
    if not asks_for_files(args):
        return print_of_files(answering, args, files, left_out, AT_ONCE)
    written = BoxFiles.of(args, model, files)
    answering = written.with_files(answering)
    if args.csv or args.jsonl or args.json or not (args.coco or args.yolo):
        code = print_of_files(answering, args, files, left_out, AT_ONCE)
    else:
        code = _in_silence(answering, files, left_out)
    written.finish()
    return code


def _in_silence(answering: Answering, files: "Dataset", left_out: "Sequence[LeftOut]") -> int:
    """Predict files without printing answers; return the exit code."""
    answers = answering(files, Terminal())
    bad = (*left_out, *answers.left_out)
    code = tell_left_out(bad, most=len(bad))
    return code if len(answers.predictions) else FAILED
