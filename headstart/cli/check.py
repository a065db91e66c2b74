"""`headstart check`: find problems of the data before training."""

import argparse
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.display import display
from headstart.base.errors import MissingPackage, SpecError
from headstart.base.runtime import Runtime
from headstart.cli.flags import (
    BUNDLE_RUNTIME,
    DATA_HELP,
    add_flags,
    add_store_flag,
    add_weights_flag,
    made,
    store_of,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_line, print_table, tell_left_out
from headstart.cli.progress import Terminal, kept_if_stopped, say
from headstart.data.checks import CheckPlan
from headstart.modalities.sources import DEFAULT_BACKBONE, usual_backbone
from headstart.targets.plan import TargetPlan

if TYPE_CHECKING:
    from headstart.backbones.backbone import Backbone
    from headstart.backbones.frozen import Frozen
    from headstart.data.dataset import Dataset
    from headstart.evaluation.source_distance import SourceDistance


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("check")
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--json", action="store_true", help="print everything found, as JSON")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="compare the data with what this network learned on, as source:id; none skips it "
        f"(default: {DEFAULT_BACKBONE}, for texts the one for their language, if installed)",
    )
    add_weights_flag(parser)
    add_store_flag(parser)
    add_flags(parser, TargetPlan(), "target", "ordered", "voc_base")
    add_flags(parser, CheckPlan())
    add_flags(parser, Runtime(), "device", *BUNDLE_RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.backbones.frozen import Frozen
    from headstart.data.checks import CheckPlan, check, good_rows, with_parts
    from headstart.data.splits import split
    from headstart.evaluation.source_distance import has_distance, source_distance
    from headstart.modalities.reading import read_as, survey

    plan, runtime = made(CheckPlan(), args), made(Runtime(), args).resolved()
    data = read_as(args.data, made(TargetPlan(), args))
    backbone = _compared_with(args, data)
    listener = Terminal()
    with kept_if_stopped("what was seen of the files is kept; the same command goes on from there"):
        seen = survey(
            data,
            store=store_of(args),
            threads=runtime.decode_threads,
            progress=partial(listener.progress, "checks"),
        )
    found, threads = check(data, seen, threads=runtime.decode_threads), runtime.decode_threads
    if backbone:
        found = with_parts(found, backbone.card.input, store=store_of(args), threads=threads)
    if data.choice:
        say("target", data.choice)
    if not args.json:
        print_table(found.findings.table(found.dataset.noun))
    far = None
    if backbone is None or not has_distance(backbone):
        pass
    elif isinstance(backbone, Frozen):
        why = MissingPackage("torch", purpose="This distance", extra="train")
        say("unlike", f"left out: {why}")
    elif len(found.dataset):
        far = source_distance(backbone, found.dataset, runtime=runtime, listener=listener)
    if args.json:
        print_json(found.findings.to_plain() | {"unlike": far and far.to_plain()})
    elif far:
        _print_distance(far)
    if found.warning:
        say("warning", found.warning)
    good_rows(data, seen, plan)  # raises the errors that training would raise
    parts = split(found.dataset, together=found.exact)  # with default shares; as above
    if few := parts.test.target.about_test(parts.test.y):
        say("warning", few)
    return tell_left_out(found.left_out)


def _compared_with(args: argparse.Namespace, data: "Dataset") -> "Backbone | Frozen | None":
    """Load the backbone in `args`; None if the usual one for the data is not installed."""
    from headstart.modalities.sources import load_backbone

    if args.backbone == "none":
        if args.weights != "pretrained":
            raise SpecError("--weights goes with a --backbone, and none was to be compared with.")
        return None
    usual, why = (args.backbone, "") if args.backbone else usual_backbone(DEFAULT_BACKBONE, data)
    if why:
        say("backbone", why)
    try:
        return load_backbone(usual, weights=args.weights)
    except MissingPackage as error:
        if args.backbone:
            raise
        say("unlike", f"left out: {error}")
        return None


def _print_distance(far: "SourceDistance") -> None:
    print()
    print_line(f"source task: {far.sentence}")
    if far.distance or far.sure:
        print_table(far.table())
    print(textwrap.fill(display(far.advice), 78, initial_indent="  ", subsequent_indent="  "))
