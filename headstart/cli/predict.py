"""`headstart predict`: the class of images, by a trained model."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import headstart as hs
from headstart.cli.flags import (
    BUNDLE_RUNTIME,
    MODEL_HELP,
    add_files_flags,
    bundle_of,
    made,
    named_files,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import Told, print_predictions
from headstart.cli.progress import Terminal


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("predict")
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help=MODEL_HELP)
    add_files_flags(parser, *BUNDLE_RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    runtime = made(hs.Runtime(), args)
    bundle = hs.load(bundle_of(args.model))
    files, left_out = hs.find(named_files(args.files))
    backbone, listener = bundle.model.backbone, Terminal()
    table = hs.extract(backbone, files, runtime=runtime, listener=listener, stage="predict")
    said = bundle.model.predict_table(table)
    told = Told(said, bundle.model.doubts(said, table), bundle.model.limits.sets(said.scores))
    return print_predictions(told, args, (*left_out, *table.left_out))
