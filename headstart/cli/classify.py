"""`headstart classify`: predict images with a pretrained network and its own head."""

import argparse
from collections.abc import Sequence

import headstart as hs
from headstart.base.listener import Listener
from headstart.cli.answers import Answers, print_answers
from headstart.cli.flags import BUNDLE_RUNTIME, add_files_flags, add_weights_flag, made
from headstart.cli.parser import Parser


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("classify")
    parser.add_argument(
        "--backbone",
        default=hs.DEFAULT_BACKBONE,
        metavar="NAME",
        help="pretrained network, as source:id; see `headstart backbones` (default: %(default)s)",
    )
    add_weights_flag(parser)
    add_files_flags(parser, "device", *BUNDLE_RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    runtime = made(hs.Runtime(), args)
    backbone = hs.load_backbone(args.backbone, weights=args.weights)

    def answering(files: "hs.Dataset", listener: Listener) -> Answers:
        return Answers(*hs.classify(backbone, files, runtime=runtime))

    return print_answers(answering, args, backbone.card.input)
