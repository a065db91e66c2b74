"""Decode every example of a dataset once and record its facts, digests and damage."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, fetched, length
from headstart.base.errors import DataError
from headstart.base.grouping import Pair
from headstart.base.store import DIGEST_BYTES, Layout, Store, StoredTable, digest
from headstart.base.threads import ordered_map
from headstart.base.values import fingerprint
from headstart.data.contents import Contents
from headstart.data.dataset import Dataset
from headstart.data.findings import OddSize, Remark
from headstart.data.known_places import KnownBytes, KnownPlaces

SHARD = 512  # rows stored together
HELD = 2000  # rows up to which large columns are held in memory; of more they stay in the store
CONTENT = "pixels"  # the column that is equal for exact copies: a digest of the decoded content
Facts = Mapping[str, NDArray[Any]]  # column -> values of one example, or of N, first axis N


class Surveyor(Protocol):
    """Records facts of the examples of one kind of input, and finds problems among them.

    layout: the columns, one of them CONTENT. table: the table's name in the store, which changes
    whenever the same bytes would give other facts. A surveyor may have an attribute `large`, the
    names of columns that of many examples stay in the store and are read where they are indexed.
    """

    @property
    def layout(self) -> Layout: ...
    @property
    def table(self) -> str: ...
    def look(self, data: bytes) -> Facts: ...  # raises DataError for damage
    def near(self, facts: Facts, threads: int) -> Sequence[Pair]: ...  # near copies
    def odd(self, ids: Sequence[str], facts: Facts) -> Iterable[OddSize]: ...
    def remarks(self, dataset: Dataset, facts: Facts) -> Iterable[Remark]: ...


@dataclass(frozen=True)
class BytesSurveyor:
    """The surveyor of any input: exact copies have the same bytes; finds no near duplicates."""

    input: Input[Any]

    @property
    def layout(self) -> Layout:
        return {CONTENT: (np.uint8, (DIGEST_BYTES,))}

    @property
    def table(self) -> str:
        return fingerprint("survey of bytes", self.input.kind, self.input.fingerprint())

    def look(self, data: bytes) -> Facts:
        self.input.prepare(self.input.read(data))  # raises DataError for damage
        return {CONTENT: np.frombuffer(digest(data), np.uint8)}

    def near(self, facts: Facts, threads: int) -> Sequence[Pair]:
        return ()

    def odd(self, ids: Sequence[str], facts: Facts) -> Iterable[OddSize]:
        return ()

    def remarks(self, dataset: Dataset, facts: Facts) -> Iterable[Remark]:
        return ()


@dataclass(frozen=True)
class PartSurveyor(BytesSurveyor):
    """Counts the parts of each example as a backbone's input makes them: a text's windows."""

    @property
    def layout(self) -> Layout:
        return {"parts": (np.uint32, ())}

    @property
    def table(self) -> str:
        return fingerprint("parts of examples", self.input.kind, self.input.fingerprint())

    def look(self, data: bytes) -> Facts:
        return {"parts": np.array(length(self.input.prepare(self.input.read(data))), np.uint32)}


@dataclass(frozen=True, eq=False)
class StoredFacts:
    """A column of facts that stays in the store: its rows are read where they are indexed.

    keys: (N, 16), by which the store has them; zeros for unreadable rows, whose facts are zeros.
    """

    table: StoredTable
    column: str
    keys: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: NDArray[np.integer[Any]]) -> "StoredFacts":
        """Return the column of these rows, still in the store."""
        return StoredFacts(self.table, self.column, self.keys[rows])

    def __getitem__(self, rows: slice | NDArray[Any]) -> NDArray[Any]:
        keys, (kind, shape) = self.keys[rows], (self.table.layout or {})[self.column]
        out = np.zeros((len(keys), *shape), kind)
        there = np.flatnonzero(keys.any(axis=1))
        if len(there):
            out[there] = self.table.rows([keys[i].tobytes() for i in there], self.column)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


@dataclass(frozen=True, eq=False)
class Survey:
    """The facts of a dataset's N rows; rows in `errors` are zeros.

    files: (N, 16) uint8 digests of the bytes. facts: the surveyor's columns, N rows each, arrays or
    `StoredFacts`. errors: row -> why it can't be read. decoded: the number of files decoded; the
    others were in the store.
    """

    surveyor: Surveyor
    files: NDArray[np.uint8]
    facts: dict[str, Any]
    errors: dict[int, str]
    decoded: int = 0

    @classmethod
    def blank(cls, surveyor: Surveyor, n: int, table: StoredTable | None = None) -> "Survey":
        """Return a survey of zeros; with a table, large columns of many rows are left in it."""
        columns: dict[str, Any] = {}
        large = getattr(surveyor, "large", ()) if table is not None and n > HELD else ()
        for name, (kind, shape) in surveyor.layout.items():
            if table is not None and name in large:
                columns[name] = StoredFacts(table, name, np.zeros((n, DIGEST_BYTES), np.uint8))
            else:
                columns[name] = np.zeros((n, *shape), kind)
        return cls(surveyor, np.zeros((n, DIGEST_BYTES), np.uint8), columns, {})

    @property
    def good(self) -> NDArray[np.intp]:
        """The numbers of the readable rows."""
        readable = np.ones(len(self.files), bool)
        readable[list(self.errors)] = False
        return np.flatnonzero(readable)

    @property
    def contents(self) -> Contents:
        """The digests of the rows' files, empty for unreadable ones."""
        known = np.ones(len(self.files), bool)
        known[list(self.errors)] = False
        return Contents(self.files, self.facts[CONTENT], known)

    def facts_of(self, rows: NDArray[np.integer[Any]]) -> dict[str, Any]:
        """Return the facts of some rows; of all of them, in their order, the columns themselves."""
        if len(rows) == len(self.files) and (np.diff(rows) == 1).all():
            return dict(self.facts)
        return {
            name: column.take(rows) if isinstance(column, StoredFacts) else column[rows]
            for name, column in self.facts.items()
        }

    @property
    def held(self) -> dict[str, NDArray[Any]]:
        """The columns that are in memory."""
        return {n: c for n, c in self.facts.items() if not isinstance(c, StoredFacts)}


