"""`headstart robustness`: accuracy of a run on attacked and corrupted test pictures."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from headstart.base.atomic import check_folder, write_json
from headstart.base.errors import PlaceError, sentence_of
from headstart.base.runtime import Runtime, torch_threads
from headstart.base.values import field_help, read_value
from headstart.cli.flags import (
    add_flags,
    add_language_flag,
    add_sha256_flag,
    add_store_flag,
    demanded,
    fraction,
    made,
    store_of,
)
from headstart.cli.opening import add_json_flag
from headstart.cli.parser import Parser
from headstart.cli.printing import INTERRUPTED, print_json, print_table, print_words, tell_left_out
from headstart.cli.progress import FEATURES_KEPT, Terminal, kept_if_stopped, say
from headstart.explaining.pixels.robust_plan import RobustnessPlan
from headstart.explaining.pixels.robustness import Robustness

if TYPE_CHECKING:
    from headstart.pixels import RobustnessTest

FILE = "robustness.json"


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("robustness")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--data", type=Path, help="where the pictures are now (default: where the run had them)"
    )
    add_json_flag(parser)
    add_sha256_flag(parser)
    parser.add_argument(
        "--epsilons",
        type=fraction,
        metavar="X",
        nargs="+",
        default=argparse.SUPPRESS,
        help=f"{field_help(RobustnessPlan, 'epsilons')} (default: 1/255 2/255 4/255 8/255)",
    )
    add_flags(parser, RobustnessPlan())
    add_store_flag(parser)
    add_flags(parser, Runtime(), "device", "threads", "decode_threads")
    add_language_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    plan, asked = made(RobustnessPlan(), args), made(Runtime(), args)
    from headstart.explaining.devices import device_of
    from headstart.pixels import RobustnessTest

    runtime = replace(asked, device=device_of(asked.device)).resolved()
    demanded(args, args.run)
    test = RobustnessTest.of(args.run, args.data, plan, runtime, Terminal())
    with kept_if_stopped(FEATURES_KEPT):
        test = test.compared(store_of(args))
    _try_place(args.run)
    results: Robustness | None = None
    try:
        with torch_threads(runtime.threads):
            for trial in test.trials():
                results = trial
    except KeyboardInterrupt:
        say("stopped", _keep(test, results))
        return INTERRUPTED
    assert results is not None
    return _finish(test, results, args)


def _try_place(run: Path) -> None:
    """Warn before the work if its results cannot be written; they are printed anyway."""
    try:
        check_folder(run)
    except PlaceError as error:
        say("warning", f"the results will be printed, but not kept: {error}")


def _keep(test: "RobustnessTest", results: Robustness | None) -> str:
    """Write the finished results unless the file holds more; returns a message."""
    if results is None:
        return "nothing was tried yet, and nothing is written"
    file, planned = test.run / FILE, test.plan.conditions
    if results.tried * results.rows < _changed_in(file):
        return f"{file} is left as it was, of a time when more was tried"
    try:
        write_json(file, results.to_plain())
    except OSError as error:
        why = sentence_of(error)
        return f"{results.tried} of {planned} changes were tried, and can't be kept: {why}"
    return (
        f"{results.tried} of {planned} changes were tried and are kept in {file}; "
        f"`headstart report {quote(str(test.run))}` shows them"
    )


def _changed_in(file: Path) -> int:
    """Return the number of changed pictures in a results file; 0 if it is unreadable."""
    try:
        results = read_value(file, Robustness)
        return results.rows * results.tried
    except (OSError, ValueError):
        return 0


def _finish(test: "RobustnessTest", results: Robustness, args: argparse.Namespace) -> int:
    """Print the results, then write them, in case of an error."""
    if args.json:
        print_json(results.to_plain())
    else:
        _print(results)
    page = test.save(results, args.language)
    say("saved", f"{args.run / FILE}; the report shows them too: {page}")
    return tell_left_out(test.left_out)


def _print(results: Robustness) -> None:
    attacked, corrupted = results.tables()
    steps = results.plan.values["steps"]
    print()
    print_words(f"attacked: the worst change of up to epsilon (PGD, {steps} steps)")
    print_table(attacked)
    if corrupted:
        print()
        print_words("corrupted: accuracy at strengths 1 to 5")
        print_table(corrupted)
