"""The files of a folder by their names, as paths that are made when they are asked for.

A `Path` takes some 400 bytes, and a data set may have millions of files.
"""

from pathlib import Path

from headstart.base.lazy_sequence import LazySequence, Rows


class FolderFiles(LazySequence[Path]):
    """The paths `root / name` of names that are relative to it, with slashes.

    >>> FolderFiles(Path("photos"), ("cat/1.jpg", "dog/2.jpg"))[1].name
    '2.jpg'
    """

    def __init__(self, root: Path, names: tuple[str, ...]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def row(self, row: int) -> Path:
        return self.root / self.names[row]

    def take(self, rows: Rows) -> "FolderFiles":
        return FolderFiles(self.root, tuple(self.names[row] for row in rows))
