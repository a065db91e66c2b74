"""`headstart evaluate`: measure a model on labelled images."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import headstart as hs
from headstart.base.errors import DataError, Mismatch, SpecError
from headstart.cli.flags import (
    BUNDLE_RUNTIME,
    DATA_HELP,
    MODEL_HELP,
    add_flags,
    add_store_flag,
    bundle_of,
    made,
)
from headstart.cli.opening import source_of
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, print_evaluation, print_json, tell_left_out
from headstart.cli.progress import FEATURES_KEPT, Terminal, kept_if_stopped


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("evaluate")
    parser.add_argument(
        "model",
        type=Path,
        metavar="RUN_OR_BUNDLE",
        help=f"{MODEL_HELP}; or a CSV of path,label,predicted,score:CLASS…, made anywhere",
    )
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--part",
        choices=("auto", "train", "val", "test", "all"),
        default="auto",
        help="rows to measure; auto takes the test rows of data in parts, or of the run's data, "
        "and never a picture that the run learned from, under whatever name (default: auto)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    add_store_flag(parser)
    add_flags(parser, hs.Runtime(), *BUNDLE_RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    if args.model.is_file():
        return _evaluate_file(args)
    if args.data is None:
        raise SpecError("A model is judged on labelled images: name DATA after it.")
    from headstart.cli.judging import judged_by  # these load NumPy, which --help does not need
    from headstart.runs.folder import read_record

    runtime = made(hs.Runtime(), args)
    bundle = hs.load_bundle(bundle_of(args.model))
    read, store, listener = hs.read(args.data), hs.Store(args.store), Terminal()
    threads = runtime.resolved().decode_threads
    with kept_if_stopped(FEATURES_KEPT):
        progress = partial(listener.progress, "checks")
        seen = hs.survey(read, store=store, threads=threads, progress=progress)
        record, source = read_record(args.model), source_of(args.data)
        judged = judged_by(hs.with_contents(read, seen), record, source, args.part)
        data = judged.data
        table = hs.extract(
            bundle.model.backbone, data, store=store, runtime=runtime, listener=listener
        )
    said = bundle.model.predict_table(table)
    strangers = _strangers(said, data)
    if not said.known.any():
        raise DataError(f"There is nothing to judge by: none of {len(data):,} images can be read.")
    _print_judged(hs.evaluate(said, fitted=bundle.model.target), args)
    return tell_left_out((*data.left_out, *judged.left_out, *table.left_out, *strangers))


def _evaluate_file(args: argparse.Namespace) -> int:
    if args.data is not None:
        raise SpecError(f"{args.model} knows its labels: evaluate it without DATA.")
    said = hs.read_predictions(args.model)
    if not said.known.any():
        raise DataError(f"There is nothing to judge by: no row of {args.model} has a label.")
    _print_judged(hs.evaluate(said), args)
    return DONE


def _print_judged(result: "hs.Evaluation", args: argparse.Namespace) -> None:
    if args.json:
        print_json(result.to_plain())
    else:
        print_evaluation("evaluated", result)


def _strangers(said: "hs.Predictions", data: "hs.Dataset") -> "list[hs.LeftOut]":
    """List classes of the data that the model does not have; their rows are not evaluated.

    Raises Mismatch if the model has none of the classes.
    """
    if not said.classes:
        return []
    unknown = {name: n for name, n in data.counts.items() if n and name not in said.classes}
    if unknown and not said.known.any():
        raise Mismatch(
            f"The model tells {', '.join(said.classes)} apart; the data holds none of these but "
            f"{', '.join(unknown)}. Is it the right model?"
        )
    reason = "not a class of this model; {:,} rows are not judged"
    return [hs.LeftOut(name, reason.format(n)) for name, n in unknown.items()]
