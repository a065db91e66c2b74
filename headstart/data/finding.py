"""Find the files to predict: named one by one, or all examples in a folder."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from headstart.backbones.inputs import PATH, Encoded, Input
from headstart.base.cells import as_text
from headstart.base.errors import DataError
from headstart.base.location import Location
from headstart.base.tables import Columns
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.index_file import facts_of, locations
from headstart.data.readers import ID, MANIFESTS, records_of
from headstart.data.walking import about_links, display, walk
from headstart.targets.classes import UNLABELLED


def find(
    examples: Sequence[Any], input: Input[Any], *, repeated: bool = False
) -> tuple[Dataset, tuple[LeftOut, ...]]:
    """Return the examples, also those in folders, as rows of one class "?", and the files left out.

    examples: paths, or examples in memory, which are named by their number from 1. repeated:
    whether a path that is given again is a row again, under another id; else it is one row.

    Raises DataError if there is no row.
    """
    left_out: list[LeftOut] = []
    found = dict[str, Any]()
    for number, example in enumerate(examples, 1):
        if isinstance(example, Path):
            for id, source in _each([example], input, left_out):
                again = repeated or not isinstance(source, Path)  # rows of several tables
                found[_numbered(id, found) if again else id] = source
            continue
        if isinstance(example, Encoded):
            found[_numbered(example.name, found)] = example
            continue
        try:
            found[str(number)] = Encoded(str(number), input.encode(example))
        except DataError as error:
            left_out.append(LeftOut(str(number), str(error)))
    if not found and not any(isinstance(example, Path) for example in examples):
        raise DataError(left_out[0].reason if left_out else "There are no examples: got none.")
    if not found:
        why = "; ".join(f"{item.path}: {item.reason}" for item in left_out[:3])
        one = f"one {input.noun.removesuffix('s')}"
        raise DataError(
            f"There must be at least {one} to look at; got {why or 'no path'}."
            f"{about_links(left_out)}"
        )
    ids, sources = tuple(found), tuple(found.values())
    data = Dataset(ids, sources, (0,) * len(ids), (UNLABELLED,), input=input)
    return data, tuple(left_out)


def _numbered(id: str, taken: Collection[str]) -> str:
    """Return `id`, or "ID (2)", "ID (3)", … if it is taken."""
    names = (id if n == 1 else f"{id} ({n})" for n in count(1))
    return next(name for name in names if name not in taken)


def _each(
    paths: Sequence[Path], input: Input[Any], left_out: list[LeftOut]
) -> Iterator[tuple[str, Path | str | Location]]:
    for path in paths:
        try:
            if facts_of(path):
                yield from ((place.id, place) for place in locations(path))
            elif input.column != PATH and path.suffix.lower() in MANIFESTS:
                yield from _rows(path, input)
            elif path.is_dir():
                yield from _inside(path, input, left_out)
            elif path.is_file():
                yield display(path), path
            else:
                why = "neither a file nor a folder" if path.exists() else "there is no such file"
                left_out.append(LeftOut(display(path), why))
        except OSError as error:
            left_out.append(LeftOut(display(path), error.strerror or str(error)))


def _rows(path: Path, input: Input[Any]) -> Iterator[tuple[str, str]]:
    """Yield the examples that a manifest holds as text, by the column `id` or row number."""
    for number, cells in records_of(path, Columns((input.column,), (ID,))):
        yield as_text(cells.get(ID)) or str(number), as_text(cells.get(input.column))


def _inside(folder: Path, input: Input[Any], left_out: list[LeftOut]) -> Iterator[tuple[str, Path]]:
    """Yield the examples of a folder, recognized as in training."""
    there = walk(folder)
    for item in there.left_out:
        left_out.append(replace(item, path=f"{display(folder)}/{item.path}"))
    for file in there.files:
        path = folder / file
        try:
            why = input.why_not(path)
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}"
        if why:
            left_out.append(LeftOut(display(path), why, expected=why == input.unmeant))
        else:
            yield display(path), path
