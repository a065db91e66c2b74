"""`headstart attack`: adversarial pictures."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import headstart as hs
from headstart.base.atomic import check_folder
from headstart.base.display import displayed
from headstart.base.errors import HeadstartError, SpecError, sentence_of
from headstart.base.values import field_help
from headstart.cli.flags import add_flags, count, fraction, made
from headstart.cli.opening import OpenedModel, add_looking_flags, named_after, open_model
from headstart.cli.parser import Parser
from headstart.cli.printing import (
    FAILED,
    INTERRUPTED,
    print_json,
    print_line,
    tell_left_out,
)
from headstart.cli.progress import Terminal, say

USUAL = {"linf": 4 / 255, "l2": 1.0}  # default epsilon by norm
FOLDER = "attack"  # for the pictures: in the run, or in the current folder


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("attack")
    add_looking_flags(parser, files=True)
    parser.add_argument(
        "--target", metavar="NAME", help="class that the model is to see (default: any other)"
    )
    parser.add_argument(
        "--epsilon",
        type=_share,
        default=argparse.SUPPRESS,
        metavar="X",
        help=f"{field_help(hs.Attack, 'epsilon')} (default: 4/255 for linf, 1 for l2)",
    )
    add_flags(parser, hs.Attack(), "norm", "steps", "seed")
    parser.add_argument(
        "--restarts",
        type=count(),
        default=argparse.SUPPRESS,
        metavar="N",
        help=f"random starts, until one fools the model (default: {hs.RESTARTS})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"folder for NAME.png and NAME-triptych.png (default: RUN/{FOLDER} or {FOLDER})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def run(args: argparse.Namespace) -> int:
    norm = getattr(args, "norm", hs.Attack().norm)
    how = made(hs.Attack(USUAL[norm], norm), args)
    restarts = getattr(args, "restarts", hs.RESTARTS)
    if how.steps == 1 and "restarts" in args:
        raise SpecError("--restarts would change nothing: 1 step begins at the picture itself.")
    opened = open_model(args, "headstart attack changes", files=True)
    target = None if args.target is None else opened.grad_model.number(args.target)
    work = _Work(opened, how, target, restarts, args.json)
    files = _files(opened, args.out)
    _tell_plan(work)
    return _finish(work, _attacked(work, files))


@dataclass(frozen=True, eq=False)
class _Done:
    """The result for one picture, and its file."""

    path: str
    file: Path
    found: "hs.Fooling"

    @property
    def outcome(self) -> str:
        if not self.found.flipped:
            return "held"
        return "flipped" if self.found.fooled else "doubted"

    def fields(self) -> tuple[str, ...]:
        f = self.found
        said = [text for a in (f.before, f.after) for text in (a.name, f"{a.score:.4f}")]
        size = f"{f.levels}/255", f"{f.length:.4f}"
        return self.path, *said, *size, self.outcome, str(self.file)

    def plain(self, classes: Sequence[str]) -> dict[str, Any]:
        f = self.found
        return {
            "path": displayed(self.path),
            "before": _plain(f.before),
            "after": _plain(f.after),
            "target": None if f.target is None else classes[f.target],
            "outcome": self.outcome,
            "levels": f.levels,
            "l2": f.length,
            "file": str(self.file),
            "triptych": str(hs.triptych_path(self.file)),
        }


def _plain(answer: "hs.Answer") -> dict[str, Any]:
    found = {"predicted": answer.name, "score": answer.score}
    return found | ({"unknown": answer.doubt} if answer.doubt else {})


@dataclass(frozen=True, eq=False)
class _Work:
    """The settings of the attack and the results so far.

    spared: pictures already predicted as the target.
    """

    opened: OpenedModel
    how: "hs.Attack"
    target: int | None
    restarts: int
    quiet: bool
    done: list[_Done] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)
    left_out: "list[hs.LeftOut]" = field(default_factory=list)


def _attacked(work: _Work, files: "Sequence[_Place]") -> bool:
    """Attack the pictures one by one, writing and printing each; False if interrupted."""
    listener = Terminal()
    try:
        answering = hs.answerer(work.opened.model or work.opened.grad_model.backbone)
        for n, place in enumerate(files, 1):
            _one(work, answering, place)
            listener.progress("attack", n, len(files))
    except KeyboardInterrupt:
        say("stopped", f"{len(work.done)} of {len(files)} pictures are done and kept")
        return False
    return True


def _one(work: _Work, answering: "hs.Answerer", place: "_Place") -> None:
    try:
        picture = hs.decode(place.source)
        if work.target is not None and answering.of_example(picture).label == work.target:
            work.spared.append(place.path)
            return
        found = hs.fool(
            work.opened.grad_model,
            answering,
            picture,
            work.how,
            target=work.target,
            restarts=work.restarts,
        )
        hs.write_fooling(found, place.file)
    except (HeadstartError, OSError, MemoryError) as error:
        work.left_out.append(hs.LeftOut(place.path, sentence_of(error)))
        return
    work.done.append(_Done(place.path, place.file, found))
    if not work.quiet:
        print_line(*work.done[-1].fields(), flush=True)


def _finish(work: _Work, whole: bool) -> int:
    if work.quiet:
        print_json([one.plain(work.opened.grad_model.classes) for one in work.done])
    if work.spared and work.target is not None:
        name = work.opened.grad_model.classes[work.target]
        say("attack", f"{_listed(work.spared)}: called {name!r} already; name another --target")
    _tell_sum(work.done)
    code = tell_left_out((*work.opened.left_out, *work.left_out))
    if not whole:
        return INTERRUPTED
    return code if work.done else FAILED


def _tell_plan(work: _Work) -> None:
    how, classes = work.how, work.opened.grad_model.classes
    goal = "any other class than is called now"
    if work.target is not None:
        goal = repr(classes[work.target])
    reach = (
        f"no value by more than {how.levels:.0f} of 255 levels (linf)"
        if how.norm == "linf"
        else f"all values together by no more than {how.epsilon:g} (l2)"
    )
    steps = "1 step" if how.steps == 1 else f"{how.steps} steps from up to {work.restarts} starts"
    say("attack", f"towards {goal}; {reach}; {steps}")


def _tell_sum(done: Sequence[_Done]) -> None:
    if not done:
        return
    outcomes = [one.outcome for one in done]
    doubted = outcomes.count("doubted")
    flipped = outcomes.count("flipped") + doubted
    doubts = f"; predict calls {doubted} of them unknown" if doubted else ""
    say("attack", f"{flipped} of {len(done)} flipped{doubts}; see {done[-1].file.parent}")


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class _Place:
    """A picture, and the file for its adversarial version."""

    path: str
    source: Path
    file: Path


def _files(opened: OpenedModel, out: Path | None) -> list[_Place]:
    """Choose the file for each picture. For an existing file, the name gets a number in the run's
    own folder; elsewhere SpecError is raised."""
    assert opened.files is not None
    own = opened.run / FOLDER if opened.run else None
    folder = out or own or Path(FOLDER)

    def both(name: str) -> tuple[Path, Path]:
        file = folder / f"{name}.png"
        return file, hs.triptych_path(file)

    places = named_after(opened.files.sources, both, keep=folder == own)
    check_folder(folder)
    rows = zip(opened.files.ids, opened.files.sources, places, strict=True)
    return [_Place(path, source, file) for path, source, (file, _) in rows]


def _share(text: str) -> float:
    try:
        return fraction(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"it is a share of the pixels' range, such as 4/255 or 0.02; got {text!r}"
        ) from None
