"""`headstart evaluate`: measure a model on labelled data."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.errors import SpecError
from headstart.base.runtime import Runtime
from headstart.cli.flags import (
    BUNDLE_RUNTIME,
    DATA_HELP,
    MODEL_HELP,
    add_flags,
    add_sha256_flag,
    add_store_flag,
    bundle_of,
    flag_of,
    made,
    store_of,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, print_evaluation, print_json, tell_left_out
from headstart.cli.progress import FEATURES_KEPT, Terminal, kept_if_stopped
from headstart.targets.plan import TargetPlan

SUFFIX = ".json"  # of detections
PART = "auto"
RUNTIME = (*BUNDLE_RUNTIME, "engine", "compute_precision")
OF_MODELS = {"sha256": "", "store": None, "reread": False}  # flags, with their defaults

if TYPE_CHECKING:
    from headstart.evaluation.evaluation import Evaluation
    from headstart.evaluation.judged import ConformalSets


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("evaluate")
    parser.add_argument(
        "model",
        type=Path,
        metavar="RUN_OR_BUNDLE",
        help=f"{MODEL_HELP}; or a CSV of path,label,predicted,score:CLASS…, made anywhere; "
        "or COCO's results as .json, detections made anywhere, with the DATA that has the boxes",
    )
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--part",
        choices=("auto", "train", "val", "test", "all"),
        default=PART,
        help="rows to measure; auto takes the test rows of data in parts, or of the run's data, "
        "and never an example that the run learned from, under whatever name (default: auto)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    add_flags(parser, TargetPlan(), "target", "ordered", "voc_base")
    add_sha256_flag(parser)
    add_store_flag(parser)
    add_flags(parser, Runtime(), *RUNTIME)
    return parser


def run(args: argparse.Namespace) -> int:
    plan = made(TargetPlan(), args)
    if args.model.is_file() and args.model.suffix.lower() == SUFFIX:
        _refuse_flags_of_models(args, parts=True)
        return _evaluate_detections(args, plan)
    if plan.voc_base != TargetPlan().voc_base:
        raise SpecError(f"--voc-base says how boxes are read, for detections in a {SUFFIX} file.")
    if args.model.is_file():
        _refuse_flags_of_models(args, parts=False)
        return _evaluate_file(args, plan)
    if args.data is None:
        raise SpecError("A model is judged on labelled data: name DATA after it.")
    if plan.kind:
        flag = "--ordered" if plan.ordered else "--target"
        raise SpecError(f"{args.model} knows what it predicts: leave {flag} out.")
    from headstart.base.context import RunContext  # loads NumPy, which --help does not need
    from headstart.modalities.reading import read_for
    from headstart.models.bundle import load_bundle
    from headstart.runs.folder import read_record
    from headstart.runs.judging import judge

    context = RunContext(store_of(args), made(Runtime(), args).resolved(), Terminal())
    model = load_bundle(bundle_of(args.model), sha256=args.sha256).model
    record = read_record(args.model)
    with kept_if_stopped(FEATURES_KEPT):
        data = read_for(args.data, model.target)
        judged = judge(model, record, data, args.part, data.origin, context)
    _print_judged(judged.evaluation, args, judged.conformal)
    return tell_left_out(judged.left_out)


def _evaluate_file(args: argparse.Namespace, plan: TargetPlan) -> int:
    from headstart.runs.comparison import judge_file

    if args.data is not None:
        raise SpecError(f"{args.model} knows its labels: evaluate it without DATA.")
    _print_judged(judge_file(args.model, plan, Terminal())[1], args)
    return DONE


def _evaluate_detections(args: argparse.Namespace, plan: TargetPlan) -> int:
    from headstart.runs.detections import judge_detections

    result = judge_detections(args.model, args.data, args.part, plan)
    _print_judged(result, args)
    return tell_left_out(result.left_out)


def _refuse_flags_of_models(args: argparse.Namespace, *, parts: bool) -> None:
    """Raise SpecError for a flag that only a model reads. parts: whether --part is read."""
    usual = OF_MODELS | ({} if parts else {"part": PART})
    given = [name for name, default in usual.items() if getattr(args, name) != default]
    given += [name for name in RUNTIME if hasattr(args, name)]
    if given:
        raise SpecError(
            f"{flag_of(given[0])} is for a model, and {args.model} holds answers that were made "
            f"before: leave it out."
        )


def _print_judged(
    result: "Evaluation", args: argparse.Namespace, conformal: "ConformalSets | None" = None
) -> None:
    if args.json:
        print_json(result.to_plain() | ({"conformal": conformal.to_plain()} if conformal else {}))
    else:
        print_evaluation("evaluated", result, conformal)
