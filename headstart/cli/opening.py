"""Shared by commands that inspect a model: open the model and pictures, choose output files."""

import argparse
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path
from unicodedata import normalize

import headstart as hs
from headstart.base.errors import DataError, HeadstartError, SpecError
from headstart.cli.flags import MODEL_HELP, add_weights_flag, bundle_of, named_files
from headstart.cli.progress import say

CELLS = "the built-in solar cells"  # the recorded data source of the demo's run
STEM_BYTES = 220  # of the 255 bytes of a file name; suffixes have at most 35
KNOWN = 5_000  # training rows searched for neighbours, at most


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """The model and pictures to inspect. model: None for a pretrained network. run: the run folder,
    if one was given. files: the readable pictures given."""

    grad_model: "hs.GradModel"
    model: "hs.Model | None"
    run: Path | None
    files: "hs.Dataset | None"
    left_out: "tuple[hs.LeftOut, ...]" = ()


def add_looking_flags(parser: argparse.ArgumentParser, *, files: bool) -> None:
    """Add the arguments: a run or bundle, or --backbone NAME; then, with `files`, pictures."""
    names = ("RUN_OR_BUNDLE", "FILE") if files else ("RUN_OR_BUNDLE",)
    parser.add_argument(
        "names",
        nargs="*",
        metavar=" ".join(names),
        help=f"{MODEL_HELP} (leave it out with --backbone)"
        + ("; then images, folders of images, or - for paths on stdin" if files else ""),
    )
    parser.add_argument(
        "--backbone", metavar="NAME", help="instead, a pretrained network as it is, as source:id"
    )
    add_weights_flag(parser)


def open_model(args: argparse.Namespace, does: str, *, files: bool) -> OpenedModel:
    """Open the model and the pictures in `args`.

    does: for messages, such as "headstart ideal draws". Raises SpecError for missing or extra
    arguments, and for a model of another input than pictures.
    """
    names = list(args.names)
    model, run = None, None
    if args.backbone is None:
        if args.weights != "pretrained":
            raise SpecError("--weights goes with --backbone; a run or bundle has its own.")
        if not names:
            raise SpecError("Name a run or bundle to look into, or a pretrained --backbone.")
        path = Path(names.pop(0))
        model = hs.load_bundle(bundle_of(path)).model
        run = path if bundle_of(path) != path else None
        grad_model = hs.grad_model_of(model, does)
    else:
        grad_model = hs.source_grad_model(
            hs.load_backbone(args.backbone, weights=args.weights), does
        )
    if not files:
        if names:
            raise SpecError(f"{names[0]!r} is one argument too many.")
        return OpenedModel(grad_model, model, run, None)
    if not names:
        raise SpecError("Name one or more pictures to look at.")
    found, left_out = hs.find(named_files(names))
    return OpenedModel(grad_model, model, run, found, left_out)


def decoded(path: Path) -> "hs.Pixels":
    """Decode a picture; raises DataError with its path and the reason if it is unreadable."""
    try:
        return hs.decode(path)
    except (OSError, DataError) as error:
        raise DataError(f"{path} must be a picture that can be read: {error}") from error


def named_after(
    sources: Iterable[Path], files: Callable[[str], tuple[Path, ...]], *, keep: bool = False
) -> "list[tuple[Path, ...]]":
    """Return the output files of each picture: `files` of its name, or of NAME-2, … if taken.

    A name is taken by another picture, ignoring case; with `keep`, also by an existing file. Long
    names are cut. Without `keep`, raises SpecError for an existing file.
    """
    found, taken = list[tuple[Path, ...]](), set[str]()
    for source in sources:
        stem = file_name(source.stem)
        for n in count(1):
            own = files(stem if n == 1 else f"{stem}-{n}")
            names = {normalize("NFC", str(path)).casefold() for path in own}
            if not (names & taken or keep and any(path.exists() for path in own)):
                break
        taken |= names
        found.append(own)
    refuse_taken(path for own in found for path in own)
    return found


def file_name(text: str) -> str:
    """Return `text` as the stem of a file name; a long one is cut and ends with a hash of it all.

    >>> file_name("cat"), len(file_name("кот" * 100).encode()) <= STEM_BYTES
    ('cat', True)
    """
    if len(os.fsencode(text)) <= STEM_BYTES:
        return text
    mark = f"-{hashlib.sha256(os.fsencode(text)).hexdigest()[:8]}"
    sizes = accumulate(len(os.fsencode(letter)) for letter in text)
    letters = sum(size <= STEM_BYTES - len(mark) for size in sizes)
    return text[:letters] + mark


def refuse_taken(files: Iterable[Path]) -> None:
    for file in files:
        if file.exists():
            raise SpecError(f"{file} is there already: name another --out.")


def part_of(run: Path, data: "hs.Dataset", part: str) -> "hs.Dataset":
    """Return the rows of `data` that were in this part of the run, by name; their recorded
    contents are verified on reading. Raises DataError if there are none."""
    parts = hs.recorded_parts(run, hs.recorded_source(run), data)
    rows = [row for row, name in enumerate(parts) if name == part]
    from headstart.runs.folder import recorded_count

    if not rows and recorded_count(run, part) == 0:
        raise DataError(
            f"There must be {part} pictures, and {run} was trained without any: its data left none "
            f"for that part. Train again, on more pictures or with a folder {part} of their own."
        )
    if not rows:
        raise DataError(
            f"There must be {part} pictures of {run}; the {len(data):,} found are none of them. "
            f"Tell with --data where they are now."
        )
    return hs.recorded_contents(run, data.take(rows))


def known_rows(run: Path, data: "hs.Dataset") -> "hs.Dataset":
    """Return the training rows to search for neighbours: at most KNOWN, stratified by class.
    Raises DataError if there are none."""
    train = part_of(run, data, "train")
    if len(train) > KNOWN:
        say("known", f"neighbours are opened for among {KNOWN:,} of {len(train):,} training rows")
    return train.take(hs.drawn(train.y, KNOWN))


def data_of(run: Path, data: Path | None) -> "hs.Dataset":
    """Read the data of a run from `data`, else from its recorded source. Raises SpecError if no
    source is known, DataError if it is unreadable."""
    recorded = hs.recorded_source(run)
    if not data and not recorded:
        raise SpecError(f"{run} does not say where its pictures are: name the folder with --data.")
    return hs.solar_cells() if not data and recorded == CELLS else hs.read(data or recorded)


def source_of(data: Path) -> str:
    """Return the resolved path of the data as a run records it."""
    return os.fsencode(data.resolve()).decode("utf-8", "backslashreplace")


def sources_of(run: Path, data: Path | None) -> "dict[str, hs.CheckedFile]":
    """Return the picture of each row of a run, with its recorded content; none if its data is
    gone."""
    try:
        found = data_of(run, data)
    except HeadstartError as error:
        if data is not None or isinstance(error, SpecError):
            raise
        say("pictures", f"left out: {error} (--data tells where they are now)")
        return {}
    return dict(zip(found.ids, hs.recorded_contents(run, found).files, strict=True))