@dataclass(frozen=True, eq=False)
class _Look:
    """One file's digest (`name`), store key (`Input.store_key`) and new facts, or its error."""

    name: bytes = b""
    key: bytes = b""
    facts: Facts | None = None
    error: str = ""


def survey(
    dataset: Dataset,
    input: Input[Any],
    *,
    store: Store | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    surveyor: Surveyor | None = None,
) -> Survey:
    """Decode every file once and record its facts; with a store, decode only new content.

    surveyor: the input's own by default. A picture's facts are 4 kB; bad files are not stored.
    StoreError if the store can't be written.
    """
    surveyor = surveyor or input.surveyor() or BytesSurveyor(input)
    table = store.table(surveyor.table, surveyor.layout) if store else None
    result, fresh = Survey.blank(surveyor, len(dataset), table), dict[bytes, Facts]()
    keys, decoded = np.zeros((len(dataset), DIGEST_BYTES), np.uint8), 0
    known = np.zeros(len(dataset), bool)  # rows whose facts are in the store
    looker = _Looker(input, surveyor, table, KnownPlaces(store, input))
    sources = chain.from_iterable(looker.places.looked_up(dataset.sources))
    looks = ordered_map(looker, sources, threads=threads, ahead=4 * threads)
    try:
        for i, look in enumerate(looks):
            if look.error:
                result.errors[i] = look.error
            else:
                result.files[i] = np.frombuffer(look.name, np.uint8)
            if look.key:
                keys[i] = np.frombuffer(look.key, np.uint8)
            if look.facts is not None:
                decoded += 1
                fresh[look.key] = look.facts
                for column, values in result.held.items():
                    values[i] = look.facts[column]
            else:
                known[i] = bool(look.key)
            if len(fresh) >= SHARD:
                _remember(table, fresh)
            if progress:
                progress(i + 1, len(dataset))
    finally:
        looks.close()
        looker.places.save()
        _remember(table, fresh)  # facts are kept even after an error or an interrupt
    if table is None:
        return replace(result, decoded=decoded)
    _recall(result, table, keys, np.flatnonzero(known))
    stored = {
        name: StoredFacts(table, name, keys) if isinstance(column, StoredFacts) else column
        for name, column in result.facts.items()
    }
    return replace(result, facts=stored, decoded=decoded)


@dataclass(frozen=True, eq=False)
class _Looker:
    """Looks at one example after the other; one whose place has not changed is not read again."""

    input: Input[Any]
    surveyor: Surveyor
    table: StoredTable | None
    places: KnownPlaces

    def __call__(self, source: Any) -> _Look:
        try:
            known = self.places.of(source)
            if known and self._has(known.key):
                return _Look(known.file, known.key)
            data = fetched(self.input, source)
            name = digest(data)
            key = self.input.store_key(data, name)
            self.places.learn(source, KnownBytes(name, key))
            if self._has(key):
                return _Look(name, key)
            return _Look(name, key, self.surveyor.look(data))
        except DataError as error:
            return _Look(error=str(error))
        except OSError as error:
            return _Look(error=f"cannot be read: {error.strerror or error}")

    def _has(self, key: bytes) -> bool:
        return self.table is not None and key in self.table


def _remember(table: StoredTable | None, fresh: dict[bytes, Facts]) -> None:
    """Write the new facts to the store and clear `fresh`."""
    if table is not None and fresh:
        rows = list(fresh.values())
        columns = {column: np.stack([facts[column] for facts in rows]) for column in rows[0]}
        names = list(fresh)
        fresh.clear()
        table.append(names, columns)
    fresh.clear()


def _recall(
    result: Survey, table: StoredTable, keys: NDArray[np.uint8], known: NDArray[np.intp]
) -> None:
    """Copy the facts of known rows from the store, SHARD rows at a time."""
    for start in range(0, len(known), SHARD):
        rows = known[start : start + SHARD]
        names = [keys[i].tobytes() for i in rows]
        for column, values in result.held.items():
            values[rows] = table.rows(names, column)
