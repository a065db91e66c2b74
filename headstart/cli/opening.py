"""Shared by commands that look into a model of pictures: flags, opening, one work loop."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from headstart.base.errors import SpecError
from headstart.base.runtime import Runtime
from headstart.cli.flags import (
    MODEL_HELP,
    add_sha256_flag,
    add_weights_flag,
    demanded,
    made,
    named_files,
)
from headstart.cli.printing import FAILED, INTERRUPTED, tell_left_out
from headstart.cli.progress import Terminal, say

if TYPE_CHECKING:
    from headstart.backbones.backbone import Backbone
    from headstart.data.dataset import Dataset, LeftOut
    from headstart.explainer import FileWork
    from headstart.pixels import OpenedModel

T = TypeVar("T")


def add_model_flags(parser: argparse.ArgumentParser, *, files: bool) -> None:
    """Add the arguments: a run or bundle, or --backbone NAME; then, with `files`, pictures."""
    names = ("RUN_OR_BUNDLE", "FILE") if files else ("RUN_OR_BUNDLE",)
    parser.add_argument(
        "names",
        nargs="*",
        metavar=" ".join(names),
        help=f"{MODEL_HELP} (leave it out with --backbone)"
        + ("; then images, texts, folders, or - for paths on stdin" if files else ""),
    )
    parser.add_argument(
        "--backbone", metavar="NAME", help="instead, a pretrained network as it is, as source:id"
    )
    add_weights_flag(parser)
    add_sha256_flag(parser)


def add_json_flag(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("--json", action="store_true", help=f"print one JSON value{more}")


def open_named(args: argparse.Namespace, does: str, *, files: bool) -> "OpenedModel":
    """Open the model in `args`, and take it out of `args.names`, which leaves the pictures.

    does: for messages, such as "headstart ideal draws". Raises SpecError for missing or extra
    arguments, and for a model of another input than pictures.
    """
    given, name = named_model(args)
    from headstart.pixels import open_model

    opened = open_model(given, does, device=made(Runtime(), args).device)
    if isinstance(given, Path):
        opened = replace(opened, name=name)
    if not files and args.names:
        raise SpecError(f"{args.names[0]!r} is one argument too many.")
    return opened


def named_model(args: argparse.Namespace) -> "tuple[Path | Backbone, str]":
    """Return the folder or the pretrained network named in `args`, and its name.

    The name is taken out of `args.names`. Raises SpecError for missing arguments.
    """
    if args.backbone is None and args.weights != "pretrained":
        raise SpecError("--weights goes with --backbone; a run or bundle has its own.")
    if args.backbone is None and not args.names:
        raise SpecError("Name a run or bundle to look into, or a pretrained --backbone.")
    if args.backbone is None:
        name = args.names.pop(0)
        demanded(args, Path(name))
        return Path(name), name
    if args.sha256:
        raise SpecError("--sha256 is of a run's bundle; leave it out with --backbone.")
    from headstart.modalities.sources import load_backbone

    return load_backbone(args.backbone, weights=args.weights), ""


def named_examples(args: argparse.Namespace) -> "tuple[Dataset, tuple[LeftOut, ...]]":
    """Return the pictures named in `args`, and the files that are left out."""
    if not args.names:
        raise SpecError("Name one or more pictures to look at.")
    from headstart.modalities.reading import find

    return find(named_files(args.names))


@dataclass(frozen=True, eq=False)
class WorkDone(Generic[T]):
    """The results, each with its file, and the files left out. stopped: by Ctrl-C."""

    results: list[tuple[T, Path]]
    left_out: "list[LeftOut]"
    stopped: bool

    def exit_code(self, before: "Sequence[LeftOut]" = ()) -> int:
        """Print the files left out, before (`before`) and during the work; return the exit code."""
        code = tell_left_out((*before, *self.left_out))
        if self.stopped:
            return INTERRUPTED
        return code if self.results else FAILED


def work_through(
    work: "FileWork[T]",
    stage: str,
    kept: str,
    show: Callable[[T, Path], None],
    noun: str = "pictures",
) -> WorkDone[T]:
    """Do the work example by example, and show each result as it comes, until Ctrl-C.

    kept: end of the message about Ctrl-C, such as "explained and kept". noun: of the examples.
    """
    from headstart.data.dataset import LeftOut

    results, left_out, listener = list[tuple[T, Path]](), list[LeftOut](), Terminal()
    try:
        for number, (result, file) in enumerate(work.results, 1):
            if isinstance(result, LeftOut):
                left_out.append(result)
            else:
                assert file is not None
                results.append((result, file))
                show(result, file)
            listener.progress(stage, number, work.count)
    except KeyboardInterrupt:
        say("stopped", f"{len(results)} of {work.count} {noun} are {kept}")
        return WorkDone(results, left_out, True)
    return WorkDone(results, left_out, False)
