"""Merge the shards of a store's tables into few large files with an index, and verify all files.

A run writes a shard for every few hundred rows: a million rows are thousands of files, each opened
whenever the table is. `compact` writes their rows into files of ROWS rows, in the order in which
they were written, and an index that is mapped into memory (`row_index`). The rows and their names
stay the same, so that nothing is computed again.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import alone, open_file, writing
from headstart.base.errors import StoreError
from headstart.base.row_index import SUFFIX, RowIndex, as_names
from headstart.base.seals import BLANK, SEAL, sealing
from headstart.base.shards import ENDS, KEYS, KINDS, Column
from headstart.base.store import GRAPHS, Store, StoredTable
from headstart.base.values import Record

ROWS = 65_536  # of a compacted file,
BYTES = 2**29  # or as many as fit into these
AT_ONCE = 2**24  # bytes copied at a time
LOCK = ".compacting"
Progress = Callable[[int, int], None]  # hears how many tables, of all, are done
NAMES = {np.dtype(kind): name for name, kind in KINDS.items()}


@dataclass(frozen=True)
class StoredFiles(Record):
    """The files of a store. files: shards and indexes. damaged: files that differ from what was
    written; their rows are computed again when needed. merged: shards that were merged."""

    tables: int
    files: int
    rows: int
    bytes: int
    merged: int = 0
    damaged: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return (
            f"{self.tables:,} tables, {self.rows:,} rows in {self.files:,} files, "
            f"{self.bytes / 1e6:,.1f} MB"
        )


def verify(store: Store, progress: Progress = lambda done, total: None) -> StoredFiles:
    """Read every file of a store again and compare it with its name and its seal.

    What was remembered of earlier verifications is forgotten first.

    >>> verify(Store("features"))  # doctest: +SKIP
    """
    return _each(store, _verified, progress)


def compact(store: Store, progress: Progress = lambda done, total: None) -> StoredFiles:
    """Merge the shards of every table into files of ROWS rows with an index.

    No other command should use the store meanwhile: one that reads merged shards stops with the
    advice to run it again. A kill loses nothing. StoreError if the files can't be written.

    >>> compact(Store("features"))  # doctest: +SKIP
    """
    return _each(store, _compacted, progress)


def _each(
    store: Store, work: Callable[[Path], tuple[StoredTable, int]], progress: Progress
) -> StoredFiles:
    folders = tables_of(store)
    rows = files = size = merged = 0
    damaged = list[str]()
    for done, folder in enumerate(folders):
        progress(done, len(folders))
        table, own = work(folder)
        kept = [*folder.glob("*.safetensors"), *folder.glob(f"*{SUFFIX}")]
        bad = {str(path) for path in table.damaged}
        rows, merged, files = rows + len(table), merged + own, files + len(kept)
        size += sum(path.stat().st_size for path in kept if path.is_file())
        damaged += sorted(bad)
    progress(len(folders), len(folders))
    return StoredFiles(len(folders), files, rows, size, merged, tuple(damaged))


def tables_of(store: Store) -> list[Path]:
    """Return the folders of a store's tables; StoreError if there is no such store."""
    if not store.folder.is_dir():
        raise StoreError(
            f"There is no store in {store.folder}: name its folder with --store, or run a command "
            f"that fills it."
        )
    folders = [path for path in store.folder.iterdir() if path.is_dir()]
    tables = (path for path in folders if path.name[0] != "." and path.name != GRAPHS)
    return sorted(path for path in tables if any(path.glob("*.safetensors")))


def _verified(folder: Path) -> tuple[StoredTable, int]:
    table = StoredTable(folder)
    table.verify()
    return table, 0


def _compacted(folder: Path) -> tuple[StoredTable, int]:
    lock = folder / LOCK
    try:
        with alone(lock):
            damaged, merged = _merge_all(folder)
        lock.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"The store must be able to keep merged files in {folder} before it removes what was "
            f"merged, but: {error.strerror or error}. Nothing is lost; free some space and run "
            f"`headstart store compact` again."
        ) from error
    table = StoredTable(folder)
    for path in [path for path in damaged if path not in table.damaged]:
        table.is_good(path)  # leaves its rows out
    return table, merged


def _merge_all(folder: Path) -> tuple[list[Path], int]:
    """Merge small shards and index all; returns the damaged files, and how many were merged."""
    table = StoredTable(folder)
    small = dict[tuple[str, ...], list[_Source]]()
    kept = list[Path]()
    for path in sorted(folder.glob("*.safetensors"), key=_age):
        if not table.is_good(path):
            continue
        source = _Source.of(table, path)
        if source.full:
            kept.append(path)
        else:
            small.setdefault(source.form, []).append(source)
    indexes = list(folder.glob(f"*{SUFFIX}"))
    groups = {form: own for form, own in small.items() if len(own) > 1}
    whole = len(indexes) == 1 and indexes[0] not in table.damaged
    if not groups and (whole or len(kept) + len(small) < 2):
        return table.damaged, 0
    made = [path for own in groups.values() for path in _merged(folder, own)]
    alone_ = [own[0].path for own in small.values() if len(own) == 1]
    index = _write_index(folder, sorted({*kept, *alone_, *made}))
    for path in indexes:
        if path != index:
            path.unlink(missing_ok=True)
    old = {source.path for own in groups.values() for source in own} - set(made)
    for path in old:
        path.unlink(missing_ok=True)
    return [path for path in table.damaged if path not in indexes], len(old)


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


