"""Decode every example of a dataset once and record its facts, digests and damage."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, fetched, length
from headstart.base.errors import DataError
from headstart.base.grouping import Pair
from headstart.base.store import DIGEST_BYTES, Layout, Store, StoredTable, digest
from headstart.base.threads import ordered_map
from headstart.base.values import fingerprint
from headstart.data.dataset import Content, Dataset
from headstart.data.findings import OddSize, Remark
from headstart.data.known_places import KnownBytes, KnownPlaces

SHARD = 512  # rows stored together
CONTENT = "pixels"  # the column that is equal for exact copies: a digest of the decoded content
Facts = Mapping[str, NDArray[Any]]  # column -> values of one example, or of N, first axis N


class Surveyor(Protocol):
    """Records facts of the examples of one kind of input, and finds problems among them.

    layout: the columns, one of them CONTENT. table: the table's name in the store, which changes
    whenever the same bytes would give other facts.
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
class Survey:
    """The facts of a dataset's N rows; rows in `errors` are zeros.

    files: (N, 16) uint8 digests of the bytes. facts: the surveyor's columns, N rows each. errors:
    row -> why it can't be read. decoded: the number of files decoded; the others were in the store.
    """

    surveyor: Surveyor
    files: NDArray[np.uint8]
    facts: dict[str, NDArray[Any]]
    errors: dict[int, str]
    decoded: int = 0

    @classmethod
    def blank(cls, surveyor: Surveyor, n: int) -> "Survey":
        columns = {name: np.zeros((n, *s), kind) for name, (kind, s) in surveyor.layout.items()}
        return cls(surveyor, np.zeros((n, DIGEST_BYTES), np.uint8), columns, {})

    @property
    def good(self) -> NDArray[np.intp]:
        """The numbers of the readable rows."""
        return np.array([i for i in range(len(self.files)) if i not in self.errors], np.intp)

    def content(self, row: int) -> Content:
        """Return the digests of a row's file, empty if it is unreadable."""
        if row in self.errors:
            return Content()
        shown = self.facts[CONTENT][row]
        return Content(self.files[row].tobytes().hex(), shown.tobytes().hex())


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
    result, fresh = Survey.blank(surveyor, len(dataset)), dict[bytes, Facts]()
    known, decoded = dict[int, bytes](), 0  # known: row -> the name of its facts in the store
    looker = _Looker(input, surveyor, table, KnownPlaces(store, input))
    looks = ordered_map(looker, dataset.sources, threads=threads, ahead=4 * threads)
    try:
        for i, look in enumerate(looks):
            if look.error:
                result.errors[i] = look.error
            else:
                result.files[i] = np.frombuffer(look.name, np.uint8)
            if look.facts is not None:
                decoded += 1
                fresh[look.key] = look.facts
                for column, value in look.facts.items():
                    result.facts[column][i] = value
            elif look.key:
                known[i] = look.key
            if len(fresh) >= SHARD:
                _remember(table, fresh)
            if progress:
                progress(i + 1, len(dataset))
    finally:
        looks.close()
        looker.places.save()
        _remember(table, fresh)  # facts are kept even after an error or an interrupt
    if table is not None:
        _recall(result, table, known)
    return replace(result, decoded=decoded)


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


def _recall(result: Survey, table: StoredTable, known: Mapping[int, bytes]) -> None:
    """Copy the facts of known rows from the store, SHARD rows at a time."""
    every = list(known)
    for start in range(0, len(every), SHARD):
        rows = every[start : start + SHARD]
        for column, values in result.facts.items():
            values[rows] = table.rows([known[i] for i in rows], column)
