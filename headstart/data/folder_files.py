"""The files of a folder by their names, as paths that are made when they are asked for.

A `Path` takes some 400 bytes, and a data set may have millions of files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class FolderFiles(Sequence[Path]):
    """The paths `root / name` of names that are relative to it, with slashes.

    >>> FolderFiles(Path("photos"), ("cat/1.jpg", "dog/2.jpg"))[1].name
    '2.jpg'
    """

    def __init__(self, root: Path, names: tuple[str, ...]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, row: int) -> Path: ...
    @overload
    def __getitem__(self, row: slice) -> "FolderFiles": ...
    def __getitem__(self, row: Any) -> "Path | FolderFiles":
        if isinstance(row, slice):
            return FolderFiles(self.root, self.names[row])
        return self.root / self.names[row]

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> "FolderFiles":
        """Return the paths of these rows, in this order."""
        return FolderFiles(self.root, tuple(self.names[row] for row in rows))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash((self.root, self.names))

    def __repr__(self) -> str:
        return f"FolderFiles({len(self):,} below {self.root})"
