"""What the commands that look inside share: which model, which pictures, where files go."""

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

CELLS = "the built-in solar cells"  # where the demo's run says that its data is from
STEM_BYTES = 220  # of 255 that a name may have; what is put behind is no longer than 35
KNOWN = 5_000  # training rows, at most, among which neighbours are looked for


@dataclass(frozen=True, eq=False)
class Looked:
    """What is looked into. model: as it predicts, None for a pretrained network as it is.
    run: the run's folder, if one was named. files: the readable pictures that were named.
    """

    lens: "hs.Lens"
    model: "hs.Model | None"
    run: Path | None
    files: "hs.Dataset | None"
    left_out: "tuple[hs.LeftOut, ...]" = ()


def add_looking_flags(parser: argparse.ArgumentParser, *, files: bool) -> None:
    """A run or bundle, or instead --backbone NAME; then the pictures, if there are to be any."""
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


def look(args: argparse.Namespace, does: str, *, files: bool) -> Looked:
    """Open what was named; raises SpecError if a model, or pictures, are missing or too many, or if
    the model is not of pictures. does: what the command does with them, as "headstart ideal draws".
    """
    names = list(args.names)
    model, run = None, None
    if args.backbone is None:
        if args.weights != "pretrained":
            raise SpecError("--weights goes with --backbone; a run or bundle has its own.")
        if not names:
            raise SpecError("Name a run or bundle to look into, or a pretrained --backbone.")
        path = Path(names.pop(0))
        model = hs.load(bundle_of(path)).model
        run = path if bundle_of(path) != path else None
        lens = hs.lens_of(model, does)
    else:
        lens = hs.source_lens(hs.load_backbone(args.backbone, weights=args.weights), does)
    if not files:
        if names:
            raise SpecError(f"{names[0]!r} is one argument too many.")
        return Looked(lens, model, run, None)
    if not names:
        raise SpecError("Name one or more pictures to look at.")
    found, left_out = hs.find(named_files(names))
    return Looked(lens, model, run, found, left_out)


def decoded(path: Path) -> "hs.Pixels":
    """A picture's pixels; raises DataError with its name and the reason if it can't be read."""
    try:
        return hs.decode(path)
    except (OSError, DataError) as error:
        raise DataError(f"{path} must be a picture that can be read: {error}") from error


def named_after(
    sources: Iterable[Path], files: Callable[[str], tuple[Path, ...]], *, keep: bool = False
) -> "list[tuple[Path, ...]]":
    """What `files` makes of each picture's name; of NAME-2, … where several are called alike, be it
    only on a system that tells no upper case from lower; with `keep`, where one is there already.
    A long name is cut.

    Raises SpecError for one that is there, without `keep`.
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
    """The text as the beginning of a file's name: one that is too long is cut and marked.

    The mark is of the whole text, so that two long names stay two.

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
    """Raises SpecError if one of them is there."""
    for file in files:
        if file.exists():
            raise SpecError(f"{file} is there already: name another --out.")


def part_of(run: Path, data: "hs.Dataset", part: str) -> "hs.Dataset":
    """The rows of `data` that were this part of the run, by name; when they are read they must
    hold what they held then. Raises DataError if there is none."""
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
    """The training rows among which neighbours are looked for: at most KNOWN, each class with its
    share. Raises DataError if there is none."""
    train = part_of(run, data, "train")
    if len(train) > KNOWN:
        say("known", f"neighbours are looked for among {KNOWN:,} of {len(train):,} training rows")
    return train.take(hs.drawn(train.y, KNOWN))


def data_of(run: Path, data: Path | None) -> "hs.Dataset":
    """All that a run was made of, from `data` if that is where it is now; raises SpecError if
    nothing says where that is, DataError if it can't be read."""
    recorded = hs.recorded_source(run)
    if not data and not recorded:
        raise SpecError(f"{run} does not say where its pictures are: name the folder with --data.")
    return hs.solar_cells() if not data and recorded == CELLS else hs.read(data or recorded)


def source_of(data: Path) -> str:
    """Where data is read from, as a run records it: the same folder by any name."""
    return os.fsencode(data.resolve()).decode("utf-8", "backslashreplace")


def sources_of(run: Path, data: Path | None) -> "dict[str, hs.CheckedFile]":
    """Where the pictures of a run are, by the names of its rows, and what they must hold to be
    those; none if its data is gone."""
    try:
        found = data_of(run, data)
    except HeadstartError as error:
        if data is not None or isinstance(error, SpecError):
            raise
        say("pictures", f"left out: {error} (--data tells where they are now)")
        return {}
    return dict(zip(found.ids, hs.recorded_contents(run, found).files, strict=True))
