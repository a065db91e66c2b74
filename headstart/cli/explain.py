"""`headstart explain`: saliency maps, their deletion curves, and similar training pictures."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import headstart as hs
from headstart.base.atomic import check_folder, write_bytes
from headstart.base.display import displayed
from headstart.base.errors import HeadstartError, SpecError, sentence_of
from headstart.cli.flags import add_store_flag
from headstart.cli.opening import (
    OpenedModel,
    add_looking_flags,
    data_of,
    known_rows,
    named_after,
    open_model,
    refuse_taken,
    sources_of,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import (
    FAILED,
    INTERRUPTED,
    print_json,
    print_line,
    tell_left_out,
)
from headstart.cli.progress import Terminal, say
from headstart.explaining.pixels.method import METHODS

FOLDER = "explained"
NAMED = 20  # unreadable training pictures listed, at most

Alike = Callable[["hs.Explanation"], "tuple[hs.Neighbour, ...]"]
Found = Iterator["tuple[hs.Explanation | hs.LeftOut, Path]"]  # results, each with its PNG


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("explain")
    add_looking_flags(parser, files=True)
    parser.add_argument(
        "--class",
        dest="name",
        metavar="NAME",
        help="class to explain (default: the one that the model answers)",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="best",
        help="how maps are made; best tries several and keeps the one whose deletion curve falls "
        "soonest (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"folder for a PNG per picture (default: {FOLDER}; without FILE, RUN/{FOLDER})",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="where a run's pictures are now (default: where it had them)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value, curves too")
    add_store_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if args.backbone is None and len(args.names) == 1:
        return _finish(*_run(args), args.json)
    return _finish(*_files(args), args.json)


@dataclass(frozen=True, eq=False)
class _Work:
    """The results so far. count: pictures in all."""

    count: int
    done: "list[tuple[hs.Explanation, Path]]" = field(default_factory=list)
    left_out: "list[hs.LeftOut]" = field(default_factory=list)


def _files(args: argparse.Namespace) -> "tuple[_Work, Found]":
    opened = open_model(args, "headstart explain takes", files=True)
    if opened.run is None and args.data is not None:
        raise SpecError("--data goes with a run folder: only that names training examples.")
    assert opened.files is not None
    if args.name is not None:
        opened.grad_model.number(args.name)  # raises for an unknown class before any work
    files, out = opened.files, args.out or Path(FOLDER)
    places = named_after(files.sources, lambda name: (out / f"{name}.png",))
    check_folder(out)

    def found() -> "Found":
        alike, probed = _alike(opened, args), hs.probed_model_of(opened.grad_model)
        for id, source, (place,) in zip(files.ids, files.sources, places, strict=True):
            told = hs.explained(probed, id, source, args.name, args.method)
            yield _beside(told, alike), place

    return _Work(len(files), left_out=list(opened.left_out)), found()


def _run(args: argparse.Namespace) -> "tuple[_Work, Found]":
    """Explain a run's most confident test mistakes and a few right answers."""
    opened = open_model(args, "headstart explain takes", files=False)
    run, model = opened.run, opened.model
    if run is None or model is None:
        raise SpecError(
            f"Name pictures to explain after {args.names[0]}: only of a run folder, which this is "
            f"not, are the mistakes explained without any."
        )
    if args.name is not None or args.method != "best":
        raise SpecError(
            "--class and --method go with pictures that are named; of a run, the classes that it "
            "answered are explained."
        )
    sources, out = sources_of(run, args.data), args.out or run / FOLDER
    rows = hs.rows_to_explain(run, sources)
    names = [f"{n:02}.png" for n in range(1, len(rows) + 1)]
    if args.out is not None:
        refuse_taken(out / name for name in names)
    check_folder(out)

    def found() -> "Found":
        alike = _alike(opened, args)
        for told, name in zip(hs.explain_run(run, model, sources), names, strict=True):
            yield _beside(told, alike), out / name

    return _Work(len(rows)), found()


def _beside(told: "hs.Explanation | hs.LeftOut", alike: Alike) -> "hs.Explanation | hs.LeftOut":
    """Add the most similar training examples to an explanation."""
    return told if isinstance(told, hs.LeftOut) else replace(told, nearest=alike(told))


def _finish(work: _Work, found: "Found", as_json: bool) -> int:
    """Write and print each result as it comes, until Ctrl-C; returns the exit code."""
    listener, stopped = Terminal(), False
    try:
        for number, (told, place) in enumerate(found, 1):
            if isinstance(told, hs.Explanation):
                told = _written(told, place)
            if isinstance(told, hs.LeftOut):
                work.left_out.append(told)
            else:
                work.done.append((told, place))
                if not as_json:
                    print_line(told.path, told.name, f"{told.score:.4f}", str(place), flush=True)
            listener.progress("explain", number, work.count)
    except KeyboardInterrupt:
        say("stopped", f"{len(work.done)} of {work.count} pictures are explained and kept")
        stopped = True
    if as_json:
        print_json([_plain(told, place) for told, place in work.done])
    code = tell_left_out(work.left_out)
    if stopped:
        return INTERRUPTED
    return code if work.done else FAILED


def _written(told: "hs.Explanation", place: Path) -> "hs.Explanation | hs.LeftOut":
    """Write the picture of an explanation; returns it, or a LeftOut if writing fails."""
    try:
        write_bytes(place, hs.png_of(hs.draw_explanation(told)))
    except OSError as error:
        return hs.LeftOut(told.path, f"its explanation can't be written: {sentence_of(error)}")
    return told


def _plain(told: "hs.Explanation", place: Path) -> dict[str, Any]:
    return told.to_plain() | {"path": displayed(told.path), "file": str(place)}


def _alike(opened: OpenedModel, args: argparse.Namespace) -> Alike:
    """Return a function that finds the training examples most similar to an explained picture.

    If there are none, the reason is printed, and the function returns (). Features of training
    examples come from the store if they are there.
    """
    from headstart.explaining.pixels.forward import Forward

    if opened.run is None or opened.model is None:
        say("nearest", "left out: only a run folder names its training examples")
        return lambda told: ()
    try:
        rows = known_rows(opened.run, data_of(opened.run, args.data))
    except HeadstartError as error:
        if args.data is not None:
            raise
        say("nearest", f"left out: {error}")
        return lambda told: ()
    backbone, store, forward = (
        opened.model.backbone,
        hs.Store(args.store),
        Forward(opened.grad_model),
    )
    sources = dict(zip(rows.ids, rows.sources, strict=True))

    @cache
    def seen() -> "hs.FeatureTable | None":  # called when the first picture is explained
        try:
            from headstart.features.extract import extract

            table = extract(backbone, rows, store=store, listener=Terminal(), stage="nearest")
            for item in table.left_out[:NAMED]:
                say("nearest", f"left out: {item.path}: {item.reason}")
            return table
        except HeadstartError as error:  # e.g. a full store
            say("nearest", f"left out: {error}")
            return None

    def found(told: "hs.Explanation") -> "tuple[hs.Neighbour, ...]":
        if (table := seen()) is None:
            return ()
        return hs.nearest(table, sources, forward.features([told.square]))[0]

    return found
