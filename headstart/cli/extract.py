"""`headstart extract`: compute features into the store, here or on a cluster."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from headstart.base.runtime import Runtime
from headstart.cli.flags import DATA_HELP, add_flags, add_store_flag, add_weights_flag, made
from headstart.cli.measuring import GOES_ON, RUNTIME, opened
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_words, tell_left_out
from headstart.cli.progress import kept_if_stopped
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.specs import FeatureExtraction
from headstart.targets.plan import TargetPlan


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("extract")
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--backbone",
        default=DEFAULT_BACKBONE,
        metavar="NAME",
        help="pretrained network (default: %(default)s)",
    )
    add_weights_flag(parser)
    add_flags(parser, FeatureExtraction(), "size", "fit", "draft")
    ray = parser.add_argument_group("on several machines")
    ray.add_argument(
        "--on-ray",
        action="store_true",
        help="on a Ray cluster; one of this machine's cores without --address",
    )
    ray.add_argument(
        "--address",
        default="",
        metavar="HOST:PORT",
        help="of a running cluster, whose nodes all see the store and the data",
    )
    add_flags(parser, TargetPlan(), "target", "ordered")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    add_store_flag(parser)
    add_flags(parser, Runtime(), *RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.runs.extraction import extract_to_store

    if args.on_ray and "threads" not in args:
        args.threads = 1  # a process a core
    spec = made(FeatureExtraction(), args)
    data, context = opened(args)
    with kept_if_stopped(GOES_ON):
        found = extract_to_store(
            data,
            spec,
            args.backbone,
            args.weights,
            context,
            on_ray=args.on_ray,
            address=args.address,
        )
    left_out = (*data.left_out, *found.left_out)
    if args.json:
        counts = asdict(replace(found, left_out=()))
        left = [{"path": item.path, "reason": item.reason} for item in left_out]
        print_json({**counts, "left_out": left})
    else:
        print_words(
            f"{found.rows - len(found.left_out):,} of {found.rows:,} rows have features in the "
            f"store: {found.forwards:,} computed, {found.hits:,} found there; {found.seconds:.0f} s"
        )
    return tell_left_out(left_out)
