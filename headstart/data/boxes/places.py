"""Find the pictures that annotations name, without ever leaving the data's folder."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from headstart.backbones.inputs import Input
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.data.dataset import LeftOut
from headstart.data.layouts import PART_WORDS
from headstart.data.walking import walk

ABSENT = "annotated, but there is no such picture in the folder"
UNANNOTATED = "a picture without annotation; one without objects has an empty annotation"


UPLOADS = re.compile(r"/?data/(upload|local-files)\b")
PREFIX = re.compile(r"^[0-9a-f]{6,}-")  # that an upload to Label Studio puts before a file's name


@dataclass
class PictureIndex:
    """The pictures below a folder, found by the names that annotations give them.

    root: the resolved folder. annotated: the pictures that were found so far, relative to it.
    """

    root: Path
    files: tuple[Path, ...]
    texts: tuple[Path, ...] = ()
    annotated: set[Path] = field(default_factory=set)
    _by_name: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    _by_stem: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, root: Path, input: "Input[object]") -> "PictureIndex":
        """Return the index of a folder: pictures by the endings of their names."""
        files = walk(root).files
        pictures = [file for file in files if file.suffix.lower() in input.suffixes]
        texts = tuple(file for file in files if file.suffix.lower() not in input.suffixes)
        index = cls(root.resolve(), tuple(pictures), texts)
        for file in pictures:
            index._by_name[_folded(file.name)].append(file)
            index._by_stem[_folded(file.stem)].append(file)
        return index

    def find(self, name: str, near: Path = Path()) -> Path:
        """Return the picture that an annotation names, relative to the root.

        Only pictures of the index are found: of those of the same file name the one whose folders
        agree best, then the one nearest to `near`, the annotation's folder. A name without an
        ending is that of any picture with this stem. Raises DataError if there is none, or several
        alike.
        """
        parts = [part for part in unquote(name.replace("\\", "/")).split("/") if part]
        last = parts[-1] if parts else ""
        found = self._by_name.get(_folded(parts[-1]), []) if parts else []
        found = found or self._by_name.get(_folded(name.replace("\\", "/").split("/")[-1]), [])
        found = found or self._by_stem.get(_folded(last), [])
        if not found:
            raise DataError(ABSENT)
        ranked = sorted(found, key=lambda file: _agreement(file, parts, near), reverse=True)
        first, *others = (_agreement(file, parts, near) for file in ranked)
        if others and others[0] == first:
            raise DataError("several pictures in the folder have this name; give its folder too")
        self.annotated.add(ranked[0])
        return ranked[0]

    def named(self, text: str) -> Path | None:
        """Return the picture whose path ends as a table writes it, relative to the root, or None.

        All folders that are written must agree; a name without an ending is that of any picture
        with this stem. Raises DataError if there are several.
        """
        parts = [_folded(part) for part in text.strip().replace("\\", "/").split("/") if part]
        if not parts or ".." in parts:
            return None
        likely = self._by_name.get(parts[-1], []) or self._by_stem.get(parts[-1], [])
        n = len(parts) - 1
        found = [f for f in likely if [_folded(p) for p in f.parts[-n - 1 : -1]][-n:] == parts[:-1]]
        if len(found) > 1:
            raise DataError(
                f"it may be {' or '.join(display(f) for f in found[:2])}: write its folder too"
            )
        return found[0] if found else None

    def moved(self, text: str) -> Path | None:
        """Return the picture of an absolute path of another machine, or of Label Studio's uploads.

        Of the former, the name and one folder at least must agree; ties are none.
        """
        parts = [part for part in text.strip().replace("\\", "/").split("/") if part]
        if UPLOADS.match(text):
            return self.named(PREFIX.sub("", parts[-1])) or self.named(parts[-1])
        ranked = sorted(
            (
                (_agreement(Path(self.root.name) / file, parts, Path())[0], file)
                for file in self._by_name.get(_folded(parts[-1]), [])
            )
            if parts
            else [],
            key=lambda found: found[0],
            reverse=True,
        )
        best = [file for n, file in ranked if n >= 2 and n == ranked[0][0]]
        return best[0] if len(best) == 1 else None

    def unannotated(self) -> Iterator[LeftOut]:
        """Yield the pictures that no annotation names, of the folders with annotated ones."""
        places = {file.parent for file in self.annotated}
        for file in self.files:
            if file.parent in places and file not in self.annotated:
                yield LeftOut(display(file), UNANNOTATED)


def _agreement(file: Path, parts: Iterable[str], near: Path) -> tuple[int, int]:
    """Return how many components agree from the end with a name, and from the start with `near`."""
    own, given = [_folded(part) for part in file.parts[::-1]], [_folded(p) for p in parts][::-1]
    tail = next((i for i, (a, b) in enumerate(zip(own, given, strict=False)) if a != b), None)
    pairs = enumerate(zip(file.parts, near.parts, strict=False))
    head = next((i for i, (a, b) in pairs if a != b), min(len(file.parts), len(near.parts)))
    return (min(len(own), len(given)) if tail is None else tail), head


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def part_named(name: str) -> str:
    """Return the part that a word in the name of a file or folder means, or "".

    >>> part_named("instances_val2017.json"), part_named("cars.json")
    ('val', '')
    """
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    found = {PART_WORDS[word] for word in words if word in PART_WORDS}
    return found.pop() if len(found) == 1 else ""
