"""`headstart predict`: predict examples with a trained model."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.atomic import check_folder, write_json
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime
from headstart.cli.answers import Answering, Answers, print_answers
from headstart.cli.flags import (
    BUNDLE_RUNTIME,
    MODEL_HELP,
    add_files_flags,
    bundle_of,
    made,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import FAILED, tell_left_out
from headstart.cli.progress import Terminal, say

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset
    from headstart.models.model import Model

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
    parser.add_argument(
        "--coco",
        type=Path,
        metavar="FILE",
        help="write all detections as COCO's results (.json), for a model of boxes",
    )
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
    model = load_bundle(bundle_of(args.model)).model
    if args.coco:
        _check_coco(args.coco, model)
    pooled = model.target.takes == POOLED  # limits are distances of pooled features
    if not math.isfinite(model.limits.far) and pooled:
        noun = model.backbone.card.input.noun
        say("limits", f"this model has no limit for {noun} unlike those it learned from")

    def answering(files: "Dataset", listener: Listener) -> Answers:
        table = extract(model.backbone, files, runtime=runtime, listener=listener, stage="predict")
        found = model.predict_table(table)
        sets = model.limits.region(found.target, found.outputs).get("not_ruled_out")
        return Answers(found, table.left_out, model.doubts(found, table), sets)

    if args.coco:
        return _write_coco(answering, args, model)
    return print_answers(answering, args, model.backbone.card.input, AT_ONCE)


def _check_coco(path: Path, model: "Model") -> None:
    if not model.target.listing:
        raise SpecError(f"--coco is for a model of boxes; this one predicts {model.target.noun}.")
    if path.exists():
        raise SpecError(f"{path} is there already: name another --coco.")
    check_folder(path.parent)


def _write_coco(answering: Answering, args: argparse.Namespace, model: "Model") -> int:
    """Write the detections of all files, those of low scores too, by which average precision is
    measured; return the exit code."""
    from headstart.cli.answers import asked_files
    from headstart.data.boxes.results import coco_results
    from headstart.targets.boxes import BoxesTarget

    files, left_out = asked_files(args, model.backbone.card.input)
    answers = answering(files, Terminal())
    said = answers.predictions
    assert isinstance(said.target, BoxesTarget)
    write_json(args.coco, coco_results(said.ids, said.outputs, said.target))
    say("written", str(args.coco))
    code = tell_left_out((*left_out, *answers.left_out), most=len(left_out))
    return code if said.ids else FAILED
