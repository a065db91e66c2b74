"""`headstart views`: draw a grid of augmented views of one picture."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from headstart.cli.flags import add_flags, made
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE
from headstart.cli.progress import say
from headstart.modalities.images.augment import Augment

CHANGES = [field.name for field in fields(Augment) if field.name != "views"]  # 15 are drawn


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("views")
    parser.add_argument("file", type=Path, metavar="FILE", help="one image")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="the file to write")
    parser.add_argument(
        "--size",
        type=int,
        default=224,
        metavar="N",
        help="side of a view, in pixels (default: 224)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another seed draws others (default: 0)"
    )
    add_flags(parser, Augment(), *CHANGES)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.pixels import draw_views

    draw_views(args.file, made(Augment(), args), args.out, args.size, args.seed)
    say("views", f"the picture, top left, and 15 views of it: {args.out}")
    return DONE