@dataclass(frozen=True, eq=False)
class _Source:
    """A shard to merge. rows: those of it that a lookup finds here, and not in another shard."""

    path: Path
    columns: dict[str, Column]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, table: StoredTable, path: Path) -> "_Source":
        with open_file(path) as file:
            columns = table.columns_of(path, file)
            keys = columns[KEYS].read(file, 0, columns[KEYS].rows).view(np.uint8)
        return cls(path, columns, table.own_rows(path, as_names(keys)))

    @property
    def form(self) -> tuple[str, ...]:
        """What shards must have in common to be merged."""
        return tuple(f"{name} {c.kind} {c.shape}" for name, c in sorted(self.columns.items()))

    @property
    def row_bytes(self) -> float:
        """The bytes of a row, the mean of rows that have their own lengths."""
        return sum(
            c.kind.itemsize * math.prod(c.unit) * (c.ends[-1] / c.rows if c.ragged else 1)
            for c in self.columns.values()
        )

    @property
    def most(self) -> int:
        """The rows of a file of such rows."""
        return max(1, min(ROWS, int(BYTES / max(self.row_bytes, 1))))

    @property
    def full(self) -> bool:
        return self.columns[KEYS].rows >= self.most

    def blocks(self, name: str, rows: NDArray[np.int64], file: BinaryIO) -> Iterator[bytes]:
        """Yield the bytes of some rows of a column."""
        column = self.columns[name]
        step = max(1, int(AT_ONCE / max(self.row_bytes, 1)))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            if not column.ragged:
                yield column.some(file, some).tobytes()
                continue
            yield b"".join(column.read(file, row, 1).tobytes() for row in some.tolist())


Piece = tuple[_Source, NDArray[np.int64]]  # a shard, and some of its rows


def _merged(folder: Path, sources: Sequence[_Source]) -> list[Path]:
    """Write the rows of shards of one form into large files; returns their paths."""
    return [_write(folder, pieces) for pieces in _pieces(sources)]


def _pieces(sources: Sequence[_Source]) -> Iterator[list[Piece]]:
    """Yield what each file is made of."""
    most, pieces, room = sources[0].most, list[Piece](), sources[0].most
    for source in sources:
        rows = source.rows
        while len(rows):
            pieces.append((source, rows[:room]))
            rows, room = rows[room:], room - min(room, len(rows))
            if not room:
                yield pieces
                pieces, room = [], most
    if pieces:
        yield pieces


def _write(folder: Path, pieces: Sequence[Piece]) -> Path:
    """Write one file, which is read three times: for its seal, for its name, and to be written."""
    seal, whole = sealing(folder.name), hashlib.blake2b(digest_size=16)
    head, size = _header(pieces)
    for block in _file(head, pieces):
        seal.update(block)
    head = head.replace(BLANK.encode(), str(seal.hexdigest()).encode(), 1)
    whole.update(size.to_bytes(8, "little"))
    for block in _file(head, pieces):
        whole.update(block)
    path = folder / f"{whole.hexdigest()}.safetensors"
    with writing(path) as out:
        for block in _file(head, pieces):
            out.write(block)
    return path


def _header(pieces: Sequence[Piece]) -> tuple[bytes, int]:
    """Return the header of a safetensors file with a blank seal, and the size of the file."""
    rows, place = sum(len(own) for _, own in pieces), 0
    header: dict[str, object] = {"__metadata__": {SEAL: BLANK}}
    for name, column in sorted(pieces[0][0].columns.items()):
        entries = rows if not column.ragged else sum(int(n.sum()) for n in _lengths(name, pieces))
        tensors = [(name, column.kind, (entries, *column.unit))]
        tensors += [(f"{name}{ENDS}", np.dtype("<i8"), (rows,))] if column.ragged else []
        for own, kind, shape in tensors:
            end = place + kind.itemsize * math.prod(shape)
            header[own] = {"dtype": NAMES[kind], "shape": shape, "data_offsets": [place, end]}
            place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + place


def _file(head: bytes, pieces: Sequence[Piece]) -> Iterator[bytes]:
    """Yield the bytes of a file."""
    yield head
    for name, column in sorted(pieces[0][0].columns.items()):
        for source, rows in pieces:
            with open_file(source.path) as file:
                yield from source.blocks(name, rows, file)
        if column.ragged:
            lengths = np.concatenate(list(_lengths(name, pieces)))
            yield np.cumsum(lengths, dtype=np.int64).astype("<i8").tobytes()


def _lengths(name: str, pieces: Sequence[Piece]) -> Iterator[NDArray[np.int64]]:
    """Yield the lengths of the rows of each piece, of a column whose rows have their own."""
    for source, rows in pieces:
        yield np.diff(source.columns[name].ends, prepend=0)[rows]


def _write_index(folder: Path, shards: Sequence[Path]) -> Path:
    """Write the index of these shards; returns its path."""
    table = StoredTable(folder)
    index = RowIndex.of([(n, table.names_in(path)) for n, path in enumerate(shards)])
    listed = [bytes.fromhex(path.stem) for path in shards]
    size = sum(memoryview(block).nbytes for block in index.blocks(listed))
    whole = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    for block in index.blocks(listed):
        whole.update(block)
    path = folder / f"{whole.hexdigest()}{SUFFIX}"
    with writing(path) as out:
        for block in index.blocks(listed):
            out.write(block)
    return path
