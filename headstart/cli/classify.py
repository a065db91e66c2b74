"""`headstart classify`: predict images with a pretrained network and its own head."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.base.listener import Listener
from headstart.base.runtime import Runtime
from headstart.cli.answers import Answers, print_answers
from headstart.cli.flags import BUNDLE_RUNTIME, add_files_flags, add_weights_flag, made
from headstart.cli.parser import Parser
from headstart.modalities.sources import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("classify")
    parser.add_argument(
        "--backbone",
        default=DEFAULT_BACKBONE,
        metavar="NAME",
        help="pretrained network, as source:id; see `headstart backbones` (default: %(default)s)",
    )
    add_weights_flag(parser)
    add_files_flags(parser, "device", *BUNDLE_RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.features.loading import load_for_features
    from headstart.models.model import classify

    runtime = made(Runtime(), args)
    backbone = load_for_features(args.backbone, args.weights, runtime)

    def answering(files: "Dataset", listener: Listener) -> Answers:
        return Answers(*classify(backbone, files, runtime=runtime))

    return print_answers(answering, args, backbone.card.input)
