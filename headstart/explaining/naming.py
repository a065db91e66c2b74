"""Names of the files that are written about pictures."""

import hashlib
import os
from collections.abc import Callable, Iterable
from itertools import accumulate, count
from pathlib import Path
from unicodedata import normalize

from headstart.backbones.inputs import Encoded
from headstart.base.errors import SpecError
from headstart.base.location import Location

STEM_BYTES = 220  # of the 255 bytes of a file name; suffixes have at most 35


def named_after(
    sources: Iterable[Path | Encoded | Location],
    files: Callable[[str], tuple[Path, ...]],
    *,
    keep: bool = False,
    flag: str = "--out",
) -> list[tuple[Path, ...]]:
    """Return the output files of each picture: `files` of its name, or of NAME-2, … if taken.

    A name is taken by another picture, ignoring case; with `keep`, also by an existing file. Long
    names are cut. Without `keep`, raises SpecError for an existing file. flag: of the folder.
    """
    named, taken = list[tuple[Path, ...]](), set[str]()
    for source in sources:
        stem = file_name(source.stem if isinstance(source, Path) else source.name)
        for n in count(1):
            own = files(stem if n == 1 else f"{stem}-{n}")
            names = {normalize("NFC", str(path)).casefold() for path in own}
            if not (names & taken or keep and any(path.exists() for path in own)):
                break
        taken |= names
        named.append(own)
    refuse_taken((path for own in named for path in own), flag)
    return named


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


def refuse_taken(files: Iterable[Path], flags: str = "--out") -> None:
    """Raise SpecError if a file exists."""
    for file in files:
        if file.exists():
            raise SpecError(f"{file} is there already: name another {flags}.")
