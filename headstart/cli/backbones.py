"""`headstart backbones`: list the pretrained networks."""

import argparse
from collections.abc import Sequence
from dataclasses import fields

from headstart.base.errors import DataError
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, print_json, print_table


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("backbones")
    parser.add_argument(
        "pattern",
        nargs="?",
        default="",
        metavar="PATTERN",
        help='names to list, such as "timm:*vit*" (quote the stars)',
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.modalities.sources import Listing, list_backbones

    listed = list(list_backbones(args.pattern))
    columns = [f.name for f in fields(Listing)]
    if args.json:
        print_json([{c: getattr(b, c) for c in columns} for b in listed])
    else:
        print_table([tuple(columns), *(tuple(getattr(b, c) for c in columns) for b in listed)])
    if not listed:
        raise DataError(
            f"No backbone matches {args.pattern!r}. Try `headstart backbones` alone, or a pattern "
            f"of timm's, as 'timm:*resnet*'."
        )
    return DONE
