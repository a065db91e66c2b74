"""`headstart export`: write a model as one graph that other programs run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.base.atomic import check_folder
from headstart.base.errors import SpecError
from headstart.base.runtime import Runtime
from headstart.cli.flags import (
    BUNDLE_RUNTIME,
    MODEL_HELP,
    add_flags,
    add_sha256_flag,
    add_store_flag,
    bundle_of,
    made,
    store_of,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, print_json, print_words
from headstart.cli.progress import Terminal
from headstart.exporting.plan import ExportPlan


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("export")
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help=MODEL_HELP)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new folder for the export"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="labelled data, for a bundle without its run, or where the run's data is now",
    )
    add_flags(parser, ExportPlan())
    add_sha256_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    add_store_flag(parser)
    add_flags(parser, Runtime(), *BUNDLE_RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    plan = made(ExportPlan(), args)
    if args.out.exists():
        raise SpecError(f"{args.out} is there already: name another --out.")
    check_folder(args.out.resolve().parent)
    from headstart.base.context import RunContext  # loads NumPy, which --help does not need
    from headstart.exporting.export import export_model
    from headstart.models.bundle import load_bundle
    from headstart.runs.export_rows import export_rows

    context = RunContext(store_of(args), made(Runtime(), args).resolved(), Terminal())
    model = load_bundle(bundle_of(args.model), sha256=args.sha256).model
    rows = export_rows(model, args.model, args.data, plan.narrow, context)
    found = export_model(model, plan, args.out, rows, context)
    if args.json:
        print_json({**found.to_plain(), "folder": str(args.out)})
    else:
        for line in str(found).splitlines():
            print_words(line)
    return DONE
