"""`headstart robustness`: accuracy of a run on attacked and corrupted test pictures."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import headstart as hs
from headstart.base.atomic import check_folder, write_json
from headstart.base.errors import DataError, Mismatch, PlaceError, SpecError, sentence_of
from headstart.base.runtime import torch_threads
from headstart.base.values import field_help, read_value
from headstart.cli.flags import (
    add_flags,
    add_language_flag,
    add_store_flag,
    fraction,
    made,
)
from headstart.cli.opening import data_of, known_rows, part_of
from headstart.cli.parser import Parser
from headstart.cli.printing import INTERRUPTED, print_json, print_table, tell_left_out
from headstart.cli.progress import FEATURES_KEPT, Terminal, kept_if_stopped, say
from headstart.explaining.pixels.robustness import RobustnessResults

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "robustness.json"


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("robustness")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--data", type=Path, help="where the pictures are now (default: where the run had them)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.add_argument(
        "--epsilons",
        type=fraction,
        metavar="X",
        nargs="+",
        default=argparse.SUPPRESS,
        help=f"{field_help(hs.RobustnessPlan, 'epsilons')} (default: 1/255 2/255 4/255 8/255)",
    )
    add_flags(parser, hs.RobustnessPlan())
    add_store_flag(parser)
    add_flags(parser, hs.Runtime(), "threads", "decode_threads")
    add_language_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    work = _prepared(args)
    _try_place(args.run)
    found = hs.Robustness(work.plan, len(work.tried.data))
    try:
        with torch_threads(work.runtime.threads):
            for more in _trials(work):
                found = more
    except KeyboardInterrupt:
        say("stopped", _kept(args.run, found))
        return INTERRUPTED
    return _finish(work, found, args)


@dataclass(frozen=True, eq=False)
class _Work:
    """The model, the test pictures, and features of training rows (if any) to compare with.
    sources: of all rows of the run."""

    grad_model: "hs.GradModel"
    plan: "hs.RobustnessPlan"
    runtime: "hs.Runtime"
    tried: "hs.Squared"
    known: "hs.FeatureTable | None"
    sources: "dict[str, hs.CheckedFile]"


def _try_place(run: Path) -> None:
    """Warn before the work if its results cannot be written; they are printed anyway."""
    try:
        check_folder(run)
    except PlaceError as error:
        say("warning", f"the results will be printed, but not kept: {error}")


def _prepared(args: argparse.Namespace) -> _Work:
    """Open the run; raises SpecError for another folder, DataError if its pictures are gone."""
    plan, runtime = made(hs.RobustnessPlan(), args), made(hs.Runtime(device="cpu"), args).resolved()
    if not (args.run / "model").is_dir():
        raise SpecError(
            f"A model is tried on the test rows of its run; {args.run} is no finished run. Name "
            f"the folder that `headstart train --out` made."
        )
    model, data = hs.load_bundle(args.run / "model").model, data_of(args.run, args.data)
    grad_model, test = (
        hs.grad_model_of(model, "headstart robustness changes"),
        part_of(args.run, data, "test"),
    )
    few = test.take(hs.drawn(test.y, plan.rows, plan.seed))
    tried = hs.squared(grad_model.input, few, threads=runtime.decode_threads)
    size = grad_model.input.size
    say(
        "tried",
        f"{len(tried.data):,} of {len(test):,} test pictures, changed as the network sees them: "
        f"{size} x {size} pixels, {grad_model.input.fit}",
    )
    known = _known(model, args.run, data, runtime, hs.Store(args.store))
    files = hs.recorded_contents(args.run, data).files
    return _Work(grad_model, plan, runtime, tried, known, dict(zip(data.ids, files, strict=True)))


def _known(
    model: "hs.Model", run: Path, data: "hs.Dataset", runtime: "hs.Runtime", store: "hs.Store"
) -> "hs.FeatureTable | None":
    """Return features of training rows; None without any, after printing the reason."""
    try:
        some = known_rows(run, data)
    except DataError as error:
        say("known", f"how neighbours move is left out: {error}")
        return None
    from headstart.features.extract import extract

    with kept_if_stopped(FEATURES_KEPT):
        return extract(model.backbone, some, store=store, runtime=runtime, listener=Terminal())


def _trials(work: _Work) -> "Iterator[hs.Robustness]":
    return hs.trials(
        work.grad_model,
        work.tried.squares,
        _labels(work.grad_model, work.tried.data),
        work.plan,
        known=work.known,
        runtime=work.runtime,
        listener=Terminal(),
    )


def _labels(grad_model: "hs.GradModel", data: "hs.Dataset") -> "NDArray[np.int64]":
    """Return labels in the model's numbering; raises Mismatch for an unknown class."""
    import numpy as np

    classes = grad_model.classes
    place = {name: number for number, name in enumerate(classes)}
    if strange := [name for name, n in data.counts.items() if n and name not in place]:
        raise Mismatch(
            f"The run's classes are {', '.join(classes)}; its test pictures are now labelled "
            f"{strange[0]!r}. Is it the right --data?"
        )
    return np.array([place.get(name, -1) for name in data.classes], np.int64)[data.y]


def _kept(run: Path, found: "hs.Robustness") -> str:
    """Write the finished results unless the file holds more; returns a message."""
    done = len(found.attacked) + len(found.corrupted)
    if not done:
        return "nothing was tried yet, and nothing is written"
    if done * found.rows < _asked(run / FILE):
        return f"{run / FILE} is left as it was, of a time when more was tried"
    try:
        write_json(run / FILE, found.to_plain())
    except OSError as error:
        return (
            f"{done} of {found.planned} changes were tried, and can't be kept: {sentence_of(error)}"
        )
    return (
        f"{done} of {found.planned} changes were tried and are kept in {run / FILE}; "
        f"`headstart report {run}` shows them"
    )


def _asked(file: Path) -> int:
    """Return the number of changed pictures in a results file; 0 if it is unreadable."""
    try:
        found = read_value(file, RobustnessResults)
        return found.rows * (len(found.attacked) + len(found.corrupted))
    except (OSError, ValueError):
        return 0


def _finish(work: _Work, found: "hs.Robustness", args: argparse.Namespace) -> int:
    if args.json:
        print_json(found.to_plain())
    else:
        _print(found)
    write_json(args.run / FILE, found.to_plain())  # after printing, in case of an error
    page = hs.write_report(args.run, work.sources, args.language)
    say("saved", f"{args.run / FILE}; the report tells it too: {page}")
    known = work.known.left_out if work.known else ()
    return tell_left_out((*work.tried.left_out, *known))


def _print(found: "hs.Robustness") -> None:
    attacked, corrupted = hs.robustness_rows(found)
    print(f"\nattacked: the worst change of up to epsilon (PGD, {found.plan.steps} steps)")
    print_table(attacked)
    if corrupted:
        print("\ncorrupted: accuracy at strengths 1 to 5")
        print_table(corrupted)
