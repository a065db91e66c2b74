"""`headstart views`: draw a grid of augmented views of one picture."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import headstart as hs
from headstart.base.atomic import check_folder
from headstart.base.errors import SpecError
from headstart.cli.flags import add_flags, made
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE
from headstart.cli.progress import say


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
    changes = [field.name for field in fields(hs.Augment) if field.name != "views"]  # 15 are drawn
    add_flags(parser, hs.Augment(), *changes)
    return parser


def run(args: argparse.Namespace) -> int:
    augment = made(hs.Augment(), args)
    if not augment.active:
        raise SpecError("No change was asked for: add --flip horizontal, --rotation 0.1, ….")
    if args.out.exists():
        raise SpecError(f"{args.out} is there already: name another --out.")
    check_folder(args.out.parent)
    hs.draw_views(args.file, args.out, augment, size=args.size, seed=args.seed)
    say("views", f"the picture, top left, and 15 views of it: {args.out}")
    return DONE
