"""`headstart attack`: adversarial pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.base.display import displayed
from headstart.base.runtime import Runtime
from headstart.base.values import field_help
from headstart.cli.flags import add_flags, count, fraction, made
from headstart.cli.opening import (
    add_json_flag,
    add_model_flags,
    named_examples,
    open_named,
    work_through,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_line
from headstart.cli.progress import say
from headstart.training.attack import EPSILONS, RESTARTS, Attack, starts_of

if TYPE_CHECKING:
    from headstart.explaining.pixels.fooling import Fooling
    from headstart.models.predictor import Answer
    from headstart.pixels import Attacker

FOLDER = "attack"  # for the pictures: in the run, or in the current folder


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("attack")
    add_model_flags(parser, files=True)
    parser.add_argument(
        "--target", metavar="NAME", help="class that the model is to see (default: any other)"
    )
    parser.add_argument(
        "--epsilon",
        type=_share,
        default=argparse.SUPPRESS,
        metavar="X",
        help=f"{field_help(Attack, 'epsilon')} (default: 4/255 for linf, 1 for l2)",
    )
    add_flags(parser, Attack(), "norm", "steps", "seed")
    parser.add_argument(
        "--restarts",
        type=count(),
        default=argparse.SUPPRESS,
        metavar="N",
        help=f"random starts, until one fools the model (default: {RESTARTS})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"folder for NAME.png and NAME-triptych.png (default: RUN/{FOLDER} or {FOLDER})",
    )
    add_flags(parser, Runtime(), "device")
    add_json_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    norm = getattr(args, "norm", Attack().norm)
    how = made(Attack(EPSILONS[norm], norm), args)
    starts = starts_of(how, getattr(args, "restarts", None))
    opened = open_named(args, "headstart attack changes", files=True)
    examples, left_out = named_examples(args)
    from headstart.pixels import Attacker

    target = None if args.target is None else opened.grad_model.number(args.target)
    attacker = Attacker(opened, how, target, starts)
    own = opened.run / FOLDER if opened.run else Path(FOLDER)
    work = attacker.of_files(examples, args.out or own)
    _tell_plan(attacker)

    def show(fooling: "Fooling", file: Path) -> None:
        if not args.json:
            print_line(*_fields(fooling, file), flush=True)

    done = work_through(work, "attack", "done and kept", show)
    if args.json:
        classes = opened.grad_model.classes
        print_json([_plain(fooling, file, classes) for fooling, file in done.results])
    if spared := [item.path for item in done.left_out if item.expected]:
        say("attack", f"{_listed(spared)}: called {_goal(attacker)} already; name another --target")
    _tell_sum(done.results)
    return done.exit_code(left_out)


def _fields(fooling: "Fooling", file: Path) -> tuple[str, ...]:
    answers = (fooling.before, fooling.after)
    predictions = [text for a in answers for text in (a.name, f"{a.score:.4f}")]
    size = f"{fooling.levels}/255", f"{fooling.length:.4f}"
    return fooling.path, *predictions, *size, fooling.outcome, str(file)


def _plain(fooling: "Fooling", file: Path, classes: Sequence[str]) -> dict[str, Any]:
    from headstart.explaining.pixels.fooling import triptych_path

    return {
        "path": displayed(fooling.path),
        "before": _plain_answer(fooling.before),
        "after": _plain_answer(fooling.after),
        "target": None if fooling.target is None else classes[fooling.target],
        "outcome": fooling.outcome,
        "levels": fooling.levels,
        "l2": fooling.length,
        "file": str(file),
        "triptych": str(triptych_path(file)),
    }


def _plain_answer(answer: "Answer") -> dict[str, Any]:
    plain = {"predicted": answer.name, "score": answer.score}
    return plain | ({"unknown": answer.doubt} if answer.doubt else {})


def _goal(attacker: "Attacker") -> str:
    if attacker.target is None:
        return "any class but the one it is called now"
    return repr(attacker.opened.grad_model.classes[attacker.target])


def _tell_plan(attacker: "Attacker") -> None:
    how = attacker.attack
    reach = (
        f"no value by more than {how.levels:.0f} of 255 levels (linf)"
        if how.norm == "linf"
        else f"all values together by no more than {how.epsilon:g} (l2)"
    )
    starts = f"{how.steps} steps from up to {attacker.restarts} starts"
    steps = "1 step" if how.steps == 1 else starts
    say("attack", f"towards {_goal(attacker)}; {reach}; {steps}")


def _tell_sum(results: "Sequence[tuple[Fooling, Path]]") -> None:
    if not results:
        return
    outcomes = [fooling.outcome for fooling, _ in results]
    doubted = outcomes.count("doubted")
    flipped = outcomes.count("flipped") + doubted
    doubts = f"; predict calls {doubted} of them unknown" if doubted else ""
    say("attack", f"{flipped} of {len(results)} flipped{doubts}; see {results[-1][1].parent}")


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _share(text: str) -> float:
    try:
        return fraction(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"it is a share of the pixels' range, such as 4/255 or 0.02; got {text!r}"
        ) from None
