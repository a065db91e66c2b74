"""`headstart classify`: the class of images, by a pretrained network as it is."""

import argparse
from collections.abc import Sequence

import headstart as hs
from headstart.cli.flags import BUNDLE_RUNTIME, add_files_flags, add_weights_flag, made, named_files
from headstart.cli.parser import Parser
from headstart.cli.printing import Told, print_predictions


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("classify")
    parser.add_argument("--backbone", default=hs.DEFAULT_BACKBONE, help="source:id (%(default)s)")
    add_weights_flag(parser)
    add_files_flags(parser, "device", *BUNDLE_RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    runtime = made(hs.Runtime(), args)
    backbone = hs.load_backbone(args.backbone, weights=args.weights)
    files, left_out = hs.find(named_files(args.files))
    said, more = hs.classify(backbone, files, runtime=runtime)
    return print_predictions(Told(said), args, (*left_out, *more))
